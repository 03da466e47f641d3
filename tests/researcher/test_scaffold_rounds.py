"""Scaffold over real nodes and a real training process; only the transports are in memory."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedAggregatorError, FedbiomedExperimentError
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedAverage, Scaffold
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.plans import SidePlan, write_rows

ARGS = {"num_updates": 2, "loader_args": {"batch_size": 2}, "random_seed": 7}


class SlopePlan(TorchTrainingPlan):
    """y = ax from a = 1 on the column y alone: the loss is (a - y)^2 / 2."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean() / 2


class NormPlan(TorchTrainingPlan):
    """With buffers, dropout and a rate for each layer."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self):
        first, _, norm, last = self.model()
        others = [*first.parameters(), *norm.parameters()]
        return torch.optim.SGD([{"params": others}, {"params": last.parameters(), "lr": 0.02}], lr=0.05)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class Turns(Strategy):
    """In even rounds both nodes, in odd ones the first."""

    def sample_nodes(self, round_i):
        nodes = sorted(self._data.node_ids())
        return nodes[:1] if round_i % 2 else nodes

    def refine(self, training_replies, round_i):
        params = {reply["node_id"]: reply["params"] for reply in training_replies}
        return params, {node_id: 1 / len(params) for node_id in params}, 1, {}


class EvenTurns(Turns):
    """The same, judged as replies come."""

    refine = Strategy.refine


@pytest.fixture
def requests(federation, tmp_path):
    for index in range(2):
        write_rows(federation.data(index) / "rows.csv", 12 + 4 * index, seed=index)
    with federation.researcher(tmp_path / "researcher", idle_timeout_s=10.0) as made:
        yield made


EXPERIMENT = {"training_plan_class": NormPlan, "training_args": dict(ARGS), "aggregator": Scaffold}


def weights(experiment, round_):
    return {name: np.asarray(value).tobytes() for name, value in experiment.aggregated_params()[round_]["params"].items()}


@pytest.mark.parametrize("strategy", [Turns, EvenTurns])
def test_two_rounds_by_hand_the_second_with_one_node_of_two(made, federation, strategy):
    # node_0 has y = 3, node_1 y = 0; rate 0.1, 2 steps a round, server_lr 0.5
    # round 0, a = 1: node_0 goes by -(a - 3) / 10 to 1.2, 1.38; node_1 by -a / 10 to 0.9, 0.81
    #   c_0 = -0.38 / 0.2 = -1.9, c_1 = 0.19 / 0.2 = 0.95, c = -0.475; delta = -1.425 and 1.425; a = 1 - 0.5 / 2 * (-0.19) = 1.0475
    # round 1, node_0 alone goes by -(a - 3 + 1.425) / 10 to 1.10025, 1.147725
    #   c_0 = -1.425 - 0.100225 / 0.2 = -1.926125, c = -0.4880625; a = 1.0475 + 0.5 * 0.100225 = 1.0976125
    # round 2: node_1 goes by -(a - 1.4380625) / 10 to 1.1316575, 1.16229800
    for index, y in enumerate((3.0, 0.0)):
        (federation.data(index) / "rows.csv").write_text(f"x,y\n1.0,{y}\n1.0,{y}\n", encoding="utf-8")
    experiment = made(training_plan_class=SlopePlan, aggregator=Scaffold(server_lr=0.5), node_selection_strategy=strategy)
    experiment.run(rounds=3)
    slopes = [experiment.aggregated_params()[round_]["params"]["weight"].item() for round_ in range(2)]
    assert slopes == pytest.approx([1.0475, 1.0976125], rel=1e-6)
    second = {reply["node_id"]: reply["params"]["weight"].item() for reply in experiment.training_replies()[1]}
    assert second == {"node_0": pytest.approx(1.147725, rel=1e-6)}
    third = {reply["node_id"]: reply["params"]["weight"].item() for reply in experiment.training_replies()[2]}
    assert third["node_1"] == pytest.approx(1.162298, rel=1e-6)
    assert experiment.training_replies()[0][0]["optimizer_args"] == {"lr": {"weight": 0.1}, "num_updates": 2}


def test_two_rounds_and_two_more_are_four(made, requests):
    settings = {"node_selection_strategy": EvenTurns, "round_limit": 4, "save_breakpoints": True}
    unbroken = made(**settings, aggregator=Scaffold(server_lr=0.8))
    unbroken.run()
    broken = made(**settings, aggregator=Scaffold(server_lr=0.8))
    broken.run(rounds=2)
    resumed = Experiment.load_breakpoint(f"{broken.experimentation_path()}/breakpoint_0001", requests=requests, show_progress=False)
    assert isinstance(resumed.aggregator(), Scaffold)
    assert resumed.aggregator().server_lr == 0.8
    assert resumed.run() == 2
    for round_ in range(4):
        assert weights(resumed, round_) == weights(unbroken, round_), round_
    for name, value in unbroken.aggregator().global_state.items():
        assert torch.equal(value, resumed.aggregator().global_state[name])
        assert value.any() or "bias" in name
    assert set(unbroken.aggregator().global_state) == {"0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"}
    assert unbroken.aggregator().nodes_lr["node_1"]["3.weight"] == 0.02


def test_it_begins_like_federated_averaging_and_goes_another_way(made):
    one, other = made(aggregator=Scaffold(weighted=True)), made(aggregator=FedAverage)
    for experiment in (one, other):
        experiment.run(rounds=2)
    assert weights(one, 0) == weights(other, 0)
    assert weights(one, 1) != weights(other, 1)


def test_the_aggregator_may_be_changed_between_rounds(made):
    experiment = made()
    experiment.run(rounds=3)
    experiment.set_aggregator(FedAverage())
    assert experiment.run(rounds=1) == 1
    replies = experiment.training_replies()[3]
    expected = sum(reply["params"]["0.weight"].double() * rows / 28 for reply, rows in zip(replies, (12, 16), strict=True))
    assert torch.allclose(experiment.aggregated_params()[3]["params"]["0.weight"].double(), expected, rtol=1e-5)
    assert experiment.job().last_msg["aggregator_args"] == {"aggregator_name": "FedAverage"}
    assert experiment.job().last_msg["aggregator_files"] == {}
    experiment.set_training_args({**ARGS, "num_updates": None, "epochs": 1})
    assert experiment.run(rounds=1) == 1


def test_corrections_travel_as_files(made):
    experiment = made(training_args={**ARGS, "test_ratio": 0.25, "test_on_global_updates": True}, round_limit=2)
    experiment.run()
    assert experiment.job().last_msg["aggregator_files"] == {}  # of the validation after the last round
    experiment.run_once(increase=True)
    assert experiment.job().last_msg["aggregator_args"] == {"aggregator_name": "Scaffold"}
    assert set(experiment.job().last_msg["aggregator_files"]) == {"aggregator_correction"}
    given = experiment.job().aggregator_args["node_0"]["aggregator_correction"]
    assert set(given) == {"arg_name", "filename", "url"}
    assert given["url"] != experiment.job().aggregator_args["node_1"]["aggregator_correction"]["url"]


def test_a_failed_round_changes_no_control(made, federation):
    experiment = made()
    experiment.run(rounds=2)
    before = {name: value.clone() for name, value in experiment.aggregator().global_state.items()}
    deltas = {node_id: dict(params) for node_id, params in experiment.aggregator().nodes_deltas.items()}
    (federation.data(1) / "rows.csv").unlink()
    with pytest.raises(FedbiomedExperimentError, match="node_1"):
        experiment.run_once()
    aggregator = experiment.aggregator()
    assert all(torch.equal(value, aggregator.global_state[name]) for name, value in before.items())
    assert all(torch.equal(value, aggregator.nodes_deltas[node][name]) for node in deltas for name, value in deltas[node].items())
    experiment.set_strategy(DefaultStrategy(min_nodes=1))
    assert experiment.run_once() == 1
    assert not torch.equal(before["0.weight"], experiment.aggregator().global_state["0.weight"])


def test_a_dry_run_is_one_step(made, federation):
    # c_0 = (1 - 1.2) / (0.1 * 1) = -2, the gradient of the only step
    for index in range(2):
        (federation.data(index) / "rows.csv").write_text("x,y\n1.0,3.0\n1.0,3.0\n", encoding="utf-8")
    experiment = made(training_plan_class=SlopePlan, training_args={**ARGS, "num_updates": 5, "dry_run": True})
    experiment.run_once()
    assert experiment.aggregator().global_state["weight"].item() == pytest.approx(-2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training_args": {"epochs": 1, "loader_args": {"batch_size": 2}}}, "num_updates"),
        ({"training_plan_class": SidePlan, "model_args": {"n_features": 2, "n_classes": 2}}, "torch plans only"),
    ],
    ids=["epochs", "sklearn"],
)
def test_what_it_cannot_do_is_said_before_anything_is_sent(made, changes, said):
    experiment = made(**changes)
    with pytest.raises(FedbiomedAggregatorError, match=said):
        experiment.run_once()
    assert experiment.round_current() == 0
    assert experiment.job().last_msg is None
