"""FedProx, Li et al. 2020 (arXiv:1812.06127): stay near the parameters with which the round began."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_flag, sent_number
from fedbiomed.common.training_plans.corrections.correction import Correction, Step

LOSS = "training_loss"


class ProximalTerm(Correction):
    """Adds mu/2 times the squared distance of the trainable parameters from where training began. Buffers do not count.

    Args:
        mu: 0 or more.
        tells_loss: whether the reply tells the mean over the steps of the plan's own loss, as `training_loss`.
    """

    def __init__(self, mu: float, *, tells_loss: bool = False) -> None:
        self._mu = mu
        self._tells_loss = tells_loss
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._total, self._steps = 0.0, 0

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._pairs = [(parameter, initial[name]) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self._total, self._steps = 0.0, 0

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        return loss + self._mu / 2 * squared_distance(self._pairs)

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`."""
        if self._tells_loss:
            self._total, self._steps = self._total + float(loss), self._steps + 1

    def tells(self) -> dict[str, float]:
        """See `Correction`."""
        return {LOSS: self._total / self._steps} if self._tells_loss and self._steps else {}


def squared_distance(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The sum over pairs of the squared distance, as a tensor of one number."""
    return torch.stack([((one - other) ** 2).sum() for one, other in pairs]).sum()


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ProximalTerm | None:
    """Asked for by the training argument `fedprox_mu`, whatever the aggregator is, or by the aggregator `FedProx`, which sends mu.

    Raises:
        FedbiomedTrainingPlanError: both say how much, or the aggregator sent no such number.
    """
    mu = training_args["fedprox_mu"]
    if aggregator_args.get("aggregator_name") != "FedProx" or "mu" not in aggregator_args:
        return None if mu is None else ProximalTerm(mu)
    if mu is not None:
        raise FedbiomedTrainingPlanError("FB605: the aggregator FedProx says mu: leave fedprox_mu out of the training arguments")
    sent = sent_number(aggregator_args, "mu", within=(0.0, math.inf))
    return ProximalTerm(sent, tells_loss=sent_flag(aggregator_args, "adaptive"))
