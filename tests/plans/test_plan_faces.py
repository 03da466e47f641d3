"""The names under which users meet plans and native optimizers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDRegressor

from fedbiomed.common.constants import ProcessTypes
from fedbiomed.common.data import NPDataLoader
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.models import SGDRegressorModel, TorchModel
from fedbiomed.common.optimizers import NativeSkLearnOptimizer, NativeTorchOptimizer
from fedbiomed.common.training_plans import (
    BaseTrainingPlan,
    FedPerceptron,
    FedSGDClassifier,
    FedSGDRegressor,
    SKLearnTrainingPlan,
    TorchTrainingPlan,
)
from tests.support.plans import SidePlan
from tests.support.tiny_plan import TinyPlan


def test_kinds_of_plans() -> None:
    assert issubclass(TorchTrainingPlan, BaseTrainingPlan)
    assert issubclass(SKLearnTrainingPlan, BaseTrainingPlan)
    assert all(issubclass(plan, SKLearnTrainingPlan) for plan in (FedPerceptron, FedSGDClassifier, FedSGDRegressor))


def test_what_a_node_hands_to_a_plan() -> None:
    plan = TinyPlan()
    assert (plan.dataset_path, plan.training_data_loader, plan.testing_data_loader) == (None, None, None)
    plan.set_dataset_path("/data/rows.csv")
    assert plan.dataset_path == "/data/rows.csv"
    train, test = NPDataLoader(np.ones((4, 1)), np.ones(4)), NPDataLoader(np.ones((2, 1)), np.ones(2))
    plan.set_data_loaders(train, test)
    assert (plan.training_data_loader, plan.testing_data_loader) == (train, test)


def test_methods_before_training_are_kept_by_name() -> None:
    plan = SidePlan()
    assert plan.pre_processes == {}

    def scaled(loader: object) -> object:
        return loader

    plan.add_preprocess(scaled, ProcessTypes.DATA_LOADER)
    assert plan.pre_processes == {"scaled": (scaled, ProcessTypes.DATA_LOADER)}
    with pytest.raises(FedbiomedTrainingPlanError, match="process_type"):
        plan.add_preprocess(scaled, "loader")  # type: ignore[arg-type]


def test_native_optimizers() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = NativeTorchOptimizer(TorchModel(model), torch.optim.SGD(model.parameters(), lr=0.5))
    assert optimizer.learning_rates(model) == {"weight": 0.5, "bias": 0.5}
    torch.nn.init.ones_(model.weight)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.5)  # 1 - 0.5 * 1
    optimizer.zero_grad()
    assert model.weight.grad is None
    regressor = SGDRegressorModel(SGDRegressor(), 2)
    assert NativeSkLearnOptimizer(regressor).optimizer is None
