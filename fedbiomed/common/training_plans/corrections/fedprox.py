"""FedProx, Li et al. 2020 (arXiv:1812.06127): stay near the parameters with which the round began."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction


class ProximalTerm(Correction):
    """Adds mu/2 times the squared distance of the trainable parameters from where training began.

    Args:
        mu: 0 or more.
    """

    goes_with_privacy = True

    def __init__(self, mu: float) -> None:
        self._mu = mu
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._pairs = [(parameter, initial[name]) for name, parameter in module.named_parameters() if parameter.requires_grad]

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        return loss + self._mu / 2 * torch.stack([((now - begun) ** 2).sum() for now, begun in self._pairs]).sum()


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ProximalTerm | None:
    """Asked for by the training argument `fedprox_mu`, whatever the aggregator is."""
    mu = training_args["fedprox_mu"]
    return None if mu is None else ProximalTerm(mu)
