"""The nodes' half of APFL, Deng et al. 2020 (arXiv:2003.13461), algorithm 1: adaptive personalised federated learning.

With w the model that is sent, v the node's local one, and p = a v + (1 - a) w the personal one, in each step on the same batch:

    v <- v - lr grad_v f(p)          grad_v f(p) = a grad f(p)
    w <- w - lr grad f(w)            trained as without APFL

and after the first step of each round, g_v and g_w being the gradients of that step:

    a <- clip(a - alpha_lr (sum (v - w) (a g_v + (1 - a) g_w) + 0.02 a), 0, 1)

v and a stay on the node. v begins as the first global model that the node gets. It is trained by an optimizer of its own, as
`init_optimizer` makes it, that begins anew in each round as the other one does. It draws random numbers of which the training of w does
not know.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_flag, sent_number
from fedbiomed.common.training_plans.corrections._own_model import OwnModel, torch_optimizer_of, trained, undisturbed
from fedbiomed.common.training_plans.corrections.correction import Correction, Step, Tools

_DECAY = 0.02


def alpha_step(
    alpha: float,
    differences: Sequence[torch.Tensor],
    local_gradients: Sequence[torch.Tensor],
    global_gradients: Sequence[torch.Tensor],
    alpha_lr: float,
) -> float:
    """One step of the share of the local model.

    >>> one = torch.ones(1)
    >>> round(alpha_step(0.5, [one], [2 * one], [4 * one], 0.01), 4)
    0.4699

    Args:
        alpha: from 0 to 1.
        differences: local less global parameters.
        local_gradients, global_gradients: of the same shapes.
        alpha_lr: length of the step.

    Returns:
        The next share, from 0 to 1.
    """
    triples = zip(differences, local_gradients, global_gradients, strict=True)
    slope = math.fsum(float((difference * (alpha * local + (1 - alpha) * shared)).sum()) for difference, local, shared in triples)
    return min(1.0, max(0.0, alpha - alpha_lr * (slope + _DECAY * alpha)))


class MixedModel(Correction):
    """Trains a local model beside the shared one, which are mixed into the personal one. The personal model has buffers of its own.

    Args:
        alpha: share of the local model in the node's first round.
        alpha_lr: length of its step.
        adaptive: whether it makes steps.
    """

    keeps_state = True
    has_personal_model = True

    def __init__(self, alpha: float, alpha_lr: float, *, adaptive: bool) -> None:
        self.alpha = alpha
        self._alpha_lr, self._is_adaptive = alpha_lr, adaptive
        self._own: OwnModel | None = None
        self._local_gradients: list[torch.Tensor] = []

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        alpha = state.get("alpha")
        if not isinstance(alpha, float) or not 0 <= alpha <= 1:
            raise FedbiomedTrainingPlanError(f"FB605: what APFL kept on this node in the round before has no share, but {alpha!r:.80}")
        self._own, self.alpha = OwnModel.from_kept(state, "APFL"), alpha

    def use(self, tools: Tools) -> None:
        """See `Correction`."""
        self._loss_of = tools.loss_of
        self._optimizer: BaseOptimizer = torch_optimizer_of(tools.new_optimizer(), "APFL")

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._module = module
        self._local = self._own or OwnModel.of(module)
        with self._local.within(module):  # fits, and moves to where the module is
            self._optimizer.init_training()

    def step_begins(self, step: Step) -> None:
        """See `Correction`; the step of the local model, before that of the shared one."""
        with undisturbed(self._module):
            gradients = self._gradients(step)
            with self._local.within(self._module):
                for name, parameter in trained(self._module).items():
                    parameter.grad = gradients[name]
                self._optimizer.step()
                self._optimizer.zero_grad()
        self._local_gradients = list(gradients.values()) if step.number == 1 and self._is_adaptive else []

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`; after the first step that of the share."""
        if not self._local_gradients:
            return
        shared = trained(self._module)
        differences = [self._local.tensors[name] - parameter.detach() for name, parameter in shared.items()]
        of_shared = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared.values()]
        self.alpha = alpha_step(self.alpha, differences, self._local_gradients, of_shared, self._alpha_lr)
        self._local_gradients = []

    def end(self) -> None:
        """See `Correction`."""
        self._own = self._local

    def kept(self) -> dict[str, Any] | None:
        """See `Correction`."""
        return None if self._own is None else {**self._own.kept(), "alpha": self.alpha}

    def personal(self, module: nn.Module) -> AbstractContextManager[Any] | None:
        """See `Correction`; before its first training the personal model is the shared one."""
        return None if self._own is None else self._mixed(self._own, module)

    def _gradients(self, step: Step) -> dict[str, torch.Tensor]:
        """The gradients of the personal model's loss by the local parameters."""
        with self._mixed(self._local, self._module):
            self._optimizer.zero_grad()
            torch.autograd.backward(self._loss_of(step.data, step.target))
            return {
                name: torch.zeros_like(p) if p.grad is None else self.alpha * p.grad.detach() for name, p in trained(self._module).items()
            }

    @contextmanager
    def _mixed(self, local: OwnModel, module: nn.Module) -> Iterator[None]:
        """A block within which the module is the personal model; its buffers, which may change, are those of the local one."""
        with torch.no_grad():
            mixed = {
                name: self.alpha * local.tensors[name].to(p.device) + (1 - self.alpha) * p
                for name, p in module.named_parameters(remove_duplicate=False)
                if p.requires_grad and name in local.tensors
            }
        personal = OwnModel({**local.tensors, **mixed})
        with personal.within(module):
            yield
        local.tensors = {**personal.tensors, **{name: local.tensors[name] for name in mixed}}


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> MixedModel:
    """Asked for by the aggregator's name."""
    alpha = sent_number(aggregator_args, "alpha", within=(0.0, 1.0))
    alpha_lr = sent_number(aggregator_args, "alpha_lr", within=(0.0, math.inf))
    return MixedModel(alpha, alpha_lr, adaptive=sent_flag(aggregator_args, "adaptive"))
