"""What an experiment is told of its trainer, and shows of it."""

from typing import TYPE_CHECKING

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedTrainerError
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.events.swag_trainer import SWAGTrainer
from fedbiomed.researcher.experiment_views import ExperimentViews
from fedbiomed.researcher.requests import Requests

if TYPE_CHECKING:
    from pandas import DataFrame

    from fedbiomed.common.uncertainty.swag import SWAG


class ExperimentTrainer(ExperimentViews):
    """An experiment's trainer; see `Experiment`.

    Args:
        requests, show_progress: see `ExperimentViews`.
        trainer: what follows when a round has finished.
    """

    def __init__(
        self, requests: Requests | None = None, trainer: ModelTrainer | type[ModelTrainer] | None = None, *, show_progress: bool = True
    ) -> None:
        super().__init__(requests, show_progress=show_progress)
        self.set_trainer(trainer)

    def trainer(self) -> ModelTrainer:
        """What follows when a round has finished; its `training` tells how the training stands."""
        return self._trainer

    def set_trainer(self, trainer: ModelTrainer | type[ModelTrainer] | None) -> ModelTrainer:
        """Set what follows when a round has finished: an object, a class, or None for the plain one."""
        self._trainer = checks.trainer(trainer)
        return self._trainer

    def swag(self, seed: int | None = None) -> "SWAG":
        """The posterior of the last round with `trainer=SWAGTrainer(...)`, for a copy of the plan's model.

        Args:
            seed: of its draws; None: drawn now.

        Raises:
            FedbiomedTrainerError: the experiment has another trainer, or there is no posterior yet.
            FedbiomedExperimentError: there is no job, so no model.
        """
        if not isinstance(self._trainer, SWAGTrainer):
            raise FedbiomedTrainerError(
                f"{ErrorNumbers.FB411.value}: a SWAGTrainer gathers moments of weights, a {type(self._trainer).__name__} does not; make "
                "the experiment with trainer=SWAGTrainer(...)"
            )
        return self._trainer.posterior(seed).with_model(self._required_job().training_plan.model())

    def history_transitions(self) -> "DataFrame":
        """What happened in the training, the oldest first: columns round (rounds done then), event, state and note."""
        import pandas as pd  # heavy, and not every experiment looks at its history

        rows = [(t.round, t.event, t.state, t.note) for t in self._trainer.training.transitions]
        return pd.DataFrame(rows, columns=["round", "event", "state", "note"])
