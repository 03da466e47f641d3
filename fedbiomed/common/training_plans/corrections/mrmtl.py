"""The nodes' half of MR-MTL, Liu et al. 2022 (NeurIPS, arXiv:2206.07902): mean-regularised multi-task learning.

With m the mean of the nodes' models of the round before, each step follows the gradient of

    f(v) + lambda / 2 |v - m|^2

v, the node's own model, stays as the round before left it: m is what it is pulled to, never what it begins with. In the first round of a
node v is the m that it gets, which is the same for all nodes of that round.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_number
from fedbiomed.common.training_plans.corrections._own_model import OwnModel, trained
from fedbiomed.common.training_plans.corrections.correction import Correction
from fedbiomed.common.training_plans.corrections.fedprox import squared_distance


class AnchoredModel(Correction):
    """Lets the model be the node's own, pulled towards what comes from the researcher.

    Trainable parameters and buffers stay on the node from round to round; a copy of them is sent. Buffers are not pulled.

    Args:
        pull: lambda, 0 or more.
    """

    keeps_state = True

    def __init__(self, pull: float) -> None:
        self._pull = pull
        self._own: OwnModel | None = None
        self._anchor: Mapping[str, Any] = {}

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        self._own = OwnModel.from_kept(state, "MRMTL")

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`; the node's own where there are such."""
        self._anchor = params
        return params if self._own is None else {**params, **self._own.tensors}

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._module = module
        if self._own is not None:
            with self._own.within(module):  # the same values: here only checked to fit
                pass
        self._pairs = [(parameter, self._anchor_of(name, parameter)) for name, parameter in trained(module).items()]

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        return loss + self._pull / 2 * squared_distance(self._pairs)

    def end(self) -> None:
        """See `Correction`."""
        self._own = OwnModel.of(self._module)

    def kept(self) -> dict[str, Any] | None:
        """See `Correction`."""
        return None if self._own is None else self._own.kept()

    def _anchor_of(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        if name not in self._anchor:
            raise FedbiomedTrainingPlanError(f"FB605: the parameters that came for MRMTL lack {name!r}")
        anchor = torch.as_tensor(self._anchor[name]).to(device=parameter.device, dtype=parameter.dtype)
        if anchor.shape != parameter.shape:
            raise FedbiomedTrainingPlanError(
                f"FB605: parameter {name!r} came with the shape {tuple(anchor.shape)}, the model needs {tuple(parameter.shape)}"
            )
        return anchor


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> AnchoredModel:
    """Asked for by the aggregator's name."""
    return AnchoredModel(sent_number(aggregator_args, "lambda_", within=(0.0, math.inf)))
