"""The nodes' half of SCAFFOLD, Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1, line 10.

The step is y <- y - lr (g(y) - c_i + c). The researcher keeps the controls c_i and c, and sends each node its correction
delta_i = c_i - c; so delta_i is what is subtracted from the gradient.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction

ARGUMENT = "aggregator_correction"


class ControlVariate(Correction):
    """Subtracts its correction from the gradient of each trainable parameter.

    Args:
        deltas: corrections by the names of the parameters, checked when a training begins; names of anything else are passed over.
    """

    counts_steps = True

    def __init__(self, deltas: Any) -> None:
        self._deltas = deltas
        self._pairs: list[tuple[nn.Parameter, torch.Tensor]] = []

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`; corrections of zero, as in the first round, cost nothing."""
        if not isinstance(self._deltas, Mapping):
            found = "none came" if self._deltas is None else f"a {type(self._deltas).__name__} came"
            raise FedbiomedTrainingPlanError(f"FB605: Scaffold needs {ARGUMENT!r}, a correction for each parameter by its name; {found}")
        pairs = [(p, self._delta(name, p)) for name, p in module.named_parameters() if p.requires_grad]
        self._pairs = [(parameter, delta) for parameter, delta in pairs if delta.any()]

    def correct_gradients(self) -> None:
        """See `Correction`; a parameter that the loss did not touch has a gradient of zero."""
        for parameter, delta in self._pairs:
            if parameter.grad is None:
                parameter.grad = -delta
            else:
                parameter.grad.sub_(delta)

    def _delta(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        given = self._deltas.get(name)
        if given is None:
            raise FedbiomedTrainingPlanError(
                f"FB605: the corrections of Scaffold lack the parameter {name!r}; they have {_few(self._deltas)}"
            )
        delta = torch.as_tensor(given).to(device=parameter.device, dtype=parameter.dtype)
        if delta.shape != parameter.shape:
            raise FedbiomedTrainingPlanError(
                f"FB605: the correction of {name!r} has the shape {tuple(delta.shape)}, the model needs {tuple(parameter.shape)}"
            )
        if not torch.isfinite(delta).all():
            raise FedbiomedTrainingPlanError(f"FB605: the correction of {name!r} holds NaN or infinite values")
        return delta


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ControlVariate:
    """Asked for by the aggregator's name."""
    return ControlVariate(aggregator_args.get(ARGUMENT))


def _few(names: Mapping[str, Any]) -> str:
    return ", ".join([str(name) for name in names][:5]) or "none"
