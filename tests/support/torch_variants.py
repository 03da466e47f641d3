"""A small torch plan and variants of it."""

import torch
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from tests.support.monitors import Monitor

X = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])


Y = 2 * X


class Line(TorchTrainingPlan):
    """y = ax, from a = 1; plain gradient descent on half the squared error."""

    def init_model(self):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        return DataManager(X.numpy(), Y.numpy())

    def training_step(self, data, target):
        return ((self.model().forward(data) - target) ** 2).mean() / 2


def arguments(**args):
    return TrainingArgs({"epochs": 1, "loader_args": {"batch_size": 2}, **args}, only_required=False)


def ready(plan_class, *, model_args=None, test_ratio=0.0, **args):
    """A plan with model, optimizer and data."""
    plan = plan_class()
    given = arguments(**args)
    plan.post_init(model_args or {}, given)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(test_ratio, seed=0))
    return plan


def trained(plan_class, **args):
    plan, monitor = ready(plan_class, **args), Monitor()
    plan.training_routine(history_monitor=monitor)
    return plan, monitor


def slope(plan):
    return plan.model().weight.item()


def variant(base=Line, **members):
    return type("Variant", (base,), members)


def seen(**args):
    monitor = trained(Line, **args)[1]
    return [(m["epoch"], m["iteration"], m["num_samples_trained"]) for m in monitor.heard]
