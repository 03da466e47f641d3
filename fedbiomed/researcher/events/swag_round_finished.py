"""The moments of the weights that will come in a round have come."""

from typing import Protocol

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import AggregationError, FedbiomedTrainerError
from fedbiomed.researcher.course import TrainingState
from fedbiomed.researcher.events.event import RoundTrainer
from fedbiomed.researcher.events.training_round_finished import TrainingRoundFinished
from fedbiomed.researcher.swag_updates import Moments, SwagUpdates


class PosteriorTrainer(RoundTrainer, Protocol):
    """What this event needs of a trainer beside the rest."""

    def take_moments(self) -> SwagUpdates:
        """The replies of the round with their moments; each only once."""

    def keep_moments(self, moments: Moments) -> None:
        """Keep aggregated moments beside the model."""


class SWAGRoundFinished(TrainingRoundFinished):
    """First and second moments of a round are aggregated by sample size, after the model is.

    With shares p_k = n_k / sum(n): first = sum p_k first_k, second = sum p_k second_k. These are the moments of the mixture of the nodes'
    posteriors, so that what nodes disagree in counts as uncertainty.

    Source: Maddox et al. 2019 (arXiv:1902.02476); Linsner et al. 2021, Approaches to Uncertainty Quantification in Federated Deep Learning.
    """

    def __init__(self, trainer: PosteriorTrainer) -> None:
        super().__init__(trainer)
        self._posterior = trainer

    def handle(self) -> None:
        """Check and aggregate the moments of all participants, and keep them.

        Raises:
            FedbiomedTrainerError: there are none to take; or a count or a length differs: which round, the numbers, the nodes. The state is
                then ERROR, the model of the round stays, and the next round may follow.
        """
        updates = self._posterior.take_moments()
        try:
            moments = updates.moments()
        except AggregationError as error:
            self.training.note(type(self).__name__, TrainingState.ERROR, str(error)[:500])
            raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: {error}") from error
        self._posterior.keep_moments(moments)

    def next(self) -> None:
        """The training goes on: state ongoing, then as after any round."""
        self.training.note(type(self).__name__, TrainingState.ONGOING)
        super().next()
