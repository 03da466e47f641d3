"""Training plans on scikit-learn's linear models with stochastic gradient descent."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

from fedbiomed.common.checkpointing.training_state import TrainingState
from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.models.sklearn_model import SGDClassifierModel, SkLearnModel
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.native import NativeSkLearnOptimizer
from fedbiomed.common.optimizers.wrap import sklearn_optimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan, HistoryMonitor
from fedbiomed.common.training_plans.evaluation import evaluate, metric_values, named
from fedbiomed.common.training_plans.iterations import first_length
from fedbiomed.common.training_plans.user_code import call_user

logger = logging.getLogger(__name__)


class SKLearnTrainingPlan(BaseTrainingPlan):
    """A plan whose model is `SGDClassifier` or `SGDRegressor`; a user's class defines `training_data`.

    In each batch every sample does one `partial_fit` from the parameters at the batch's start; the mean of the resulting displacements is
    applied. Where `init_optimizer` returns an optimizer, that is done with a learning rate of 1, and the mean displacement, negated, is
    the gradient for that optimizer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._model: SkLearnModel | None = None
        self._optimizer: BaseOptimizer | None = None

    # --- hooks

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """An `Optimizer` or one of declearn; None, unless overridden: the model does the steps itself. May also take no argument."""

    def builtin_dependencies(self) -> list[str]:
        """See `BaseTrainingPlan`."""
        return [
            "import inspect",
            "import numpy as np",
            "import pandas as pd",
            "from fedbiomed.common.training_plans import SKLearnTrainingPlan",
            "from fedbiomed.common.data import DataManager",
        ]

    @abstractmethod
    def build_model(self, model_args: Mapping[str, Any]) -> SkLearnModel:
        """The model that `model_args` describe; its weights are zero."""

    def type(self) -> TrainingPlans:
        """See `BaseTrainingPlan`."""
        return TrainingPlans.SkLearnTrainingPlan

    # --- what node and researcher call

    def post_init(
        self, model_args: Mapping[str, Any], training_args: TrainingArgs, aggregator_args: Mapping[str, Any] | None = None
    ) -> None:
        """See `BaseTrainingPlan`.

        Raises:
            FedbiomedTrainingPlanError: `model_args` lacks `n_features`, or `n_classes` for a classifier.
        """
        self._store_args(model_args, training_args, aggregator_args)
        self._seed()
        self.configure_dependencies()
        self._model = self.build_model(self._model_args)
        self._optimizer = sklearn_optimizer(self._model, self._call_hook("init_optimizer", dict(self._optimizer_args)))

    def optimizer(self) -> BaseOptimizer:
        """See `BaseTrainingPlan`."""
        if self._optimizer is None:
            raise FedbiomedTrainingPlanError(
                f"FB605: the optimizer of {type(self).__name__} has not been built yet: call post_init() first"
            )
        return self._optimizer

    def training_routine(self, history_monitor: HistoryMonitor | None = None, node_args: Mapping[str, Any] | None = None) -> None:
        """See `BaseTrainingPlan`."""
        self._preprocess()
        self._require_training_data()
        if self._arguments["fedprox_mu"] is not None:
            logger.warning("fedprox_mu is left out: the proximal term is for torch plans")
        model, optimizer = self._linear_model(), self.optimizer()
        learn = model.train if isinstance(optimizer, NativeSkLearnOptimizer) else model.compute_gradients
        with optimizer.optimizer_processing():
            optimizer.init_training()
            for batch in self._training_batches():
                loss = learn(batch.data, batch.target)
                optimizer.step()
                if batch.is_reported and history_monitor is not None:
                    history_monitor.add_scalar(metric={f"Loss {model.loss_name}": loss}, **batch.scalars())

    def testing_routine(
        self, metric: MetricTypes | None, metric_args: Mapping[str, Any], history_monitor: HistoryMonitor | None, before_train: bool
    ) -> None:
        """See `BaseTrainingPlan`; accuracy, or mean square error for a regressor, unless told otherwise; a `testing_step` goes first."""
        evaluate(self.testing_data_loader, self._values_of(metric, metric_args), history_monitor, before_train=before_train)

    def validation_loss(self) -> float:
        """See `BaseTrainingPlan`: of the model's loss function, without penalty."""
        if self.testing_data_loader is None or not len(self.testing_data_loader):
            raise FedbiomedTrainingPlanError("FB605: there are no samples to measure a loss on: give a test_ratio above 0")
        model, total, samples = self._linear_model(), 0.0, 0
        for data, target in self.testing_data_loader:
            size = first_length(data)
            total, samples = total + float(model.loss_on(data, target)) * size, samples + size
        return total / samples

    def training_state(self) -> TrainingState:
        """See `BaseTrainingPlan`: the number of steps too, by which learning rates fall."""
        model = self._linear_model()
        return TrainingState(model=model, counters={"steps": model.steps})

    def take_counters(self, counters: Mapping[str, int | float]) -> None:
        """See `BaseTrainingPlan`."""
        self._linear_model().steps = float(counters["steps"])

    def _values_of(self, metric: MetricTypes | None, metric_args: Mapping[str, Any]) -> Callable[[Any, Any], Mapping[str, float]]:
        if hasattr(self, "testing_step"):
            return lambda data, target: named("Custom", call_user(self, "testing_step", data, target))
        model = self._linear_model()
        chosen = metric or (MetricTypes.ACCURACY if isinstance(model, SGDClassifierModel) else MetricTypes.MEAN_SQUARE_ERROR)
        return lambda data, target: metric_values(chosen, metric_args, target, model.predict(data))

    def _linear_model(self) -> SkLearnModel:
        self._wrapped()
        return cast(SkLearnModel, self._model)


def required_count(model_args: Mapping[str, Any], name: str, least: int) -> int:
    """A number that `model_args` must hold.

    Raises:
        FedbiomedTrainingPlanError: it is missing or not an integer of at least `least`.
    """
    value = model_args.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise FedbiomedTrainingPlanError(f"FB605: model_args must hold {name!r}, an integer of at least {least}; found {value!r:.80}")
    return value
