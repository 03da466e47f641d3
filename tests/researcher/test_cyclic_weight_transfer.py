"""Cyclic weight transfer: orders by themselves, then over real nodes; only the transports are in memory. Numbers are worked out by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedStrategyError, FedbiomedTrainerError, FedbiomedUserInputError
from fedbiomed.common.optimizers import Optimizer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import Median
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events import CyclicWeightTransfer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import CyclicOrder, DefaultStrategy
from tests.support.plans import LinePlan

NODE_COUNT = 3
NODES = ["node_0", "node_1", "node_2"]
DATA = FederatedDataSet({node: {"shape": [3, 1]} for node in NODES})


class DigitPlan(TorchTrainingPlan):
    """One step writes a digit behind the weight, 3, 4 or 5 for 30, 40, 50 rows; files `fails` and `is_nan` beside the data spoil it."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        self.rows = len(table)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821
            raise ValueError("in a bad mood")
        if (pathlib.Path(self.dataset_path).parent / "is_nan").exists():  # noqa: F821
            return self.model().weight.sum() * float("nan")
        weight = self.model().weight
        return -(9 * weight.detach() * weight + self.rows // 10 * weight).sum()  # w <- w + 9 w + digit


ARGS = {"num_updates": 1, "loader_args": {"batch_size": 8}, "random_seed": 7}
EXPERIMENT = {"training_plan_class": DigitPlan, "training_args": ARGS}


@pytest.fixture
def travel(made):
    def make(**changes):
        given = {"trainer": CyclicWeightTransfer, "node_selection_strategy": CyclicOrder(order=["node_1", "node_0", "node_2"])}
        return made(**{**given, **changes})

    return make


def digits(experiment):
    """What the model went through, by round."""
    return {round_: float(entry["params"]["weight"]) for round_, entry in experiment.aggregated_params().items()}


# --- who is visited


def test_a_given_order_holds_in_each_cycle():
    strategy = CyclicOrder(DATA, order=["node_2", "node_0", "node_1"])
    assert [strategy.sample_nodes(i) for i in range(6)] == [["node_2"], ["node_0"], ["node_1"]] * 2


def test_a_seed_gives_each_cycle_its_own_order():
    strategy, same = CyclicOrder(DATA, seed=5), CyclicOrder(DATA, seed=5)
    cycles = [[strategy.sample_nodes(3 * cycle + place)[0] for place in range(3)] for cycle in range(40)]
    assert all(sorted(cycle) == NODES for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) == 6
    assert same.sample_nodes(70) == [cycles[23][1]], "not the calls, but seed and round make it"
    assert type(CyclicOrder().seed) is int


def test_it_goes_through_a_breakpoint():
    for strategy in (CyclicOrder(DATA, seed=5), CyclicOrder(DATA, order=NODES)):
        other = CyclicOrder()
        other.load_state_breakpoint(strategy.save_state_breakpoint())
        assert (other.order, other.seed) == (strategy.order, strategy.seed)
    with pytest.raises(FedbiomedBreakpointError, match="malformed"):
        CyclicOrder().load_state_breakpoint({"class": "CyclicOrder", "parameters": {"seed": "x"}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"order": NODES, "seed": 1}, "an order or a seed, not both"),
        ({"order": ["node_0", "node_0"]}, "order must be a list of different node ids"),
        ({"order": "node_0"}, "order must be a list of different node ids"),
        ({"seed": -1}, "seed must be an integer of 0 or more, not -1"),
    ],
)
def test_wrong_settings(given, said):
    with pytest.raises(FedbiomedUserInputError, match=said):
        CyclicOrder(**given)


def test_an_order_names_the_nodes_of_the_data():
    with pytest.raises(FedbiomedStrategyError, match=r"order is \['node_0', 'node_9'\], the nodes are \['node_0', 'node_1', 'node_2'\]"):
        CyclicOrder(DATA, order=["node_0", "node_9"]).sample_nodes(0)
    with pytest.raises(FedbiomedStrategyError, match=r"the nodes are \[\]"):
        CyclicOrder(seed=1).sample_nodes(0)


# --- the travel


def test_one_model_travels_and_nothing_is_averaged(travel):
    experiment = travel()
    assert experiment.run(rounds=4) == 4
    assert digits(experiment) == {0: 4.0, 1: 43.0, 2: 435.0, 3: 4354.0}
    assert [[reply["node_id"] for reply in replies] for replies in experiment.training_replies().values()] == [
        ["node_1"],
        ["node_0"],
        ["node_2"],
        ["node_1"],
    ]


@pytest.mark.parametrize(("mood_", "reason"), [("fails", "in a bad mood"), ("is_nan", "holds NaN")])
def test_a_node_that_fails_is_skipped_and_that_is_said(travel, mood, mood_, reason, caplog):
    path = mood(0, mood_)
    experiment = travel()
    with caplog.at_level(logging.WARNING):
        experiment.run(rounds=3)
    assert digits(experiment) == {0: 4.0, 2: 45.0}
    node, why = experiment.trainer().skipped[1]
    assert (node, sorted(experiment.trainer().skipped)) == ("node_0", [1])
    assert reason in why
    row = experiment.history_transitions().query("event == 'node skipped'").iloc[0]
    assert (row["round"], row["state"]) == (1, "ongoing")
    assert row["note"].startswith("node_0: ")
    assert "node_0" in caplog.text
    path.unlink()
    experiment.run(rounds=2)
    assert digits(experiment)[4] == 4543.0, "in the next cycle its turn comes again"


def test_a_cycle_in_which_all_fail_is_an_error(travel, mood):
    paths = [mood(index, "fails") for index in range(3)]
    experiment = travel()
    with pytest.raises(FedbiomedStrategyError, match=r"no node of a whole cycle trained the model: node_1: .*; node_0: .*; node_2: "):
        experiment.run(rounds=4)
    assert experiment.round_current() == 2
    paths[2].unlink()
    experiment.run(rounds=2)
    assert digits(experiment) == {2: 5.0}


def test_all_nodes_test_the_model(travel, mood):
    mood(2, "fails")
    args = {**ARGS, "test_ratio": 0.2, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}
    experiment = travel(training_args=args, round_limit=3)
    experiment.run()
    tested = experiment.history.query("round == 3")
    assert sorted(tested["node"]) == NODES
    assert sorted(experiment.trainer().training.metrics) == [3]


def test_it_goes_on_in_the_middle_of_a_cycle_bit_for_bit(made, requests):
    args = {"epochs": 1, "num_updates": None, "loader_args": {"batch_size": 8}, "random_seed": 7}
    setting = {"training_plan_class": LinePlan, "save_breakpoints": True, "training_args": args, "round_limit": 6}
    unbroken = made(trainer=CyclicWeightTransfer, node_selection_strategy=CyclicOrder(seed=3), **setting)
    unbroken.run()
    resumed = Experiment.load_breakpoint(Path(unbroken.experimentation_path()) / "breakpoint_0003", requests=requests, show_progress=False)
    assert isinstance(resumed.trainer(), CyclicWeightTransfer)
    assert resumed.run() == 2
    for round_ in (4, 5):
        one, other = (experiment.aggregated_params()[round_]["params"] for experiment in (unbroken, resumed))
        assert all(np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one), round_
        sent = unbroken.training_replies()[round_]
        assert [reply["node_id"] for reply in resumed.training_replies()[round_]] == [reply["node_id"] for reply in sent]


def test_who_was_skipped_goes_through_a_breakpoint():
    trainer = CyclicWeightTransfer()
    trainer.skipped = {4: ("node_1", "no answer")}
    other = CyclicWeightTransfer()
    other.load_state_breakpoint(trainer.save_state_breakpoint(), 5)
    assert other.skipped == trainer.skipped


def test_what_does_not_go_with_it_is_refused(made, travel):
    with pytest.raises(FedbiomedTrainerError, match=r"strategy DefaultStrategy does not visit node by node; give .*CyclicOrder"):
        travel(node_selection_strategy=DefaultStrategy).run_once()
    with pytest.raises(FedbiomedTrainerError, match="the aggregator Median has no use"):
        travel(aggregator=Median).run_once()
    with pytest.raises(FedbiomedTrainerError, match="an agg_optimizer has no use"):
        travel(agg_optimizer=Optimizer(lr=0.5)).run_once()
