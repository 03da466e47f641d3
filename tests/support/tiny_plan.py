"""The smallest torch plans, for tests in which nothing is trained; not annotated, since only their class text travels."""

import pathlib

import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan


class TinyPlan(TorchTrainingPlan):
    """y = ax + b, beginning at a = 1, b = 0."""

    def init_model(self, model_args):
        model = nn.Linear(model_args.get("features", 1), 1)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        return DataManager(dataset=torch.ones(4, 1).numpy(), target=torch.ones(4, 1).numpy())

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class Unimportable(TorchTrainingPlan):
    """Uses a name that its file does not import."""

    rows = pathlib.Path("rows.csv")

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def training_data(self):
        return None

    def training_step(self, data, target):
        return None


class Unbuildable(TorchTrainingPlan):
    """Its model cannot be made."""

    def init_model(self, model_args):
        raise ZeroDivisionError("no model today")

    def training_data(self):
        return None

    def training_step(self, data, target):
        return None


class Demanding(TinyPlan):
    """Cannot be made without an argument."""

    def __init__(self, argument):
        super().__init__()
