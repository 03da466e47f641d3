"""The nodes' half of a model that keeps its optimizer's state when it changes places (Kamp et al. 2023, arXiv:2110.03469).

The state that came with the model is taken up before the first step; without one the optimizer begins anew, whatever this node remembers
of another model. What it remembers after the last step is sent: moments and counts of steps, not its settings.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedOptimizerError, FedbiomedTrainingPlanError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.travelling import STATE_KEY, TRAVELS_KEY
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction, Tools


class TravellingOptimizer(Correction):
    """Gives the plan's optimizer the state that came with the model, and sends the one with which the training ended.

    Args:
        state: that came; None: none did.
    """

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self._arrived = state
        self._tools: Tools | None = None
        self._optimizer: BaseOptimizer | None = None
        self._leaving: dict[str, Any] | None = None

    def use(self, tools: Tools) -> None:
        """See `Correction`."""
        self._tools = tools

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        if self._tools is None or self._tools.optimizer is None:
            raise FedbiomedTrainingPlanError("FB605: there is no optimizer whose state could travel")
        self._optimizer = self._tools.optimizer
        try:
            if self._arrived is None:
                self._optimizer.begin_anew(self._tools.new_optimizer())
            else:
                self._optimizer.take_travelling_state(self._arrived)
        except FedbiomedOptimizerError as error:
            raise FedbiomedTrainingPlanError(f"FB605: the optimizer's state that came with the model cannot be used: {error}") from error

    def end(self) -> None:
        """See `Correction`."""
        self._leaving = None if self._optimizer is None else self._optimizer.travelling_state()

    def sends(self, names: Collection[str]) -> dict[str, Any] | None:
        """See `Correction`: the state, whatever parameters are sent; None where the optimizer remembers nothing."""
        return self._leaving


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> TravellingOptimizer | None:
    """Asked for by the argument `travelling_optimizer`, whatever the aggregator is.

    Raises:
        FedbiomedTrainingPlanError: what came is no state, or the training is under differential privacy.
    """
    if aggregator_args.get(TRAVELS_KEY) is not True:
        return None
    if training_args.dp_arguments() is not None:
        raise FedbiomedTrainingPlanError(
            "FB605: the optimizer's state does not leave a node with dp_args, whose cost is that of parameters alone"
        )
    state = aggregator_args.get(STATE_KEY)
    if state is not None and not isinstance(state, Mapping):
        raise FedbiomedTrainingPlanError(f"FB605: the optimizer's state that came with the model is a {type(state).__name__}, not a dict")
    return TravellingOptimizer(state)
