"""When a training stops early, and with which weights it ends."""

import pandas as pd
import pytest
import torch
from torch import nn

from fedbiomed.common.checkpointing import EarlyStopper
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

NAN = float("nan")


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path


def marked(net, value):
    with torch.no_grad():
        net.weight.fill_(float(value))


def run(stopper, losses):
    """Check once per step; the weight says of which index the model is. Returns the index of the stop and the final model."""
    net, index = nn.Linear(1, 1), 0
    given = iter(losses)
    stopper.begin(net, lambda: next(given))
    stopped = None
    for index in range(len(losses)):
        marked(net, index)
        if stopper.should_stop(index + 1):
            stopped = index
            break
    stopper.end()
    return stopped, int(net.weight.item())


@pytest.mark.parametrize(
    ("patience", "losses", "stopped", "model"),
    [
        (1, [0.5, 0.4, 0.45], 2, 1),
        (2, [0.5, 0.4, 0.45, 0.3, 0.35, 0.36], 5, 3),
        (1, [0.5, 0.5], 1, 0),  # equal is no gain
        (1, [0.5, 0.0, 0.1], 2, 1),
        (2, [NAN, 0.5, NAN, 0.4], None, 3),
        (1, [NAN], 0, 0),
        (None, [0.5, 0.4, 0.6, 0.7], None, 1),
    ],
)
def test_the_countdown(folder, patience, losses, stopped, model):
    stopper = EarlyStopper(patience, 1, snapshot_dir=folder)
    assert run(stopper, losses) == (stopped, model)
    assert run(stopper, losses) == (stopped, model)  # nothing of the round before counts
    assert folder is None or list(folder.iterdir()) == []


def test_it_checks_at_intervals():
    checks = []
    stopper = EarlyStopper(1, 5)
    stopper.begin(nn.Linear(1, 1), lambda: checks.append(1) or 1.0 / len(checks))
    assert not any(stopper.should_stop(step) for step in range(1, 15))
    assert len(checks) == 2


def test_each_layer_keeps_its_mode():
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1))
    net[1].eval()
    stopper = EarlyStopper(1, 1)
    stopper.begin(net, lambda: float(net.eval() is not net))
    stopper.should_stop(1)
    assert (net.training, net[0].training, net[1].training) == (True, True, False)


@pytest.mark.parametrize(
    ("wrong", "error"), [({"patience": 0}, ValueError), ({"interval_steps": 0}, ValueError), ({"patience": 1.5}, TypeError)]
)
def test_wrong_arguments(wrong, error):
    with pytest.raises(error, match="1 or more"):
        EarlyStopper(**wrong)


def test_it_must_have_begun():
    with pytest.raises(FedbiomedCheckpointError, match="begin"):
        EarlyStopper().should_stop(1)


class Overshooting(TorchTrainingPlan):
    """y = ax, from a = 0 to the true a = 2 by steps of nearly 1, and past it: the loss falls, then rises."""

    patience = 1
    modes: list = []

    def init_model(self, model_args):
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.0))
        nn.init.zeros_(net[0].weight)
        return net

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def early_stopping(self):
        return EarlyStopper(self.patience, 1) if self.patience else None

    def training_data(self):
        return DataManager(dataset=pd.DataFrame({"x": [1.0]}), target=pd.DataFrame({"y": [2.0]}))

    def training_step(self, data, target):
        if self.model().training:
            self.modes.append(self.model()[1].training)
            return -self.model()(data).mean() / data.mean()  # each step adds 1 to the weight
        return ((self.model()(data) - target) ** 2).mean()


def trained(patience, rounds=1, testing=True):
    plan = Overshooting()
    plan.patience, plan.modes = patience, []
    plan.post_init({}, TrainingArgs({"num_updates": 6, "loader_args": {"batch_size": 4}}, only_required=False))
    rows = torch.utils.data.TensorDataset(torch.ones(4, 1), torch.full((4, 1), 2.0))
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    plan.set_data_loaders(loader, loader if testing else None)
    weights = []
    for _ in range(rounds):
        with torch.no_grad():
            plan.model()[0].weight.zero_()
        plan.training_routine()
        weights.append(plan.model()[0].weight.item())
    return plan, weights


def test_a_plan_stops_at_its_best_weights_in_every_round():
    plan, weights = trained(patience=1, rounds=2)
    assert weights == [2.0, 2.0]  # losses 1, 0, 1: stopped at the third step
    assert plan.total_steps() == 6
    assert plan.modes == [True] * 6


def test_a_plan_without_goes_all_the_way():
    assert trained(patience=None)[1] == [6.0]


def test_a_plan_needs_testing_samples():
    with pytest.raises(FedbiomedTrainingPlanError, match="test_ratio"):
        trained(patience=1, testing=False)
