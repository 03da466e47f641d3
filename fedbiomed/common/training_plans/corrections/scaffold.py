"""The nodes' half of SCAFFOLD, Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1, line 10.

The step is y <- y - lr (g(y) - c_i + c). The researcher keeps the controls c_i and c, and sends each node its correction
delta_i = c_i - c; so delta_i is what is subtracted from the gradient.

With secure aggregation the researcher must not know single controls: the node gets c, keeps c_i, and sends by how much c_i changed, for the
sum. With x the parameters that came, y those that leave, after K steps of rate lr: c_i' = delta_i + (x - y) / (lr K), line 12, option II.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.params import Params, combined
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_choice, sent_number
from fedbiomed.common.training_plans.corrections.correction import Correction, Tools

ARGUMENT = "aggregator_correction"
_CONTROL, _BEGINNINGS = "control", ("kept", "start", "zero")
_CENTER, _START = "shared_control", "own_control"


class ControlVariate(Correction):
    """Subtracts its correction from the gradient of each trainable parameter.

    Args:
        deltas: corrections by the names of the parameters, checked when a training begins; names of anything else are passed over.
    """

    counts_steps = True
    goes_with_privacy = True  # as in DP-SCAFFOLD, Noble et al. 2022 (arXiv:2111.09278)

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


class OwnControl(ControlVariate):
    """The same where the node keeps its control.

    What is sent is cut to a range before it is summed, so the node keeps only as much of a change: the mean of all kept controls stays c,
    and the rest of the change follows in later rounds.

    Args:
        told: by the aggregator.
    """

    keeps_state = True

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(None)
        self._begins = sent_choice(told, _CONTROL, _BEGINNINGS)
        self._range, self._n_updates = (
            sent_number(told, "aux_range", within=(0.0, math.inf)),
            sent_number(told, "num_updates", within=(1, math.inf)),
        )
        self._center, self._start = told.get(_CENTER), told.get(_START)
        self._kept: Mapping[str, Any] | None = None
        self._own: Params = {}
        self._change: Params = {}
        self._came: Mapping[str, Any] = {}
        self._tools: Tools | None = None
        self._rates: Mapping[str, float] = {}
        self._module: nn.Module | None = None

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        self._kept = state.get(_CONTROL)

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`."""
        self._came = params
        return params

    def use(self, tools: Tools) -> None:
        """See `Correction`."""
        self._tools = tools

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`.

        Raises:
            FedbiomedTrainingPlanError: also where this node should have kept a control, and has none.
        """
        self._module = module
        if isinstance(self._center, Mapping):  # what else it may be is told below
            own = self._begun(self._center)
            self._own = {name: own[name] for name in self._center}
            self._deltas = {name: combined([(1.0, own[name]), (-1.0, value)], name) for name, value in self._center.items()}
        super().begin(module, initial)

    def end(self) -> None:
        """See `Correction`."""
        if self._tools is not None and self._tools.optimizer is not None:
            self._rates = self._tools.optimizer.learning_rates(self._module)

    def leaving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`; the control follows from what leaves, with its noise where there is any."""
        for name, own in self._own.items():
            rate = self._rates.get(name, 0.0)
            if rate and name in params and name in self._came:  # a parameter without a rate does not move
                scale = 1 / (rate * self._n_updates)
                terms = [(1.0, self._deltas[name]), (scale, self._came[name]), (-scale, params[name]), (-1.0, own)]
                self._change[name] = combined(terms, name)
            else:
                self._change[name] = torch.zeros_like(own)
        return params

    def kept(self) -> dict[str, Any]:
        """See `Correction`."""
        return {_CONTROL: {name: own + self._change[name].clamp(-self._range, self._range) for name, own in self._own.items()}}

    def sends(self, names: Collection[str]) -> dict[str, Any]:
        """See `Correction`."""
        return {_CONTROL: self._change}

    def _begun(self, center: Mapping[str, Any]) -> Mapping[str, Any]:
        """The control with which the round begins."""
        if self._begins == _BEGINNINGS[2]:
            return {name: torch.zeros_like(torch.as_tensor(value)) for name, value in center.items()}
        found = self._kept if self._begins == _BEGINNINGS[0] else self._start
        if not isinstance(found, Mapping) or not center.keys() <= found.keys():
            raise FedbiomedTrainingPlanError(
                "FB605: this node keeps no control of Scaffold for these parameters, on which the researcher counts: go on from another "
                "breakpoint, or begin with new controls, set_aggregator(Scaffold(...))"
            )
        return found


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ControlVariate:
    """Asked for by the aggregator's name; with `control` the node keeps its own."""
    return OwnControl(aggregator_args) if _CONTROL in aggregator_args else ControlVariate(aggregator_args.get(ARGUMENT))


def _few(names: Mapping[str, Any]) -> str:
    return ", ".join([str(name) for name in names][:5]) or "none"
