"""Small scikit-learn plans, made ready and trained."""

import numpy as np

from fedbiomed.common.data import DataManager
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import FedSGDClassifier, FedSGDRegressor
from tests.support.monitors import Monitor

GENERATOR = np.random.default_rng(20)


X = GENERATOR.normal(size=(12, 3))


TWO = np.array([0, 1] * 6)


THREE = np.array([0, 1, 2] * 4)


NUMBERS = X @ np.array([1.0, -2.0, 0.5]) + 0.3


def of(kind, target, inputs=X, **members):
    """A plan class of a kind on given data."""
    return type("Variant", (kind,), {"training_data": lambda self: DataManager(inputs, target), **members})


CLASSES_2 = (of(FedSGDClassifier, TWO), {"n_features": 3, "n_classes": 2})


CLASSES_3 = (of(FedSGDClassifier, THREE), {"n_features": 3, "n_classes": 3})


REGRESSION = (of(FedSGDRegressor, NUMBERS), {"n_features": 3})


def ready(plan_class, model_args, *, test_ratio=0.0, batch_size=4, **args):
    plan = plan_class()
    loader_args = {} if batch_size is None else {"batch_size": batch_size}
    given = TrainingArgs({"epochs": 1, "loader_args": loader_args, **args}, only_required=False)
    plan.post_init(model_args, given)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(test_ratio, seed=0))
    return plan


def trained(plan_class, model_args, **args):
    plan, monitor = ready(plan_class, model_args, **args), Monitor()
    plan.training_routine(history_monitor=monitor)
    return plan, monitor


def validate(plan, metric=None, metric_args=None, *, before_train=True):
    monitor = Monitor()
    plan.testing_routine(metric=metric, metric_args=metric_args or {}, history_monitor=monitor, before_train=before_train)
    return monitor.heard
