"""The nodes' half of SWAG, Maddox et al. 2019 (arXiv:1902.02476), algorithm 1: moments of the weights in the course of a training.

The moments are sent, in float64. The deviations for the low-rank part stay on the node, with the state of the round: the low-rank parts of
several nodes cannot be put together. Snapshots are those of the trainable parameters; buffers are not averaged.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedTrainingPlanError, FedbiomedUncertaintyError
from fedbiomed.common.swag_schedule import SWAG_KEY, SwagSchedule
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction, Step
from fedbiomed.common.uncertainty.moments import MomentCollector
from fedbiomed.common.uncertainty.swag import SWAG


class WeightMoments(Correction):
    """Takes snapshots of the trainable parameters; changes nothing.

    Args:
        schedule: when.
    """

    keeps_state = True

    def __init__(self, schedule: SwagSchedule) -> None:
        self._schedule = schedule
        self._collector = MomentCollector(schedule.max_rank)
        self._parameters: dict[str, nn.Parameter] = {}
        self._kept: dict[str, Any] | None = None
        self._units = 0

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        self._kept = dict(state)

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`; each training has snapshots of its own."""
        self._collector, self._units = MomentCollector(self._schedule.max_rank), 0
        self._parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    def step_done(self, step: Step, loss: torch.Tensor) -> None:
        """See `Correction`."""
        if self._schedule.unit == "steps":
            self._count()

    def epoch_ends(self, epoch: int) -> None:
        """See `Correction`."""
        if self._schedule.unit == "epochs":
            self._count()

    def end(self) -> None:
        """See `Correction`.

        Raises:
            FedbiomedTrainingPlanError: the training was too short for a single snapshot.
        """
        if not self._collector.count:
            unit = self._schedule.unit
            raise FedbiomedTrainingPlanError(
                f"FB605: SWAG takes its first snapshot after {self._schedule.start} {unit}, this training ended after {self._units}: begin "
                "earlier, or train for longer"
            )
        self._kept = {
            "first": self._collector.first(),
            "second": self._collector.second(),
            "deviations": self._collector.deviations(),
            "snapshots": self._collector.count,
        }
        self._parameters = {}

    def kept(self) -> dict[str, Any] | None:
        """See `Correction`: moments and deviations, where deviations are wanted; the researcher has the moments."""
        return self._kept if self._schedule.max_rank else None

    def sends(self, names: Collection[str]) -> dict[str, Any] | None:
        """See `Correction`: the moments of those parameters that are sent, and how many snapshots there were."""
        if self._kept is None:
            return None
        moments = {part: {name: value for name, value in self._kept[part].items() if name in names} for part in ("first", "second")}
        return {**moments, "snapshots": self._kept["snapshots"]}

    def posterior(self, module: nn.Module) -> SWAG | None:
        """See `Correction`: of this node's last training, with the low-rank part."""
        if self._kept is None:
            return None
        try:
            return SWAG(self._kept["first"], self._kept["second"], self._kept["deviations"], model=module)
        except (FedbiomedUncertaintyError, KeyError) as error:
            raise FedbiomedTrainingPlanError(f"FB605: what SWAG kept on this node does not fit to the model: {error}") from error

    def _count(self) -> None:
        self._units += 1
        if self._schedule.is_due(self._units):
            try:
                self._collector.add(self._parameters)
            except FedbiomedUncertaintyError as error:
                raise FedbiomedTrainingPlanError(f"FB605: {error}") from error


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> WeightMoments | None:
    """Asked for by the argument `swag`, whatever the aggregator is.

    Raises:
        FedbiomedTrainingPlanError: it is malformed, or the training is under differential privacy, which does not cover the moments.
    """
    asked = aggregator_args.get(SWAG_KEY)
    if asked is None:
        return None
    if training_args.dp_arguments() is not None:
        raise FedbiomedTrainingPlanError("FB605: SWAG does not go with dp_args: its moments would be sent without noise; leave out one")
    try:
        return WeightMoments(SwagSchedule.load(asked))
    except FedbiomedError as error:
        raise FedbiomedTrainingPlanError(f"FB605: {error}") from error
