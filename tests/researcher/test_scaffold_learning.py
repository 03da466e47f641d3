"""Scaffold against federated averaging where the nodes' data differ."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedAverage, Scaffold
from tests.support.local_rounds import LocalRounds

pytestmark = pytest.mark.shown


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices on busy machines: several threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linear(TorchTrainingPlan):
    """A linear model on the arrays that `dataset_path` is."""

    def init_model(self, model_args):
        return nn.Linear(model_args["inputs"], model_args["outputs"])

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args["lr"])

    def training_data(self):
        return DataManager(*self.dataset_path)


class Digit(Linear):
    """One output per digit."""

    def training_step(self, data, target):
        return nn.functional.cross_entropy(self.model()(data), target.long())


def outputs(plan, inputs):
    with torch.no_grad():
        return plan.model()(torch.tensor(inputs)).numpy()


def digits_by_label(sites):
    """Each site has the digits of some labels only; and the rest, on which all are tested."""
    inputs, labels = load_digits(return_X_y=True)
    train, test, labels, test_labels = train_test_split(
        (inputs / 16).astype(np.float32), labels, test_size=0.3, random_state=0, stratify=labels
    )
    parts = np.array_split(np.argsort(labels, kind="stable"), sites)
    return {f"site_{i}": (train[part], labels[part]) for i, part in enumerate(parts)}, test, test_labels


def test_sites_that_see_other_digits_agree_sooner_by_scaffold():
    sites, inputs, labels = digits_by_label(5)
    args = {"num_updates": 50, "loader_args": {"batch_size": 32, "shuffle": True}, "optimizer_args": {"lr": 0.5}, "random_seed": 1}
    right = {}
    for aggregator in (FedAverage(), Scaffold()):
        rounds = LocalRounds(Digit, sites, aggregator, {"inputs": 64, "outputs": 10}, **args)
        rounds.run(9)
        right[aggregator.aggregator_name] = (outputs(rounds.plan, inputs).argmax(1) == labels).mean()
    assert right["Scaffold"] > 0.93
    assert right["Scaffold"] > right["FedAverage"] + 0.04


def test_half_of_the_sites_in_each_round_are_enough():
    sites, inputs, labels = digits_by_label(4)
    args = {"num_updates": 30, "loader_args": {"batch_size": 32, "shuffle": True}, "optimizer_args": {"lr": 0.5}, "random_seed": 2}
    right = {}
    for aggregator in (FedAverage(), Scaffold()):
        rounds = LocalRounds(Digit, sites, aggregator, {"inputs": 64, "outputs": 10}, **args)
        for round_ in range(16):
            rounds.run(1, [f"site_{round_ % 4}", f"site_{(round_ + 1 + round_ // 4 % 3) % 4}"])
        right[aggregator.aggregator_name] = (outputs(rounds.plan, inputs).argmax(1) == labels).mean()
    assert right["Scaffold"] > right["FedAverage"]
