"""What every training plan is: hooks that a user writes, and what the node and the researcher call."""

import importlib.util
import inspect
import logging
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fedbiomed.common.checkpointing.client_module import ClientCheckpointAndStateModule
from fedbiomed.common.checkpointing.training_state import TrainingState
from fedbiomed.common.constants import ROUND_CONFIG_KEY, ErrorNumbers, ProcessTypes, TrainingPlans
from fedbiomed.common.exceptions import FedbiomedDPControllerError, FedbiomedTrainingPlanError
from fedbiomed.common.files import write_whole
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.models.model import Model
from fedbiomed.common.privacy_cost import PrivacyCost
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.iterations import Batch, training_batches
from fedbiomed.common.training_plans.node_half import NodeHalf
from fedbiomed.common.training_plans.plan_text import generated_file, plan_source
from fedbiomed.common.training_plans.user_code import call_function, call_user

logger = logging.getLogger(__name__)


class HistoryMonitor(Protocol):
    """Hears of every value that a plan reports."""

    def add_scalar(
        self,
        *,
        metric: Mapping[str, float],
        iteration: int,
        epoch: int | None,
        train: bool,
        test: bool,
        test_on_local_updates: bool,
        test_on_global_updates: bool,
        total_samples: int,
        batch_samples: int,
        num_batches: int,
        num_samples_trained: int | None = None,
    ) -> None:
        """Take values measured on one batch, by name."""


class BaseTrainingPlan(ABC):
    """Base of all plans; a user's class takes no argument.

    Attributes:
        dataset_path: set by the node before `training_data` is called; None on the researcher's side.
        checkpoint_dir: the node's folder for what `checkpointing` keeps of this job, set by the node; None on the researcher's side.
        training_data_loader, testing_data_loader: set by the node after the split.
        pre_processes: pre-processing methods by name.
        supports_privacy: whether this kind of plan takes `dp_args`.
        privacy_guard: with `dp_args`, hears what a training will cost before its first step, and may raise; set by the node.
        noise_stream: with `dp_args` and a `random_seed`, what tells the noise of this round and node from that of others; set by the node.
    """

    supports_privacy = False

    def __init__(self) -> None:
        self.dataset_path: Any = None
        self.checkpoint_dir: str | None = None
        self.training_data_loader: Any = None
        self.testing_data_loader: Any = None
        self.pre_processes: dict[str, tuple[Callable[[Any], Any], ProcessTypes]] = {}
        self._dependencies: list[str] = []
        self._model: Model | None = None
        self._model_args: dict[str, Any] = {}
        self._arguments = TrainingArgs()
        self._optimizer_args: dict[str, Any] = {}
        self._aggregator_args: dict[str, Any] = {}
        self._n_updates = 0
        self.privacy_guard: Callable[[PrivacyCost], None] | None = None
        self.noise_stream = ""

    # --- hooks

    def init_dependencies(self) -> list[str]:
        """Import lines that the plan needs beside the built-in ones; may be overridden."""
        return []

    def checkpointing(self) -> ClientCheckpointAndStateModule | None:
        """Which models and states the node keeps, all in `self.checkpoint_dir`; None: none. Called once in each round, on the node."""
        return None

    @abstractmethod
    def training_data(self) -> Any:
        """Read `self.dataset_path` and return a `DataManager`; runs on the node only."""

    @abstractmethod
    def builtin_dependencies(self) -> list[str]:
        """Import lines that stand first in every plan of this kind."""

    @abstractmethod
    def type(self) -> TrainingPlans:
        """The library that the plan stands on."""

    # --- what node and researcher call

    @abstractmethod
    def post_init(
        self, model_args: Mapping[str, Any], training_args: TrainingArgs, aggregator_args: Mapping[str, Any] | None = None
    ) -> None:
        """Build model and optimizer.

        Raises:
            FedbiomedTrainingPlanError: a hook takes other arguments than it may, or returns something else than it must.
        """

    @abstractmethod
    def training_routine(self, history_monitor: HistoryMonitor | None = None, node_args: Mapping[str, Any] | None = None) -> None:
        """Train on `training_data_loader` as the training arguments say.

        Args:
            history_monitor: hears of losses.
            node_args: `gpu`, `gpu_num`, `gpu_only`: what the node offers.
        """

    @abstractmethod
    def testing_routine(
        self,
        metric: MetricTypes | None,
        metric_args: Mapping[str, Any],
        history_monitor: HistoryMonitor | None,
        before_train: bool,
    ) -> None:
        """Measure on `testing_data_loader`.

        Args:
            metric: None for the kind of plan's own.
            metric_args: for scikit-learn's function of that metric.
            history_monitor: hears of the values.
            before_train: whether the parameters are those that came from the researcher.
        """

    def model(self) -> Any:
        """The native model.

        Raises:
            FedbiomedTrainingPlanError: it has not been built yet.
        """
        return self._wrapped().model

    @abstractmethod
    def optimizer(self) -> Any:
        """Wrapper of the optimizer; the native one is its `.optimizer`."""

    def model_args(self) -> dict[str, Any]:
        """Arguments of the model as the researcher gave them."""
        return self._model_args

    def training_args(self) -> dict[str, Any]:
        """The training arguments that rule the loop: epochs, num_updates and so on."""
        return self._arguments.pure_training_arguments()

    def optimizer_args(self) -> dict[str, Any]:
        """Arguments of the optimizer."""
        return self._optimizer_args

    def updates_done(self) -> int:
        """Steps of the optimizer in the last `training_routine`; 0 where a plan with a routine of its own does not count them."""
        return self._n_updates

    def privacy_cost(self) -> PrivacyCost | None:
        """What the last `training_routine` cost in privacy; None without `dp_args`."""
        return None

    def why_optimizer_stays(self) -> str | None:
        """Why the state of the optimizer cannot go with the model to another node; None: it can."""
        return f"{type(self).__name__} is no torch plan, so there is no state of an optimizer to send"

    def loader_args(self) -> dict[str, Any]:
        """Arguments of the data loader."""
        return self._arguments.loader_arguments()

    def aggregator_args(self) -> dict[str, Any]:
        """What the aggregator told this node."""
        return self._aggregator_args

    def round_config(self) -> dict[str, Any]:
        """The configuration of this round that the researcher's strategy gave, JSON values by name; empty where it gives none.

        A `ModelMergeStrategy` gives it by `on_fit_config_fn` and `on_evaluate_config_fn`.
        """
        return dict(self._aggregator_args.get(ROUND_CONFIG_KEY, {}))

    def get_model_params(self, only_trainable: bool = False) -> dict[str, Any]:
        """Parameters by name; see `Model.get_weights`."""
        return self._wrapped().get_weights(only_trainable=only_trainable)

    def set_model_params(self, params: Mapping[str, Any]) -> None:
        """Assign parameters by name; see `Model.set_weights`."""
        self._wrapped().set_weights(params)

    def after_training_params(self, flatten: bool = False) -> dict[str, Any] | list[float]:
        """Parameters to send: those of the model, post-processed where the plan does that.

        Args:
            flatten: as one list of numbers, in the order of the names.
        """
        return _flat(self.get_model_params()) if flatten else self.get_model_params()

    def validation_loss(self) -> float:
        """Mean loss over the samples of `testing_data_loader`; the training goes on as if it had not been measured. May be overridden.

        Raises:
            FedbiomedTrainingPlanError: there are no such samples, or this kind of plan does not know its loss.
        """
        raise FedbiomedTrainingPlanError(f"FB605: {type(self).__name__} must define validation_loss() to be judged by its loss")

    def node_half(self) -> NodeHalf:
        """The node's half of the experiment's algorithm; here there is none."""
        return NodeHalf()

    def training_state(self) -> TrainingState:
        """All that the plan needs to go on after a restart of the node; here the model and the random states."""
        return TrainingState(model=self._wrapped())

    def take_counters(self, counters: Mapping[str, int | float]) -> None:  # noqa: B027  nothing to take is a fair answer
        """Take over the counters of a `training_state` that was restored."""

    def export_model(self, filename: str | Path) -> None:
        """Write the native model to a file for use on this machine; see `Model.export`."""
        self._wrapped().export(filename)

    def import_model(self, filename: str | Path) -> None:
        """Read a native model that `export_model` wrote on this machine; see `Model.reload`."""
        self._wrapped().reload(filename)

    def set_dataset_path(self, dataset_path: str | None) -> None:
        """Say where the data lie."""
        self.dataset_path = dataset_path

    def set_data_loaders(self, train_data_loader: Any, test_data_loader: Any) -> None:
        """Take the two parts of the split."""
        self.training_data_loader, self.testing_data_loader = train_data_loader, test_data_loader

    # --- the plan as text

    def add_dependency(self, dependencies: Sequence[str]) -> None:
        """Add import lines.

        Raises:
            FedbiomedTrainingPlanError: it is something else than a list of them.
        """
        _check_lines("add_dependency() takes", dependencies)
        self._dependencies = list(dict.fromkeys([*self._dependencies, *dependencies]))

    def configure_dependencies(self) -> None:
        """Collect import lines: the built-in ones, then the user's.

        Raises:
            FedbiomedTrainingPlanError: `init_dependencies` returned something else than a list of import lines.
        """
        lines = call_user(self, "init_dependencies")
        _check_lines("init_dependencies() must return", lines)
        built_in = [line for line in self.builtin_dependencies() if _can_be_imported(line)]
        self._dependencies = list(dict.fromkeys([*built_in, *self._dependencies, *lines]))

    def source_text(self) -> str:
        """The file that travels: import lines, then this class."""
        return generated_file(self._dependencies, plan_source(type(self)))

    def save_code(self, filepath: str | Path) -> None:
        """Write the file that travels.

        Raises:
            FedbiomedTrainingPlanError: the class's source cannot be found, or the file not written.
        """
        text = self.source_text()
        try:
            write_whole(Path(filepath), text.encode())
        except OSError as error:
            raise FedbiomedTrainingPlanError(f"FB605: cannot write the training plan to {filepath}: {error.strerror}") from error

    # --- pre-processing

    def add_preprocess(self, method: Callable[[Any], Any], process_type: ProcessTypes) -> None:
        """Have a method work on the training data loader before training; it returns a loader of the same type.

        Raises:
            FedbiomedTrainingPlanError: not a method, or an unknown type of process.
        """
        if not callable(method):
            raise FedbiomedTrainingPlanError(f"FB605: add_preprocess() takes a method, not {type(method).__name__}")
        if not isinstance(process_type, ProcessTypes):
            raise FedbiomedTrainingPlanError(f"FB605: process_type must be one of {list(ProcessTypes)}, not {process_type!r:.80}")
        self.pre_processes[getattr(method, "__name__", repr(method))] = (method, process_type)

    def _preprocess(self) -> None:
        for name, (method, process_type) in self.pre_processes.items():
            if process_type is not ProcessTypes.DATA_LOADER:
                logger.error("pre-processing of %s is not implemented: %s is left out", process_type.name, name)
                continue
            loader = call_function(self, method, name, self.training_data_loader)
            if type(loader) is not type(self.training_data_loader):
                wanted = type(self.training_data_loader).__name__
                raise FedbiomedTrainingPlanError(f"FB605: pre-processing {name}() must return a {wanted}, not a {type(loader).__name__}")
            self.training_data_loader = loader

    # --- for the kinds of plans

    def _store_args(self, model_args: Mapping[str, Any], training_args: TrainingArgs, aggregator_args: Mapping[str, Any] | None) -> None:
        if training_args.dp_arguments() is not None and not self.supports_privacy:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: differential privacy is for torch plans; {type(self).__name__} is none: leave dp_args out of "
                "the training arguments, or write the model as a TorchTrainingPlan"
            )
        self._model_args = dict(model_args or {})
        self._arguments = training_args
        self._optimizer_args = training_args.optimizer_arguments()
        self._aggregator_args = dict(aggregator_args or {})

    def _seed(self) -> None:
        seed = self._arguments["random_seed"]
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)
            torch = sys.modules.get("torch")  # a plan on another library may use it too, and then its file has imported it by now
            if torch is not None:  # `manual_seed` keeps stack traces for GPUs that may come later: slow, and for nothing
                (torch if torch.cuda.is_available() else torch.default_generator).manual_seed(seed)

    def _call_hook(self, name: str, argument: Any) -> Any:
        """Call a hook that takes one argument or none."""
        count = len(inspect.signature(getattr(self, name)).parameters)
        if count > 1:
            raise FedbiomedTrainingPlanError(f"FB605: {name}() of {type(self).__name__} takes {count} arguments, it may take one or none")
        return call_user(self, name, argument) if count else call_user(self, name)

    def _training_batches(self) -> Iterator[Batch]:
        """The batches that the training arguments ask for; each counts as a step."""
        self._n_updates = 0
        for batch in training_batches(self.training_data_loader, self.training_args()):
            self._n_updates += 1
            yield batch

    def _require_training_data(self) -> None:
        if self.training_data_loader is None or not len(self.training_data_loader):
            raise FedbiomedTrainingPlanError(
                "FB605: there are no samples to train on: is test_ratio 1, the dataset empty, or, with drop_last, smaller than batch_size?"
            )

    def _wrapped(self) -> Model:
        if self._model is None:
            raise FedbiomedTrainingPlanError(f"FB605: the model of {type(self).__name__} has not been built yet: call post_init() first")
        return self._model


def _check_lines(what: str, lines: Any) -> None:
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise FedbiomedTrainingPlanError(f"FB605: {what} a list of import lines, not {lines!r:.120}")


def _can_be_imported(line: str) -> bool:
    """Whether a built-in import stands on a library that is installed here: torchvision is optional."""
    return "torchvision" not in line or importlib.util.find_spec("torchvision") is not None


def _flat(params: Mapping[str, Any]) -> list[float]:
    return [float(value) for array in params.values() for value in np.asarray(array).ravel()]
