"""What an experiment shows: results, settings at a glance, and the plan as the nodes see it."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher.aggregated_params import AggregatedParams
from fedbiomed.researcher.experiment_info import info_text, privacy_text, trainer_text
from fedbiomed.researcher.experiment_settings import ExperimentSettings
from fedbiomed.researcher.history import History
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.monitor import Monitor
from fedbiomed.researcher.progress import Progress
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.responses import Responses
from fedbiomed.researcher.stop_switch import StopSwitch

if TYPE_CHECKING:
    from pandas import DataFrame

logger = logging.getLogger(__name__)


class ExperimentViews(ExperimentSettings):
    """What can be looked at in an `Experiment`; see there.

    Args:
        requests: the connection to the network.
        show_progress: whether the nodes' work is shown.
    """

    def __init__(self, requests: Requests | None = None, *, show_progress: bool = True) -> None:
        super().__init__(requests)
        self._show_progress = checks.flag("show_progress", show_progress)
        self._progress: Progress | None = None
        self._runner = 0
        self._aggregated_params: dict[int, AggregatedParams] = {}
        self._history = History()
        self._stop = StopSwitch()
        self._monitor = Monitor()

    def aggregated_params(self) -> dict[int, AggregatedParams]:
        """By round: `params` (by name; read from the file at each access) and `params_path`."""
        return {round_: params for round_, params in self._aggregated_params.items() if round_ < self._round_current}

    def training_replies(self) -> dict[int, Responses] | None:
        """The nodes' replies by round; None when there is no job."""
        return self._job.training_replies if self._has_job("training replies") and self._job else None

    def training_plan(self) -> BaseTrainingPlan | None:
        """The plan with the current parameters; None when there is no job. Its class is that of the file which the nodes get."""
        return self._job.training_plan if self._has_job("training plan") and self._job else None

    @property
    def history(self) -> "DataFrame":
        """What the nodes reported: columns round, node, dataset, metric (`PHASE/name`) and value, the last one of each round."""
        return self._history.table()

    def history_points(self) -> "DataFrame":
        """As `history`, but every reported value, with iteration and epoch."""
        return self._history.points_table()

    def monitor(self) -> Monitor:
        """The reported values by node, phase, metric and round."""
        return self._monitor

    def info(self) -> None:
        """Print all settings, and whether the experiment can be run or what is missing."""
        rows = {
            "Tags": self._tags,
            "Nodes filter": self._nodes,
            "Training Data": self._fds and "\n".join(f"{n}: {d.get('name')} {d.get('shape')}" for n, d in self._fds.data().items()),
            "Aggregator": self._aggregator.aggregator_name,
            "Strategy": None if self._strategy is None else type(self._strategy).__name__,
            "Trainer": trainer_text(self._trainer),
            "Job": None if self._job is None else self._job.id,
            "Aggregator Optimizer": self._agg_optimizer,
            "Training Plan Path": self._plan_path,
            "Training Plan Class": getattr(self._plan_class, "__name__", self._plan_class),
            "Model Arguments": self._model_args,
            "Training Arguments": self._training_args.dict(),
            "Rounds already run": self._round_current,
            "Rounds total": self._round_limit,
            "Experiment folder": self._folder,
            "Experiment Path": self.experimentation_path(),
            "Breakpoint State": self._save_breakpoints,
            "Differential Privacy": privacy_text(self._training_args.dp_arguments(), self._history.points()),
            "Secure Aggregation": f"Active: {self._secagg.active}",
        }
        print(info_text(rows, self._missing()))  # noqa: T201  to show is what it is for

    def training_plan_file(self, display: bool = True) -> str:
        """Path of the file that the nodes get; with `display` its text is printed.

        Raises:
            FedbiomedExperimentError: there is no job, or its file is gone.
        """
        is_shown, path = checks.flag("display", display), str(self._required_job().training_plan_file)
        if is_shown:
            try:
                print(Path(path).read_text(encoding="utf-8"))  # noqa: T201
            except OSError as error:
                raise FedbiomedExperimentError(
                    f"{ErrorNumbers.FB411.value}: cannot read the plan: {error}; set_job() writes it anew"
                ) from error
        return path

    def check_training_plan_status(self) -> Responses:
        """Ask each node of the training data whether it approved the plan.

        Raises:
            FedbiomedExperimentError: there is no job.
        """
        return self._required_job().check_training_plan_is_approved_by_nodes()

    def training_plan_approve(
        self, training_plan: Any, description: str = "no description provided", nodes: Sequence[str] = (), timeout: float = 5
    ) -> dict[str, bool]:
        """Ask nodes to look at a plan (class, object or file).

        Args:
            training_plan: what shall be approved.
            description: for the operators.
            nodes: whom to ask; none for all.
            timeout: seconds to wait for their answers.

        Returns:
            By node: whether the plan was delivered, which does not mean approved.
        """
        return self._connected().training_plan_approve(training_plan, description=description, nodes=nodes, timeout=timeout)

    @contextlib.contextmanager
    def _shown_progress(self) -> Iterator[Progress]:
        """The display of a run; that of one round within it is the same."""
        self._require_no_other_run()
        if self._progress is not None:
            yield self._progress
            return
        with Progress(is_shown=self._show_progress) as progress:
            self._stop.reset()
            self._progress, self._runner = progress, threading.get_ident()
            try:
                yield progress
            finally:
                self._progress = None

    def _require_no_other_run(self) -> None:
        if self._progress is not None and self._runner != threading.get_ident():
            raise FedbiomedExperimentError(f"{ErrorNumbers.FB411.value}: another thread is running the experiment; stop() ends its run")

    @contextlib.contextmanager
    def _records_undone_on_failure(self) -> Iterator[None]:
        """Put what tells of rounds back as it was when the block raises."""
        done, params, points = self._round_current, dict(self._aggregated_params), self._history.points()
        try:
            yield
        except BaseException:
            self._round_current, self._aggregated_params = done, params
            if self._history.points() != points:
                self._history = History(points)
                self._monitor.restore(points)
            raise

    def _missing(self) -> list[str]:
        found = {
            "Training Data": self._fds is not None,
            "Strategy": self._strategy is not None,
            "Training Plan": self._is_plan_defined(),
            "Job": self._job is not None,
        }
        return [name for name, is_there in found.items() if not is_there]

    def _required_job(self) -> Job:
        if self._job is None:
            raise FedbiomedExperimentError(f"{ErrorNumbers.FB411.value}: no job yet, missing {', '.join(self._missing())}")
        return self._job

    def _has_job(self, wanted: str) -> bool:
        if self._job is None:
            logger.error("no %s: there is no job yet, missing %s", wanted, ", ".join(self._missing()))
        return self._job is not None
