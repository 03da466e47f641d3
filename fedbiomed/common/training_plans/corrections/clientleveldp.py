"""The nodes' half of client-level differential privacy, McMahan et al. 2018 (arXiv:1710.06963), Andrew et al. 2021 (arXiv:1905.03871).

What leaves the node is x + min(1, C / |y - x|) (y - x), x being the parameters that came and y those that training made: parameters as
ever, for whatever looks at a reply, and not a difference. The norm is that of all trained parameters together. What is not trained (running
statistics, counters) leaves as it came, for nothing protects it. Beside it goes one number: whether the norm was within C.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction

ARGUMENT, TOLD = "aggregator_clipping_bound", "within_clipping_bound"


class ClippedDifference(Correction):
    """Clips the way that the parameters have gone.

    Args:
        bound: C; None in a round of validation.
    """

    goes_with_privacy = True

    def __init__(self, bound: float | None) -> None:
        self._bound = bound
        self._came: Mapping[str, Any] = {}
        self._trained: frozenset[str] = frozenset()
        self._is_within = True

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`."""
        self._came = params
        return params

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        if self._bound is None:
            raise FedbiomedTrainingPlanError("FB605: the researcher's ClientLevelDP sent no clipping bound")
        parameters = module.named_parameters(remove_duplicate=False)  # one that has two names travels under both
        self._trained = frozenset(name for name, parameter in parameters if parameter.requires_grad)

    def leaving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`.

        Raises:
            FedbiomedTrainingPlanError: `postprocess` made a name that did not come.
        """
        strange = sorted(params.keys() - self._came.keys())
        if strange or self._bound is None:
            raise FedbiomedTrainingPlanError(f"FB605: parameter {strange[:1]} did not come from the researcher: it cannot be clipped")
        came = {name: torch.as_tensor(self._came[name]) for name in params}
        ways = {name: torch.as_tensor(params[name]).double() - came[name].double() for name in params if name in self._trained}
        norm = float(torch.stack([way.norm() for way in ways.values()]).norm()) if ways else 0.0
        self._is_within = norm <= self._bound
        factor = 1.0 if self._is_within else self._bound / norm
        return {name: (came[name] + factor * ways[name]).to(came[name].dtype) if name in ways else came[name] for name in params}

    def tells(self) -> Mapping[str, float]:
        """See `Correction`."""
        return {TOLD: float(self._is_within)}


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ClippedDifference:
    """Asked for by the aggregator of that name.

    Raises:
        FedbiomedTrainingPlanError: the clipping bound that came is none.
    """
    bound = aggregator_args.get(ARGUMENT)
    if bound is not None and not (isinstance(bound, float) and 0 < bound < float("inf")):
        raise FedbiomedTrainingPlanError(f"FB605: a clipping bound is a number above 0, not {bound!r:.80}")
    return ClippedDifference(bound)
