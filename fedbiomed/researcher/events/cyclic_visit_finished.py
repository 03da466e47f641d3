"""One visit of a model that travels from node to node has finished."""

from typing import Protocol

from fedbiomed.researcher.course import CollectedRound
from fedbiomed.researcher.events.event import RoundTrainer
from fedbiomed.researcher.events.training_round_finished import TrainingRoundFinished


class TravelTrainer(RoundTrainer, Protocol):
    """What this event needs of a trainer beside the rest."""

    def take_over(self, collected: CollectedRound) -> None:
        """Keep the model that a node made, or that it made none."""


class CyclicVisitFinished(TrainingRoundFinished):
    """The node's model is the next one, as it is; a node that made none is skipped."""

    def __init__(self, trainer: TravelTrainer) -> None:
        super().__init__(trainer)
        self._travel = trainer

    def handle(self) -> None:
        """Take the model over; the round is done then.

        Raises:
            FedbiomedTrainerError: no round has finished.
            FedbiomedStrategyError: no node of a whole cycle made a model.
        """
        collected = self._travel.take_round()
        collected.updates.check(collected.job)
        self._travel.take_over(collected)
        self.training.round += 1
        if self._travel.options.delete_local_models_after_aggregation:
            collected.drop_local_models()
