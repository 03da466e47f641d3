"""What a correction is. A file of this family defines a class of `Correction`, and a function that makes one:

    def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> Correction | None

which returns None where the algorithm is not asked for. Which files are asked is decided in `correction_choice.py`. It is made in rounds of
validation, too, where large arguments of the aggregator do not come: what a training needs of them is checked in `begin`.

One object lives for one round. Its methods are called in this order, each one may be left out:

    take_kept, arriving, use, begin,
        epoch_begins, (step_begins, corrected_loss, correct_gradients, step_done) for each step, epoch_ends, for each epoch,
    end, leaving, kept, sends, tells

and `personal` whenever the node tests the model.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.uncertainty.swag import SWAG


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a training.

    Args:
        data, target: of the batch, on the device on which it is trained.
        number: from 1, over the whole training.
        epoch: from 1; where the training is counted in updates, the pass over the data.
    """

    data: Any
    target: Any
    number: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What a correction may use of its plan while it trains.

    Args:
        loss_of: the plan's `training_step` of a batch's data and target: a loss of one number with gradient.
        new_optimizer: another optimizer as `init_optimizer` makes it, on the same parameters, with a state of its own.
        hook: a method of the plan by its name, None where it has none; what it raises is told like errors of other hooks.
        optimizer: the one that does the steps; None where no training has one.
    """

    loss_of: Callable[[Any, Any], torch.Tensor]
    new_optimizer: Callable[[], BaseOptimizer]
    hook: Callable[[str], Callable[..., Any] | None]
    optimizer: BaseOptimizer | None = None


class Correction:
    """The node's half of an algorithm; here it changes nothing and keeps nothing.

    Attributes:
        counts_steps: whether the algorithm needs exactly the steps that were asked for.
        goes_with_privacy: whether what it adds to steps depends on parameters alone, never on data: then it is added after the clipping
            and the noise of differential privacy. `corrected_loss` is then called with a loss of 0.
        keeps_state: whether `kept` gives something.
        has_personal_model: whether a model beside the shared one is trained, so that a training cannot be stopped early by the loss of one.
    """

    counts_steps = False
    goes_with_privacy = False
    keeps_state = False
    has_personal_model = False

    # --- around a training

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """Take up what `kept` gave in the round before, in which this node took part; not called in its first one.

        Args:
            state: arrays are those of torch, on the CPU.

        Raises:
            FedbiomedTrainingPlanError: it does not fit.
        """

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters that the model gets, made of those that came from the researcher, which must not be changed."""
        return params

    def use(self, tools: Tools) -> None:
        """Take the plan's tools."""

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """Hear that a training begins.

        Args:
            module: the model, on the device on which it is trained.
            initial: its trainable parameters with which the training begins, by name; not to be changed.

        Raises:
            FedbiomedTrainingPlanError: what the aggregator sent does not fit to the model.
        """

    def end(self) -> None:
        """Hear that all steps were done; the model is still on its device. Not called when the training failed."""

    def kept(self) -> dict[str, Any] | None:
        """What stays on the node for the next round, in values that the Serializer writes; it is never sent."""
        return None

    def leaving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters that are sent, made of those of the model after the training; a name that is left out does not travel."""
        return params

    def sends(self, names: Collection[str]) -> dict[str, Any] | None:
        """What is sent beside the parameters, in values that the Serializer writes; None: nothing.

        Args:
            names: parameters that are sent; nothing may be told of others.
        """
        return None

    def posterior(self, module: nn.Module) -> SWAG | None:
        """What this node knows of how sure its own weights are; None: nothing."""
        return None

    def tells(self) -> Mapping[str, float]:
        """A few finite numbers for the reply, which the aggregator finds in `hear` as `reply["told"]`."""
        return {}

    def personal(self, module: nn.Module) -> AbstractContextManager[Any] | None:
        """A block within which the module has the parameters of the personal model; None where there is no other model than the shared one.

        The node then tests the personal model, and reports the metrics of the shared one as `shared_<metric>`.
        """
        return None

    # --- within a training

    def epoch_begins(self, epoch: int) -> None:
        """Hear that an epoch begins, counted from 1."""

    def epoch_ends(self, epoch: int) -> None:
        """Hear that an epoch has ended."""

    def step_begins(self, step: Step) -> None:
        """Hear of a batch before its loss is worked out."""

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss whose gradient is followed; what is reported stays the plan's own.

        Args:
            loss: of one number.
        """
        return loss

    def correct_gradients(self) -> None:
        """Change the gradients of the module in place, after they were computed and before the optimizer's step."""

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """Hear that the optimizer has made its step.

        Args:
            step: as in `step_begins`.
            loss: the plan's own, without corrections.
        """
