"""Training plans. The names load their libraries when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
    from fedbiomed.common.training_plans.masked_layers import MaskedConv2d, MaskedLinear, masked
    from fedbiomed.common.training_plans.pca_plan import PCATrainingPlan
    from fedbiomed.common.training_plans.sklearn_models import FedPerceptron, FedSGDClassifier, FedSGDRegressor
    from fedbiomed.common.training_plans.sklearn_plan import SKLearnTrainingPlan
    from fedbiomed.common.training_plans.table_plan import TableStatisticsPlan
    from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

_HOMES = {
    "BaseTrainingPlan": "base_plan",
    "FedPerceptron": "sklearn_models",
    "FedSGDClassifier": "sklearn_models",
    "FedSGDRegressor": "sklearn_models",
    "MaskedConv2d": "masked_layers",
    "MaskedLinear": "masked_layers",
    "PCATrainingPlan": "pca_plan",
    "SKLearnTrainingPlan": "sklearn_plan",
    "TableStatisticsPlan": "table_plan",
    "TorchTrainingPlan": "torch_plan",
    "masked": "masked_layers",
}

__all__ = [
    "BaseTrainingPlan",
    "FedPerceptron",
    "FedSGDClassifier",
    "FedSGDRegressor",
    "MaskedConv2d",
    "MaskedLinear",
    "PCATrainingPlan",
    "SKLearnTrainingPlan",
    "TableStatisticsPlan",
    "TorchTrainingPlan",
    "masked",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
