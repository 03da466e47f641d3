"""A node's half of one round; `Round.run` is its table of contents. Runs in the training process."""

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from fedbiomed.common.checkpointing.client_module import CheckpointMode
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedRoundError, FedbiomedTrainingPlanError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.common.training_plans.source import load_plan_from_bytes
from fedbiomed.common.training_plans.user_code import call_function, call_user, make_plan
from fedbiomed.node import round_optimizer
from fedbiomed.node.round_checkpoints import RoundCheckpoints, ValidationMeans
from fedbiomed.node.round_monitor import RoundMonitor
from fedbiomed.node.round_privacy import RoundPrivacy
from fedbiomed.node.task import RoundReport, RoundResult, RoundTask

logger = logging.getLogger(__name__)


class PlanCache:
    """The classes of one plan's source, imported at most once each.

    Args:
        source: the approved bytes.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._classes: dict[str, type[BaseTrainingPlan]] = {}

    def load(self, class_name: str) -> type[BaseTrainingPlan]:
        """The class of that name.

        Raises:
            FedbiomedTrainingPlanError: the source does not import or has no such class: which line, and why.
        """
        if class_name not in self._classes:
            self._classes[class_name] = load_plan_from_bytes(self._source, class_name, f"plan_{uuid.uuid4().hex}")
        return self._classes[class_name]


class Round:
    """One round of local training, or of validation only.

    Args:
        task: what to do.
        plans: the plan's source.
        report: hears of progress, at most once a second.

    Raises:
        FedbiomedUserInputError: wrong training arguments.
    """

    def __init__(self, task: RoundTask, plans: PlanCache, report: Callable[[RoundReport], None]) -> None:
        self._task = task
        self._plans = plans
        self._arguments = TrainingArgs(task.training_args)
        self._monitor = RoundMonitor(report, self._arguments["epochs"] or 1)
        self._remarks: list[str] = []
        self._test_sample_size = 0
        self._privacy = RoundPrivacy(task, self._arguments)

    def run(self) -> RoundResult:
        """Carry out the task and write the result file, if there is to be one.

        Raises:
            FedbiomedError: what failed, in one sentence for the researcher.
        """
        plan = self._prepare_plan()
        checkpoints = RoundCheckpoints(plan, self._task.checkpoints, self._task.round)
        if self._task.training:
            self._note(checkpoints.load_state())
        self._take_kept(plan)
        self._set_params(plan)
        self._prepare_optimizer(plan)
        self._attach_data(plan)
        self._judge(plan, checkpoints, CheckpointMode.POST_AGGREGATION)
        if not self._task.training:
            return self._result(0, {})
        timing = self._train(plan)
        aux = _optimizer_of(plan).get_aux()
        self._judge(plan, checkpoints, CheckpointMode.PRE_AGGREGATION)
        self._note(checkpoints.save_state())
        weights = plan.node_half().leaving(call_user(plan, "after_training_params"))
        state = round_optimizer.keep(_optimizer_of(plan), plan.node_half().kept(), self._task.state)
        self._write(plan, weights, aux)
        self._note(self._privacy.remarks(_sample_count(plan)))
        return self._result(_sample_count(plan), timing, *state, privacy=self._privacy.told(plan, self._monitor))

    def _prepare_plan(self) -> BaseTrainingPlan:
        plan_class = self._plans.load(self._task.plan_class)
        aggregator_args = dict(self._task.aggregator_args)
        for name, path in self._task.aggregator_files.items():
            aggregator_args[name] = Serializer.load(path)
        plan: BaseTrainingPlan = make_plan(plan_class)
        call_user(plan, "post_init", self._task.model_args, self._arguments, aggregator_args)
        self._privacy.watch(plan)
        return plan

    def _take_kept(self, plan: BaseTrainingPlan) -> None:
        """Give the node's half of the algorithm what it kept in the round before."""
        if self._task.former_state is not None and plan.node_half().keeps_state:
            plan.node_half().take_kept(round_optimizer.kept_before(self._task.former_state))

    def _set_params(self, plan: BaseTrainingPlan) -> None:
        content = Serializer.load(self._task.params)
        if not isinstance(content, dict) or not isinstance(content.get("model_weights"), dict):
            raise FedbiomedRoundError("FB314: the file of parameters has no `model_weights`")
        plan.set_model_params(plan.node_half().arriving(content["model_weights"]))

    def _prepare_optimizer(self, plan: BaseTrainingPlan) -> None:
        """Give the optimizer its state of the round before, then what the researcher's optimizer tells."""
        if not self._task.training:
            return
        optimizer = _optimizer_of(plan)
        if self._task.former_state is not None:
            self._remarks += round_optimizer.restore(optimizer, self._task.former_state)
        optimizer.set_aux(round_optimizer.received_aux(self._task.aux_files))

    def _attach_data(self, plan: BaseTrainingPlan) -> None:
        plan.set_dataset_path(self._task.dataset_path)
        ratio = self._arguments["test_ratio"]
        loaders = call_function(plan, self._loaders, "training_data", plan, ratio)
        plan.set_data_loaders(*loaders)
        self._test_sample_size = _sample_count_of(plan.testing_data_loader)
        if self._task.training:
            self._require_samples(_sample_count(plan), ratio)

    def _loaders(self, plan: BaseTrainingPlan, ratio: float) -> tuple[Any, Any]:
        """Loaders of the training and the test samples; a dataset is the plan's own code too."""
        manager = plan.training_data()
        if not isinstance(manager, DataManager):
            raise FedbiomedTrainingPlanError(f"FB605: training_data() must return a DataManager, not {type(manager).__name__}")
        self._customise(manager.dataset)
        manager.extend_loader_args(self._arguments.loader_arguments())
        manager.load(tp_type=plan.type())
        return manager.split(ratio, seed=self._split_seed())

    def _customise(self, dataset: Any) -> None:
        """Tell the plan's dataset, if it wants to know, what the node's operator registered."""
        if self._task.dataset_parameters and hasattr(dataset, "set_dataset_parameters"):
            dataset.set_dataset_parameters(self._task.dataset_parameters)
        if self._task.loading_plan is not None and hasattr(dataset, "set_dlp"):
            dataset.set_dlp(DataLoadingPlan().deserialize(*self._task.loading_plan))

    def _require_samples(self, count: int, ratio: float) -> None:
        least = max(1, self._task.minimum_samples)
        if count < least:
            raise FedbiomedRoundError(
                f"FB314: {count} samples of dataset {self._task.dataset_id} are left to train on (test_ratio {ratio}), this node trains on "
                f"at least {least}"
            )

    def _split_seed(self) -> int:
        """The same for all rounds of a job, so that no sample is tested on that was trained on before."""
        seed = self._arguments["random_seed"]
        if seed is not None:
            return int(seed)
        words = f"{self._task.job_id}/{self._task.dataset_id}".encode()
        return int.from_bytes(hashlib.sha256(words).digest()[:4])

    def _judge(self, plan: BaseTrainingPlan, checkpoints: RoundCheckpoints, mode: CheckpointMode) -> None:
        """Test the model of this moment, if asked to by the researcher or by a checkpointer, and keep it, if that is wanted."""
        before_train = mode is CheckpointMode.POST_AGGREGATION
        is_asked = self._arguments["test_on_global_updates" if before_train else "test_on_local_updates"]
        means = ValidationMeans(self._monitor)
        if is_asked or (checkpoints.needs_score(mode) and plan.testing_data_loader is not None and len(plan.testing_data_loader)):
            self._validate(plan, means, before_train=before_train)
        with plan.node_half().personal(plan.model()) or nullcontext():  # what is kept is what was scored
            self._note(checkpoints.judge(mode, means.means()))

    def _validate(self, plan: BaseTrainingPlan, means: ValidationMeans, *, before_train: bool) -> None:
        """Test; what goes wrong does not end a training, and ends a round of validation only."""
        which = "test_on_global_updates" if before_train else "test_on_local_updates"
        if plan.testing_data_loader is None or not len(plan.testing_data_loader):
            self._remark(f"FB314: {which} has no samples to test on: test_ratio is {self._arguments['test_ratio']}")
            return
        testing = self._arguments.testing_arguments()
        metric = None if testing["test_metric"] is None else MetricTypes.get_metric_type_by_name(testing["test_metric"])
        try:
            call_user(
                plan,
                "testing_routine",
                metric=metric,
                metric_args=testing["test_metric_args"],
                history_monitor=means,
                before_train=before_train,
            )
        except FedbiomedError as error:
            logger.warning("validation failed", exc_info=True)
            self._remark(str(error))

    def _remark(self, text: str) -> None:
        if not self._task.training:
            raise FedbiomedRoundError(text)
        self._remarks.append(self._task.without_places(text))

    def _note(self, remarks: list[str]) -> None:
        self._remarks += [self._task.without_places(text) for text in remarks]

    def _train(self, plan: BaseTrainingPlan) -> dict[str, float]:
        """Returns wall-clock and processor time in seconds."""
        began, processor_began = time.perf_counter(), time.process_time()
        call_user(plan, "training_routine", history_monitor=self._monitor, node_args=self._task.node_args)
        return {"rtime_training": time.perf_counter() - began, "ptime_training": time.process_time() - processor_began}

    def _write(self, plan: BaseTrainingPlan, weights: dict[str, Any], aux: dict[str, Any]) -> None:
        content = {
            "researcher_id": self._task.researcher_id,
            "job_id": self._task.job_id,
            "state_id": self._task.state_id,
            "node_id": self._task.node_id,
            "model_weights": weights,
            "optimizer_args": {**plan.optimizer_args(), "num_updates": plan.updates_done()},
            "optim_aux_var": aux,
            "encrypted": False,
            "encryption_factor": None,
        }
        beside = {"told": plan.node_half().tells(), "sent": plan.node_half().sends(weights.keys())}
        try:
            Serializer.dump({**content, **{name: values for name, values in beside.items() if values}}, self._task.result)
        except OSError as error:
            raise FedbiomedRoundError(f"FB314: the node cannot write the result to its disk: {error.strerror}") from error

    def _result(
        self,
        sample_size: int,
        timing: dict[str, float],
        has_state: bool = False,
        optimizer_type: str | None = None,
        *,
        privacy: dict[str, Any] | None = None,
    ) -> RoundResult:
        msg = "; ".join(self._remarks)[:2000]
        return RoundResult(
            sample_size=sample_size,
            msg=msg,
            timing=timing,
            metrics=self._monitor.points(),
            has_state=has_state,
            optimizer_type=optimizer_type,
            test_sample_size=self._test_sample_size,
            privacy=privacy,
        )


def _optimizer_of(plan: BaseTrainingPlan) -> BaseOptimizer:
    optimizer = call_user(plan, "optimizer")
    if not isinstance(optimizer, BaseOptimizer):
        raise FedbiomedTrainingPlanError(f"FB605: optimizer() of the plan must return a BaseOptimizer, not {type(optimizer).__name__}")
    return optimizer


def _sample_count(plan: BaseTrainingPlan) -> int:
    return _sample_count_of(plan.training_data_loader)


def _sample_count_of(loader: Any) -> int:
    return 0 if loader is None else len(loader.dataset)
