"""The nodes' half of Ditto, Li et al. 2021 (ICML, arXiv:2012.04221), algorithm 1.

With w_0 the global model with which the round began, in each step on the same batch:

    w <- w - lr grad f(w)                                the model that is sent, trained as without Ditto
    v <- v - lr (grad f(v) + lambda (v - w_0))           the personal model, which stays on the node

v begins as the first global model that the node gets. It is trained by an optimizer of its own, as `init_optimizer` makes it, that begins
anew in each round as the other one does. It draws random numbers (dropout) of which the training of w does not know.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_number
from fedbiomed.common.training_plans.corrections._own_model import OwnModel, torch_optimizer_of, trained, undisturbed
from fedbiomed.common.training_plans.corrections.correction import Correction, Step, Tools


class PulledModel(Correction):
    """Trains a personal model beside the shared one, pulled towards where the shared one began. It has buffers of its own, too.

    Args:
        pull: lambda, 0 or more.
    """

    keeps_state = True
    has_personal_model = True

    def __init__(self, pull: float) -> None:
        self._pull = pull
        self._own: OwnModel | None = None

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        self._own = OwnModel.from_kept(state, "Ditto")

    def use(self, tools: Tools) -> None:
        """See `Correction`."""
        self._loss_of = tools.loss_of
        self._optimizer: BaseOptimizer = torch_optimizer_of(tools.new_optimizer(), "Ditto")

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._module = module
        self._model = self._own or OwnModel.of(module)
        self._pairs = [(parameter, initial[name]) for name, parameter in trained(module).items()]
        with self._model.within(module):  # fits, and moves to where the module is
            self._optimizer.init_training()

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`; the step of the personal model."""
        with undisturbed(self._module), self._model.within(self._module):
            self._optimizer.zero_grad()
            torch.autograd.backward(self._loss_of(step.data, step.target))
            for parameter, begun in self._pairs:
                pull = self._pull * (parameter.detach() - begun)
                parameter.grad = pull if parameter.grad is None else parameter.grad + pull
            self._optimizer.step()
            self._optimizer.zero_grad()

    def end(self) -> None:
        """See `Correction`."""
        self._own = self._model

    def kept(self) -> dict[str, Any] | None:
        """See `Correction`."""
        return None if self._own is None else self._own.kept()

    def personal(self, module: nn.Module) -> AbstractContextManager[Any] | None:
        """See `Correction`; before its first training the personal model is the shared one."""
        return None if self._own is None else self._own.within(module)


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> PulledModel:
    """Asked for by the aggregator's name."""
    return PulledModel(sent_number(aggregator_args, "lambda_", within=(0.0, math.inf)))
