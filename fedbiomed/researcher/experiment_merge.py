"""One-shot merging of models that the nodes of an experiment trained alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher.aggregated_params import AggregatedParams
from fedbiomed.researcher.experiment_trainer import ExperimentTrainer
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.model_merge import MergeResult, merge
from fedbiomed.researcher.round_updates import reports
from fedbiomed.researcher.secagg.secure_aggregation import refuse_active
from fedbiomed.researcher.strategies.model_merge import ModelMergeStrategy, with_configs
from fedbiomed.researcher.strategies.strategy import Strategy


class ExperimentMerge(ExperimentTrainer):
    """Merges models; see `Experiment`."""

    def merge_models(self, strategy: ModelMergeStrategy | None = None) -> MergeResult:
        """Average the models that the nodes trained alone (`trainer=MergeTrainer()`), send the mean back and test it; one round in all.

        The tests need `test_on_global_updates` for metrics, and `test_ratio` for samples by which the models are weighted.

        Args:
            strategy: who takes part, and how; None: that of the experiment where it is one, else `ModelMergeStrategy()`.

        Raises:
            FedbiomedStrategyError: too few nodes hold a model or answered: which, why. The experiment stays as it was.
            FedbiomedAggregatorError: the models do not fit together.
            FedbiomedSecureAggregationError: secure aggregation is on.
            ExperimentStopped: `stop` ended it.
        """
        job, own, nodes = self._ready()
        refuse_active(self._secagg, "merge_models")
        strategy = checks.merge_strategy(strategy, own)
        round_ = self._round_current
        noted = self._trainer.failures_noted()
        with self._shown_progress() as progress, noted, self._records_undone_on_failure(), job.undone_on_failure(round_):

            def ask(asked: Mapping[str, dict[str, Any]]) -> None:
                job.nodes = [node_id for node_id in nodes if node_id in asked]
                progress.begin_round(round_ - 1, self._round_limit, job.nodes, what="test of models after round")
                told = with_configs({}, asked)
                job.start_nodes_training_round(round_, told, {}, do_training=False, on_progress=progress.hear, stop=self._stop)
                progress.end_round({}, job.failures.get(round_, {}))

            result = merge(job, strategy, round_, ask)
            self._aggregated_params[round_ - 1] = AggregatedParams(result.params_path)
            if result.evaluations:
                self._keep_reports(round_, reports(round_, job))
            self._trainer.training.note("models merged", self._trainer.training.state)
        return result

    def _keep_reports(self, round_: int, points: list[Point]) -> None:
        self._history.set_round(round_, points)
        self._monitor.set_round(round_, points, Path(self.experimentation_path()), tensorboard=self._tensorboard)

    def _ready(self) -> tuple[Job, Strategy, list[str]]:
        self._require_no_other_run()
        if self._job is None or self._strategy is None or self._fds is None:
            raise FedbiomedExperimentError(
                f"{ErrorNumbers.FB411.value}: missing {', '.join(self._missing())}; "
                "set_training_data(), set_strategy(), set_training_plan_class() and set_job() define them"
            )
        return self._job, self._strategy, self._fds.node_ids()
