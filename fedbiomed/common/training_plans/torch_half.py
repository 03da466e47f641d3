"""The corrections of a torch plan, called as one."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.corrections.correction import Correction, Step, Tools
from fedbiomed.common.training_plans.node_half import Kept, NodeHalf
from fedbiomed.common.uncertainty.swag import SWAG

_MOST_NUMBERS = 64


class TorchHalf(NodeHalf):
    """Hands everything on to each correction in turn; names are those of the corrections' files.

    Args:
        corrections: of this round.
    """

    def __init__(self, corrections: Sequence[Correction]) -> None:
        self._by_name = {type(correction).__module__.rpartition(".")[2]: correction for correction in corrections}
        self._epoch = 0

    # --- see NodeHalf

    @property
    def keeps_state(self) -> bool:
        """See `NodeHalf`."""
        return any(correction.keeps_state for correction in self._corrections())

    def take_kept(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """See `NodeHalf`; what was kept by other algorithms is passed over."""
        for name, correction in self._by_name.items():
            if correction.keeps_state and name in kept:
                correction.take_kept(kept[name])

    def arriving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `NodeHalf`."""
        for correction in self._corrections():
            params = correction.arriving(params)
        return dict(params)

    def kept(self) -> Kept:
        """See `NodeHalf`."""
        return {name: state for name, correction in self._by_name.items() if (state := correction.kept()) is not None}

    def leaving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `NodeHalf`."""
        for correction in self._corrections():
            params = correction.leaving(params)
        return dict(params)

    def sends(self, names: Collection[str]) -> Kept:
        """See `NodeHalf`."""
        return {name: sent for name, correction in self._by_name.items() if (sent := correction.sends(names)) is not None}

    def posterior(self, module: nn.Module) -> SWAG | None:
        """See `Correction`; that of the first correction that has one."""
        found = (correction.posterior(module) for correction in self._corrections())
        return next((posterior for posterior in found if posterior is not None), None)

    def tells(self) -> dict[str, float]:
        """See `NodeHalf`.

        Raises:
            FedbiomedTrainingPlanError: they are not a few finite numbers.
        """
        told = {str(name): value for correction in self._corrections() for name, value in correction.tells().items()}
        for name, value in told.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise FedbiomedTrainingPlanError(f"FB605: {name!r} for the reply must be a finite number, not {value!r:.80}")
        if len(told) > _MOST_NUMBERS:
            raise FedbiomedTrainingPlanError(f"FB605: {len(told)} numbers for the reply, at most {_MOST_NUMBERS} may go with it")
        return {name: float(value) for name, value in told.items()}

    # --- within a training

    @property
    def counts_steps(self) -> bool:
        """Whether one needs exactly the steps that were asked for."""
        return any(correction.counts_steps for correction in self._corrections())

    @property
    def has_personal_model(self) -> bool:
        """Whether one trains a model beside the shared one."""
        return any(correction.has_personal_model for correction in self._corrections())

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor], tools: Tools) -> None:
        """See `Correction.use` and `Correction.begin`."""
        self._epoch = 0
        for correction in self._corrections():
            correction.use(tools)
            correction.begin(module, initial)

    def step_begins(self, step: Step) -> None:
        """See `Correction`; tells of epochs, too."""
        if step.epoch != self._epoch:
            self._end_epoch()
            self._epoch = step.epoch
            for correction in self._corrections():
                correction.epoch_begins(step.epoch)
        for correction in self._corrections():
            correction.step_begins(step)

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        for correction in self._corrections():
            loss = correction.corrected_loss(loss)
        return loss

    def correct_gradients(self) -> None:
        """See `Correction`."""
        for correction in self._corrections():
            correction.correct_gradients()

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`."""
        for correction in self._corrections():
            correction.step_done(step, loss)

    def end(self) -> None:
        """See `Correction`; the last epoch ends with it."""
        self._end_epoch()
        for correction in self._corrections():
            correction.end()

    def personal(self, module: nn.Module) -> AbstractContextManager[Any] | None:
        """See `NodeHalf`; that of the first correction that has one."""
        found = (correction.personal(module) for correction in self._corrections())
        return next((block for block in found if block is not None), None)

    def _end_epoch(self) -> None:
        if self._epoch:
            for correction in self._corrections():
                correction.epoch_ends(self._epoch)

    def _corrections(self) -> Iterator[Correction]:
        return iter(self._by_name.values())
