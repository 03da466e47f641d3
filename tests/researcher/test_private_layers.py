"""Layers that stay on the nodes: FedPer, FedRep, FedBN, Fenda and PerFCL over real nodes; only the transports are in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.constants import Phase, TrainingPlans
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.models import FendaModel
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedBN, FedPer, FedRep, Fenda, PerFCL
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import Strategy

NODES = ["node_0", "node_1"]


class HeadPlan(TorchTrainingPlan):
    """A step adds 1 to the base, and 10 to the head, times 3 or 4 on the nodes of 30 or 40 rows; their beginning is drawn."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.ModuleDict({"base": nn.Linear(1, 1, bias=False), "norm": nn.BatchNorm1d(1), "head": nn.Linear(1, 1, bias=False)})

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        self.times = len(table) // 10
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        model = self.model()
        return -(model["base"].weight + 10 * model["head"].weight).sum() * self.times + 0 * model["norm"](data).sum()

    def private_layers(self):
        return ["head"]

    def testing_step(self, data, target):
        return {"head": self.model()["head"].weight.item(), "runs": float(self.model()["norm"].num_batches_tracked)}


class SplitPlan(TorchTrainingPlan):
    """By two extractors."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.models import FendaModel"]

    def init_model(self):
        return FendaModel(nn.Linear(1, 2), nn.Linear(1, 2), nn.Linear(4, 1))

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.01)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()

    def testing_step(self, data, target):
        return {"loss": ((self.model()(data) - target) ** 2).mean().item()}


ARGS = {
    "num_updates": 1,
    "loader_args": {"batch_size": 8},
    "test_ratio": 0.1,
    "test_on_global_updates": True,
    "test_on_local_updates": True,
}
EXPERIMENT = {"training_plan_class": HeadPlan, "training_args": ARGS}


class Listed(Strategy):
    """Asks node_0, then node_1, then both."""

    def sample_nodes(self, round_i):
        return [["node_0"], ["node_1"], NODES][round_i]


def shared(experiment, round_):
    return {name: np.asarray(value) for name, value in experiment.aggregated_params()[round_]["params"].items()}


def measured(experiment, round_, metric="head"):
    """The metric before and after training, by node; the shared layers are those of the researcher then."""
    found = {}
    for place, phase in enumerate((Phase.TEST_GLOBAL, Phase.TEST_LOCAL)):
        rows = experiment.history.query(f"round == {round_} and metric == '{phase}/{metric}'")
        for node, value in zip(rows["node"], rows["value"], strict=True):
            found.setdefault(node, [0.0, 0.0])[place] = value
    return {node: tuple(values) for node, values in found.items()}


def begun(experiment, name):
    return experiment.training_plan().get_model_params()[name].item()


def test_shared_layers_are_averaged_and_heads_stay(made):
    experiment = made(aggregator=FedPer(private=["head"]))
    base, head = begun(experiment, "base.weight"), begun(experiment, "head.weight")
    experiment.run(rounds=2)
    # 27 and 36 training samples: 3 and 4 more on the base, 30 and 40 more on the heads, in each round
    step = (27 * 3 + 36 * 4) / 63
    for round_ in (0, 1):
        assert sorted(shared(experiment, round_)) == sorted(["base.weight", *(f"norm.{n}" for n in NORM)])
        assert shared(experiment, round_)["base.weight"].item() == pytest.approx(base + (round_ + 1) * step, abs=1e-5)
        for reply in experiment.training_replies()[round_]:
            assert "head.weight" not in reply["params"], "private layers are not sent"
        expected = {node: (head + 10 * round_ * times, head + 10 * (round_ + 1) * times) for node, times in zip(NODES, (3, 4), strict=True)}
        assert measured(experiment, round_) == {node: pytest.approx(values, abs=1e-4) for node, values in expected.items()}
    assert begun(experiment, "head.weight") == head, "the researcher keeps the initial head"


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_a_node_that_never_trained_gets_the_initial_private_layers(made):
    experiment = made(aggregator=FedPer("head"), node_selection_strategy=Listed)
    head = begun(experiment, "head.weight")
    experiment.run(rounds=3)
    assert measured(experiment, 0) == {"node_0": pytest.approx((head, head + 30), abs=1e-4)}
    assert measured(experiment, 1) == {"node_1": pytest.approx((head, head + 40), abs=1e-4)}
    third = {"node_0": (head + 30, head + 60), "node_1": (head + 40, head + 80)}
    assert measured(experiment, 2) == {node: pytest.approx(values, abs=1e-4) for node, values in third.items()}


def test_they_go_on_from_a_breakpoint_bit_for_bit(made, requests):
    unbroken = made(aggregator=FedPer("head"), node_selection_strategy=Listed, save_breakpoints=True)
    head = begun(unbroken, "head.weight")
    unbroken.run(rounds=3)
    first = Path(unbroken.experimentation_path()) / "breakpoint_0000"
    resumed = Experiment.load_breakpoint(first, requests=requests, show_progress=False)
    assert resumed.aggregator().private == ["head"]
    resumed.run(rounds=2)
    assert measured(resumed, 1)["node_1"][0] == head, "the initial head of the first experiment, not of the plan that was built anew"
    for round_ in (1, 2):
        assert measured(resumed, round_) == measured(unbroken, round_)
        one, other = shared(unbroken, round_), shared(resumed, round_)
        assert {name: value.tobytes() for name, value in one.items()} == {name: value.tobytes() for name, value in other.items()}


def test_they_survive_a_restart_of_the_node(federation, made):
    with federation.node(2):
        experiment = made(aggregator=FedPer("head"), nodes=["node_2"])
        head = begun(experiment, "head.weight")
        experiment.run(rounds=1)
    with federation.node(2, is_new=False):
        experiment.run(rounds=1)
    assert measured(experiment, 1) == {"node_2": pytest.approx((head + 50, head + 100), abs=1e-4)}


def test_a_private_layer_changes_nothing_that_is_sent(made):
    args = {**ARGS, "random_seed": 3}
    one = made(aggregator=FedPer("head"), training_args=args, nodes=["node_0"])
    other = made(aggregator=FedPer("head"), training_args=args, nodes=["node_0"])
    job = other.job()
    job.update_parameters({**job.training_plan.get_model_params(), "head.weight": torch.tensor([[77.0]])})
    payloads = []
    for experiment in (one, other):
        experiment.run(rounds=1)
        payloads.append({name: np.asarray(v).tobytes() for name, v in experiment.training_replies()[0][0]["params"].items()})
    assert payloads[0] == payloads[1]
    assert measured(other, 0)["node_0"] == (77.0, 107.0)


def test_who_says_nothing_of_what_stays_is_told_the_layers_that_are_there(made):
    experiment = made(aggregator=FedPer, training_plan_class=SplitPlan)
    there = "local_extractor, global_extractor, head"
    with pytest.raises(
        FedbiomedAggregatorError, match=rf"FedPer\(private=\[...\]\), or define private_layers\(\) in the plan; .* {there}$"
    ):
        experiment.run_once()


def test_the_plan_may_say_what_stays(made):
    experiment = made(aggregator=FedPer)
    experiment.run(rounds=1)
    assert "head.weight" not in shared(experiment, 0)


def test_batch_normalisations_stay(made):
    experiment = made(aggregator=FedBN)
    experiment.run(rounds=2)
    assert sorted(shared(experiment, 1)) == ["base.weight", "head.weight"]
    assert measured(experiment, 1, "runs") == dict.fromkeys(NODES, (1.0, 2.0)), "their counters are the node's own"


def test_first_the_head_then_the_body(made):
    experiment = made(aggregator=FedRep(["head"], head_steps=2, body_steps=1), training_args={**ARGS, "num_updates": 3})
    base, head = begun(experiment, "base.weight"), begun(experiment, "head.weight")
    experiment.run(rounds=1)
    assert shared(experiment, 0)["base.weight"].item() == pytest.approx(base + (27 * 3 + 36 * 4) / 63, abs=1e-5)
    assert measured(experiment, 0)["node_0"] == pytest.approx((head, head + 60), abs=1e-4)
    assert {reply["params"]["norm.num_batches_tracked"].item() for reply in experiment.training_replies()[0]} == {1}


@pytest.mark.parametrize(
    ("aggregator", "said"),
    [
        (FedPer("haed"), r"no layer 'haed' with parameters for FedPer; it has base, norm, head$"),
        (FedPer(["base", "norm", "head"]), "nothing would travel; the model has base, norm, head"),
        (FedRep("head", 1), "num_updates to be more than 1: 1 steps on the head, .*; found 1"),
        (FedRep("head", 2, 3), "num_updates to be 5: 2 steps on the head, .*; found 1"),
        (Fenda(), "Fenda needs a FendaModel .*; the model has base, norm, head"),
        (Fenda("hat"), "no layer 'hat' with parameters for Fenda; it has base, norm, head"),
        (PerFCL(), "PerFCL needs a FendaModel .*; the model has base, norm, head"),
    ],
)
def test_what_does_not_fit_is_said_with_the_layers_that_are_there(made, aggregator, said):
    experiment = made(aggregator=aggregator)
    with pytest.raises(FedbiomedAggregatorError, match=said):
        experiment.run_once()
    assert experiment.round_current() == 0


@pytest.mark.parametrize("aggregator", [FedPer("a"), FedRep("a"), FedBN(), Fenda("a"), PerFCL()], ids=lambda a: type(a).__name__)
def test_plans_of_scikit_learn_are_refused_in_one_line(aggregator):
    aggregator.set_training_plan_type(TrainingPlans.SkLearnTrainingPlan)
    with pytest.raises(FedbiomedAggregatorError, match=f"{type(aggregator).__name__} works with torch plans only") as caught:
        aggregator.check_values(n_updates=2, training_plan=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedPer(3), "private of FedPer must be names of layers, or None, not 3"),
        (lambda: FedPer([]), "private of FedPer must be names"),
        (lambda: FedRep("a", 0), "head_steps of FedRep must be an integer of 1 or more, not 0"),
        (lambda: FedRep("a", 1, 0), "body_steps of FedRep must be an integer of 1 or more, not 0"),
        (lambda: PerFCL(0.0), "temperature of PerFCL must be a number of 1e-6 or more"),
        (lambda: PerFCL(local_weight=-1), "local_weight of PerFCL must be a number of 0 or more, not -1"),
    ],
)
def test_wrong_settings(make, said):
    with pytest.raises(FedbiomedAggregatorError, match=said):
        make()


def test_an_update_with_a_private_layer_is_refused():
    aggregator = FedPer("head")
    aggregator._layers = ("head",)
    aggregator.create_aggregator_args({"base": np.ones(1), "head": np.ones(1)}, ["x"])
    with pytest.raises(AggregationError, match=r"in excess \['head'\]"):
        aggregator.add("x", {"base": np.ones(1), "head": np.ones(1)}, 1)


def test_only_the_global_extractor_of_a_split_model_travels(made):
    experiment = made(aggregator=PerFCL(), training_plan_class=SplitPlan)
    experiment.run(rounds=2)
    assert sorted(shared(experiment, 1)) == ["global_extractor.bias", "global_extractor.weight"]


def test_only_what_should_have_come_is_missed_with_a_warning(made, caplog):
    experiment = made(aggregator=FedPer(private=["head"]))
    experiment.run(rounds=2)
    assert "were not given" not in caplog.text, "private layers never come"
    job, given = experiment.job(), shared(experiment, 1)
    del given["base.weight"]
    job.update_parameters(given)
    assert "1 parameters were not given and stay as they are: base.weight" in caplog.text
