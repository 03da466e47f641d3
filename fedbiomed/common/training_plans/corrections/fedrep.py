"""The nodes' half of FedRep, Collins et al. 2021 (ICML, arXiv:2102.07078), algorithm 1.

The head (private layers) is trained while the body stays as it is, then the body while the head stays as it is. What stays is equal to the
bit, running statistics of a batch normalisation too: it gets no gradient, and what an optimizer or a layer changes all the same is put
back.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Step
from fedbiomed.common.training_plans.private_layers import PrivateLayers


class HeadThenBody(PrivateLayers):
    """Trains the head for some steps, then the body for the rest.

    Args:
        aggregator_args: see `PrivateLayers`; and `head_steps`, an integer of 0 or more.

    Raises:
        FedbiomedTrainingPlanError: one of these did not come.
    """

    counts_steps = True

    def __init__(self, aggregator_args: Mapping[str, Any]) -> None:
        super().__init__("FedRep", aggregator_args)
        head_steps = aggregator_args.get("head_steps")
        if type(head_steps) is not int or head_steps < 0:
            raise FedbiomedTrainingPlanError(f"FB605: FedRep needs head_steps, an integer of 0 or more, not {head_steps!r:.80}")
        self._head_steps = head_steps
        self._still: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._untrained: list[nn.Parameter] = []
        self._is_head_trained: bool | None = None

    def step_begins(self, step: Step) -> None:
        """See `Correction`."""
        is_head_trained = step.number <= self._head_steps
        if is_head_trained is not self._is_head_trained:
            self._is_head_trained = is_head_trained
            self._begin_phase()
        for parameter in self._untrained:
            parameter.requires_grad_(False)

    def correct_gradients(self) -> None:
        """See `Correction`; the optimizer finds its parameters as it knows them, those that stay without a gradient."""
        for parameter in self._untrained:
            parameter.requires_grad_(True)
            parameter.grad = None

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`."""
        with torch.no_grad():
            for tensor, value in self._still:
                tensor.copy_(value)

    def _begin_phase(self) -> None:
        if self._module is None:
            raise FedbiomedTrainingPlanError("FB605: FedRep was not told that the training begins")
        stays = {
            name: tensor
            for name, tensor in (*self._module.named_parameters(), *self._module.named_buffers())
            if self.is_private(name) is not self._is_head_trained
        }
        self._untrained = [tensor for tensor in stays.values() if isinstance(tensor, nn.Parameter) and tensor.requires_grad]
        self._still = [(tensor, tensor.detach().clone()) for tensor in stays.values()]


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> HeadThenBody:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: names or steps did not come.
    """
    return HeadThenBody(aggregator_args)
