"""A plan trained in this process on a local path, to compare with the federated result."""

import copy
import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedTrainingError, FedbiomedTrainingPlanError, FedbiomedUserInputError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.common.training_plans.user_code import call_user
from fedbiomed.researcher import prepared_plan

logger = logging.getLogger(__name__)


class localJob:  # noqa: N801  the name that notebooks use
    """Trains a plan without any node.

    Args:
        dataset_path: what the plan finds as `self.dataset_path`.
        training_plan_class: class, instance, or name of the class in the file `training_plan_path`.
        training_plan_path: a file that defines the class.
        training_args: as for an `Experiment`; validation is not done here.
        model_args: for the plan's model.

    Attributes:
        dataset_path: may be set to another one before training.

    Raises:
        FedbiomedTrainingPlanError: the plan cannot be loaded or built.
        FedbiomedUserInputError: wrong training arguments or arguments of the model.
    """

    def __init__(
        self,
        dataset_path: str | Path | None = None,
        training_plan_class: Any = "MyTrainingPlan",
        training_plan_path: str | Path | None = None,
        training_args: TrainingArgs | Mapping[str, Any] | None = None,
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset_path = dataset_path
        self._training_args = _arguments(training_args)
        self._model_args = prepared_plan.checked_model_args(model_args)
        self._folder = Path(tempfile.mkdtemp(prefix="fedbiomed-local-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._plan = _plan(training_plan_class, training_plan_path, self._folder)
        self._plan.post_init(self._model_args, self._training_args)
        self.params_path: Path | None = None

    @property
    def training_plan(self) -> BaseTrainingPlan:
        """The plan, from the file that would travel; after training with the trained parameters."""
        return self._plan

    @property
    def model(self) -> Any:
        """The native model."""
        return self._plan.model()

    @property
    def training_args(self) -> dict[str, Any]:
        """Training arguments; may be set, which builds the model anew. Where it cannot be built with them, everything stays."""
        return self._training_args.dict()

    @training_args.setter
    def training_args(self, training_args: TrainingArgs | Mapping[str, Any]) -> None:
        arguments = _arguments(training_args)
        with prepared_plan.undone_on_failure(self._plan):
            self._plan.post_init(self._model_args, arguments)
        self._training_args = arguments

    def start_training(self) -> None:
        """Train; the parameters also go to `local_params_<uuid4>.mpk`, whose path is `params_path`.

        Raises:
            FedbiomedTrainingPlanError: the plan's code raised: which method, and what.
            FedbiomedTrainingError: the data do not suit the plan.
        """
        if self._training_args["test_on_local_updates"] or self._training_args["test_on_global_updates"]:
            logger.warning("a local job does no validation: test_on_local_updates and test_on_global_updates are left out")
        if self.dataset_path is not None:
            self._plan.set_dataset_path(str(self.dataset_path))
        try:
            manager = call_user(self._plan, "training_data")
            if not isinstance(manager, DataManager):
                raise FedbiomedTrainingPlanError(f"FB605: training_data() must return a DataManager, not {type(manager).__name__}")
            manager.extend_loader_args(self._training_args.loader_arguments())
            manager.load(tp_type=self._plan.type())
            self._plan.set_data_loaders(*manager.split(0.0))
            call_user(self._plan, "training_routine")
        except (AttributeError, KeyError, IndexError, ValueError, TypeError, RuntimeError, OSError) as error:
            raise FedbiomedTrainingError(f"FB605: the local training failed: {type(error).__name__}: {error}") from error
        path = self._folder / f"local_params_{uuid.uuid4()}.mpk"
        Serializer.dump({"model_weights": self._plan.after_training_params()}, path)
        self.params_path = path


def _arguments(given: TrainingArgs | Mapping[str, Any] | None) -> TrainingArgs:
    return copy.deepcopy(given) if isinstance(given, TrainingArgs) else TrainingArgs(given, only_required=False)


def _plan(given: Any, path: str | Path | None, folder: Path) -> BaseTrainingPlan:
    if path is not None:
        if not isinstance(given, str):
            raise FedbiomedUserInputError(f"FB414: with training_plan_path, training_plan_class is the class's name, not {given!r:.80}")
        return prepared_plan.made_from_file(path, given)
    plan_class = given if isinstance(given, type) else type(given)
    if not issubclass(plan_class, BaseTrainingPlan):
        raise FedbiomedTrainingPlanError(
            f"FB605: training_plan_class must be a training plan, not {given!r:.80}; or give training_plan_path"
        )
    file = folder / f"my_model_{uuid.uuid4()}.py"
    prepared_plan.write_source(plan_class, file)
    return prepared_plan.made_from_file(file, plan_class.__name__)
