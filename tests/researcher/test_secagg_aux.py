"""Auxiliary variables in secure rounds: SCAFFOLD's controls, those of optimizers, and numbers that a node's half tells."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.optimizers.declearn import MomentumModule, ScaffoldServerModule
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.secagg.update import COUNTER_RANGE
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import Scaffold
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.declearn_plans import SklearnLine, TorchLine
from tests.support.moody import weights

NODE_COUNT = 4
NODES = ["node_0", "node_1", "node_2", "node_3"]
Make = Callable[..., Experiment]
TWO = {"node_selection_strategy": DefaultStrategy(min_nodes=2)}
DECLEARN = {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7, "optimizer_args": {"modules": ["scaffold-client"]}}
TORCH = {"training_plan_class": TorchLine, "training_args": DECLEARN}
SKLEARN = {"training_plan_class": SklearnLine, "model_args": {"n_features": 1}, "training_args": DECLEARN}


class NormPlan(TorchTrainingPlan):
    """With statistics and a counter of a batch normalisation."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self):
        first, norm, last = self.model()
        others = [*first.parameters(), *norm.parameters()]
        return torch.optim.SGD([{"params": others}, {"params": last.parameters(), "lr": 0.02}], lr=0.05)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class Turns(Strategy):
    """The first three nodes, then all, then the last three."""

    def sample_nodes(self, round_i):
        nodes = sorted(self._data.node_ids())
        return [nodes[:3], nodes, nodes[1:]][round_i % 3]


def close(one: dict[str, Any], other: dict[str, Any], rounds: int = 1) -> None:
    """Equal within what rounding to steps, and the dtype, may make in so many rounds."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        found, wanted = np.asarray(value), np.asarray(other[name])
        clip = COUNTER_RANGE if "num_batches" in name else 16
        limit = clip / 2**31 + 8 * np.spacing(np.float32(1 + np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=rounds * limit, err_msg=name)


@pytest.mark.parametrize("settings", [{}, {"weighted": True}, {"weighted": True, "warm_start": True, "server_lr": 0.5}], ids=str)
def test_scaffold_goes_the_way_that_it_goes_openly(secured: Make, settings: dict[str, Any]) -> None:
    what = {"training_plan_class": NormPlan, "node_selection_strategy": Turns}
    plain, secure = secured(secagg=False, aggregator=Scaffold(**settings), **what), secured(aggregator=Scaffold(**settings), **what)
    for round_ in range(3):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), round_ + 1)
        close(secure.aggregator().global_state, plain.aggregator().global_state, 100 * (round_ + 1))
    assert secure.aggregator().nodes_states == secure.aggregator().nodes_deltas == {}


@pytest.mark.parametrize("what", [TORCH, SKLEARN], ids=["torch", "sklearn"])
def test_modules_of_optimizers(secured: Make, what: dict[str, Any]) -> None:
    def server() -> Optimizer:
        return Optimizer(lr=0.8, modules=[ScaffoldServerModule(), MomentumModule(0.5)])

    plain, secure = secured(secagg=False, agg_optimizer=server(), **what), secured(agg_optimizer=server(), **what)
    for round_ in range(3):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), 4 * (round_ + 1))
        one, other = (e.agg_optimizer().get_state()["states"]["modules"][0][1] for e in (secure, plain))
        close(one["s_state"].coefs, other["s_state"].coefs, 10)
        assert sorted(one["clients"]) == sorted(other["clients"]) == NODES
