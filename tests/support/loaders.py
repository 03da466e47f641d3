"""Data managers, split, and what their loaders give."""

import numpy as np
import pytest

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data import DataManager

TORCH, SKLEARN = TrainingPlans.TorchTrainingPlan, TrainingPlans.SkLearnTrainingPlan


KINDS = pytest.mark.parametrize("kind", [TORCH, SKLEARN])


X = np.arange(20.0).reshape(10, 2)


Y = np.arange(10)


def split(kind, ratio, *, seed=0, data=X, target=Y, **loader_args):
    manager = DataManager(data, target, **loader_args)
    manager.load(tp_type=kind)
    return manager.split(ratio, seed=seed)


def labels(loader):
    """Targets in the order in which a loader gives them."""
    return [] if loader is None else [int(value) for _, target in loader for value in np.asarray(target).ravel()]


def batches(loader):
    return [len(target) for _, target in loader]
