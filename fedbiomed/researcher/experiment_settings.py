"""What an experiment is told, and tells: its getters and setters. A setter that refuses leaves the experiment as it was."""

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError
from fedbiomed.common.privacy_cost import require_installed as require_privacy_packages
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher import server_optimizer
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.connect import open_config
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg.context import SecaggBiprimeContext, SecaggServkeyContext
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation, secure_aggregation
from fedbiomed.researcher.strategies.strategy import Strategy
from fedbiomed.researcher.tensorboard import require as require_tensorboard

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer

logger = logging.getLogger(__name__)
_DEFAULT_FOLDER = re.compile(r"Experiment_(\d{4,})")


class ExperimentSettings:
    """Getters and setters of an `Experiment`; see there.

    Args:
        requests: the connection to the network; None: made with the settings of the working directory when it is first needed.
    """

    def __init__(self, requests: Requests | None = None) -> None:
        self._requests = requests
        self._config: ResearcherConfig | None = None
        self._tags: list[str] | None = None
        self._nodes: list[str] | None = None
        self._fds: FederatedDataSet | None = None
        self._aggregator: Aggregator = FedAverage()
        self._agg_optimizer: Optimizer | None = None
        self._strategy: Strategy | None = None
        self._round_limit: int | None = None
        self._round_current = 0
        self._folder = ""
        self._plan_class: type[BaseTrainingPlan] | str | None = None
        self._plan_path: str | None = None
        self._model_args: dict[str, Any] = {}
        self._training_args = TrainingArgs(only_required=False)
        self._job: Job | None = None
        self._save_breakpoints = False
        self._secagg = SecureAggregation(active=False)
        self._tensorboard = False
        self._trainer = ModelTrainer.plain()

    def tags(self) -> list[str] | None:
        """Tags that a dataset must bear; an empty list for any dataset, None for no search."""
        return None if self._tags is None else list(self._tags)

    def nodes(self) -> list[str] | None:
        """Nodes that are searched, None for all."""
        return None if self._nodes is None else list(self._nodes)

    def training_data(self) -> FederatedDataSet | None:
        """The nodes and their datasets."""
        return self._fds

    def aggregator(self) -> Aggregator:
        """How updates become the next parameters."""
        return self._aggregator

    def agg_optimizer(self) -> "Optimizer | None":
        """The optimizer on the researcher's side; None: the aggregate is taken as it is."""
        return self._agg_optimizer

    def strategy(self) -> Strategy | None:
        """Who takes part and whose reply counts; None as long as there is no training data."""
        return self._strategy

    def round_limit(self) -> int | None:
        """How many rounds there shall be in all, None for no limit."""
        return self._round_limit

    def round_current(self) -> int:
        """Rounds done, which is the index of the next round."""
        return self._round_current

    def experimentation_folder(self) -> str:
        """Name of the experiment's folder."""
        return self._folder

    def experimentation_path(self) -> str:
        """Path of the experiment's folder."""
        return str(self._settings().experiments / self._folder)

    def training_plan_class(self) -> type[BaseTrainingPlan] | str | None:
        """The plan's class, or its name in the file `training_plan_path`."""
        return self._plan_class

    def training_plan_path(self) -> str | None:
        """The plan's file, where it is in one."""
        return self._plan_path

    def model_args(self) -> dict[str, Any]:
        """Arguments of the plan's model."""
        return checks.model_args(self._model_args)

    def training_args(self) -> dict[str, Any]:
        """All arguments of the training."""
        return self._training_args.dict()

    def test_ratio(self) -> float:
        """Share of the rows that is kept for validation."""
        ratio: float = self._training_args["test_ratio"]
        return ratio

    def test_metric(self) -> str | None:
        """Name of the metric of validation, None for the default of the model."""
        metric: str | None = self._training_args["test_metric"]
        return metric

    def test_metric_args(self) -> dict[str, Any]:
        """Arguments of that metric."""
        metric_args: dict[str, Any] = self._training_args["test_metric_args"]
        return metric_args

    def test_on_local_updates(self) -> bool:
        """Whether a node validates after its training."""
        return bool(self._training_args["test_on_local_updates"])

    def test_on_global_updates(self) -> bool:
        """Whether a node validates the aggregated parameters before its training."""
        return bool(self._training_args["test_on_global_updates"])

    def job(self) -> Job | None:
        """The exchange with the nodes; None as long as plan or training data are missing."""
        return self._job

    def save_breakpoints(self) -> bool:
        """Whether each round leaves a breakpoint."""
        return self._save_breakpoints

    @property
    def secagg(self) -> SecureAggregation:
        """Secure aggregation: its settings, and whether it is active."""
        return self._secagg

    def use_secagg(self) -> bool:
        """Whether secure aggregation is active; an older name of `secagg.active`."""
        return self._secagg.active

    def secagg_context(self) -> tuple[SecaggServkeyContext | None, SecaggBiprimeContext | None]:
        """Server key and biprime of secure aggregation; an older name of `secagg.servkey` and `secagg.biprime`."""
        return self._secagg.servkey, self._secagg.biprime

    def set_tags(self, tags: Sequence[str] | str | None) -> list[str] | None:
        """Set the tags; searches nothing by itself."""
        self._tags = checks.tags(tags)
        return self.tags()

    def set_nodes(self, nodes: Sequence[str] | None) -> list[str] | None:
        """Set which nodes are searched; searches nothing by itself."""
        self._nodes = checks.names("nodes", nodes)
        return self.nodes()

    def set_training_data(
        self, training_data: FederatedDataSet | Mapping[str, Any] | None, from_tags: bool = False
    ) -> FederatedDataSet | None:
        """Set nodes and datasets; strategy and job take them over at `set_strategy` and `set_job`.

        Args:
            training_data: a data set, a dict of dataset descriptions by node, or None.
            from_tags: with None: search the network for the present tags and nodes; else None clears.

        Raises:
            FedbiomedExperimentError: malformed; or nothing was found.
            FedbiomedMessagingError: no broker to search through.
        """
        checks.flag("from_tags", from_tags)
        self._fds = self._found() if training_data is None and from_tags else checks.training_data(training_data)
        if self._job is not None:
            logger.info("strategy and job keep the training data they have until set_strategy() and set_job()")
        return self._fds

    def set_aggregator(self, aggregator: Aggregator | type[Aggregator] | None) -> Aggregator:
        """Set how updates are aggregated: an object, a class, or None for `FedAverage`."""
        self._aggregator = checks.aggregator(aggregator)
        return self._aggregator

    def set_agg_optimizer(self, agg_optimizer: "Optimizer | None") -> "Optimizer | None":
        """Set the optimizer that takes the way from the former parameters to the aggregate as a gradient; None for none.

        Raises:
            FedbiomedExperimentError: it is no `Optimizer` (one of declearn will do).
        """
        self._agg_optimizer = server_optimizer.of(agg_optimizer)
        return self._agg_optimizer

    def set_strategy(self, node_selection_strategy: Strategy | type[Strategy] | None) -> Strategy | None:
        """Set who takes part: an object, a class, or None for `DefaultStrategy`; none without training data."""
        self._strategy = checks.strategy(node_selection_strategy, self._fds)
        return self._strategy

    def set_round_limit(self, round_limit: int | None) -> int | None:
        """Set how many rounds there shall be in all; less than are done is only logged as an error and changes nothing."""
        limit = None if round_limit is None else checks.count("round_limit", round_limit, least=0)
        if limit is not None and limit < self._round_current:
            logger.error("round_limit stays %s: %d rounds are done, more than %d", self._round_limit, self._round_current, limit)
        else:
            self._round_limit = limit
        return self._round_limit

    def set_experimentation_folder(self, experimentation_folder: str | None) -> str:
        """Set the name of the experiment's folder (None: the next `Experiment_<number>`) and make it."""
        name = None if experimentation_folder is None else checks.folder_name(experimentation_folder)
        experiments = self._settings().experiments
        try:
            experiments.mkdir(parents=True, exist_ok=True)
            if name is None:
                name = _make_numbered(experiments)
            (experiments / name).mkdir(exist_ok=True)
        except OSError as error:
            raise FedbiomedExperimentError(
                f"{ErrorNumbers.FB410.value}: cannot make the experiment's folder {experiments / (name or '')}: {error}"
            ) from error
        self._folder = name
        return name

    def set_training_plan_class(self, training_plan_class: type[BaseTrainingPlan] | str | None) -> type[BaseTrainingPlan] | str | None:
        """Set the plan: a class, or with a path its name in that file; the job takes it over at `set_job`."""
        self._plan_class = checks.plan_class(training_plan_class)
        return self._plan_class

    def set_training_plan_path(self, training_plan_path: str | None) -> str | None:
        """Set the file in which the plan is; the job takes it over at `set_job`."""
        self._plan_path = checks.plan_path(training_plan_path)
        return self._plan_path

    def set_model_args(self, model_args: dict[str, Any] | None) -> dict[str, Any]:
        """Set the arguments of the plan's model; the job takes them over at `set_job`."""
        self._model_args = checks.model_args(model_args)
        return self.model_args()

    def set_training_args(self, training_args: TrainingArgs | Mapping[str, Any] | None, reset: bool = True) -> dict[str, Any]:
        """Set all arguments of the training, from the next round on; those not given have their defaults. `reset` changes nothing.

        Raises:
            FedbiomedUserInputError: an argument is wrong.
            FedbiomedTrainingPlanError: the plan of the job cannot be made with them.
            FedbiomedDPControllerError: `dp_args` do not go with the plan, or a package for them is not installed: how to install it.
        """
        checks.flag("reset", reset)
        return self._take_training_args(checks.training_args(training_args))

    def set_test_ratio(self, ratio: float) -> float:
        """Set which share of the rows is kept for validation, 0.0 to 1.0."""
        self._update_training_args(test_ratio=ratio)
        return self.test_ratio()

    def set_test_metric(self, metric: Any, **metric_args: Any) -> tuple[str | None, dict[str, Any]]:
        """Set the metric of validation (a `MetricTypes`, its name, or None) and its arguments."""
        self._update_training_args(test_metric=metric, test_metric_args=metric_args)
        return self.test_metric(), self.test_metric_args()

    def set_test_on_local_updates(self, flag: bool = True) -> bool:
        """Set whether a node validates after its training."""
        self._update_training_args(test_on_local_updates=flag)
        return self.test_on_local_updates()

    def set_test_on_global_updates(self, flag: bool = True) -> bool:
        """Set whether a node validates the aggregated parameters before its training."""
        self._update_training_args(test_on_global_updates=flag)
        return self.test_on_global_updates()

    def set_job(self) -> Job | None:
        """Make the job anew from plan, arguments and training data; None where one of these is missing.

        Raises:
            FedbiomedTrainingPlanError: the plan does not import or its model cannot be built.
            FedbiomedRepositoryError: no repository to put the plan into.
        """
        former, self._job = self._job, self._new_job() if self._is_plan_defined() and self._fds is not None else None
        if former is not None:
            former.close()
        if self._job is not None and self._round_current:
            logger.warning("%d rounds are done; the new job starts from the plan's initial parameters", self._round_current)
        return self._job

    def set_save_breakpoints(self, save_breakpoints: bool) -> bool:
        """Set whether each round leaves a breakpoint."""
        self._save_breakpoints = checks.flag("save_breakpoints", save_breakpoints)
        return self._save_breakpoints

    def set_tensorboard(self, tensorboard: bool) -> bool:
        """Set whether the rounds from now on are written for TensorBoard, into `environ["TENSORBOARD_RESULTS_DIR"]`.

        Raises:
            FedbiomedExperimentError: the package tensorboard is not installed: how to install it.
        """
        if checks.flag("tensorboard", tensorboard):
            require_tensorboard()
        self._tensorboard = tensorboard
        return tensorboard

    def set_secagg(self, secagg: bool | SecureAggregation) -> SecureAggregation:
        """Set whether, and how, the researcher sees only the sum of the nodes' updates, from the next round on.

        Raises:
            FedbiomedSecureAggregationError: neither a bool nor such an object.
        """
        made = secure_aggregation(secagg)
        if made is not self._secagg:
            self._secagg.forget_session()
        self._secagg = made
        return self._secagg

    def set_use_secagg(self, use_secagg: bool, timeout: float = 0) -> bool:
        """As `set_secagg` with a bool, under an older name; returns whether it is active. `timeout` changes nothing."""
        return self.set_secagg(checks.flag("use_secagg", use_secagg)).active

    def _settings(self) -> ResearcherConfig:
        if self._requests is not None:
            return self._requests.connection.config
        if self._config is None:
            self._config = open_config()
        return self._config

    def _connected(self) -> Requests:
        if self._requests is None:
            self._requests = Requests()
        return self._requests

    def _found(self) -> FederatedDataSet:
        if self._tags is None:
            checks.refuse("tags", None, "set before a search (set_tags), an empty list for any dataset")
        found = self._connected().search(self._tags, self._nodes)
        if not found:
            wanted = f"with the tags {self._tags}" if self._tags else "at all"
            among = "" if self._nodes is None else f" among {self._nodes}"
            raise FedbiomedExperimentError(
                f"{ErrorNumbers.FB416.value}: no node{among} offers a dataset {wanted}; Requests().list() shows what the nodes offer"
            )
        return FederatedDataSet(found)

    def _is_plan_defined(self) -> bool:
        return self._plan_class is not None and isinstance(self._plan_class, str) == (self._plan_path is not None)

    def _new_job(self) -> Job:
        return Job(
            reqs=self._connected(),
            training_plan_class=self._plan_class,
            training_plan_path=self._plan_path,
            training_args=checks.training_args(self._training_args),
            model_args=self.model_args(),
            data=self._fds,
            keep_files_dir=self.experimentation_path(),
        )

    def _update_training_args(self, **values: Any) -> None:
        self._take_training_args(checks.training_args(self._training_args).update(values))

    def _take_training_args(self, training_args: TrainingArgs) -> dict[str, Any]:
        if training_args["dp_args"] is not None:
            require_privacy_packages()
        if self._job is not None:
            self._job.training_args = checks.training_args(training_args)
        self._training_args = training_args
        return self.training_args()


def _make_numbered(experiments: Path) -> str:
    """Make the folder after the one of highest number; another process may do the same at this moment."""
    while True:
        numbers = [int(found[1]) for path in experiments.iterdir() if (found := _DEFAULT_FOLDER.fullmatch(path.name))]
        name = f"Experiment_{max(numbers, default=-1) + 1:04d}"
        with contextlib.suppress(FileExistsError):
            (experiments / name).mkdir()
            return name
