"""Scaffold's controls, by hand; what it needs; its files."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import FedSGDRegressor, TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedAverage, Scaffold, scaffold
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.responses import Responses

ALL = FederatedDataSet({"a": {"shape": [1, 1]}, "b": {"shape": [3, 1]}})


def tensors(**values):
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}


def numbers(params):
    return {name: value.item() for name, value in params.items()}


def replied(aggregator, sent, updates, *, rates, n_updates=2, round_=0, weights=None):
    """One round with these updates."""
    aggregator.begin(round_)
    aggregator.check_values(n_updates=n_updates, training_plan=None)
    aggregator.create_aggregator_args(sent, list(updates))
    for node_id, params in updates.items():
        aggregator.hear(node_id, {"optimizer_args": {"lr": rates}})
        aggregator.add(node_id, params, (weights or {}).get(node_id, 1))
    return aggregator.finish()


class Line(TorchTrainingPlan):
    """y = ax + b."""

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def init_optimizer(self, optimizer_args):
        kind = getattr(torch.optim, optimizer_args.pop("kind", "SGD"))
        return kind(self.model().parameters(), **{"lr": 0.1, **optimizer_args})

    def training_data(self):
        return DataManager(np.ones((4, 1)), np.ones((4, 1)))

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


def built(plan_class=Line, model_args=None, **optimizer_args):
    plan = plan_class()
    plan.post_init(model_args or {}, TrainingArgs({"num_updates": 2, "optimizer_args": optimizer_args}, only_required=False))
    return plan


# --- the numbers


def test_two_rounds_by_hand_the_second_with_one_node_of_two():
    aggregator = Scaffold(server_lr=0.5, fds=ALL)
    # rates 0.1, K = 2, x = 1; y_a = 1.38, y_b = 0.81
    #   c_a = (1 - 1.38) / 0.2 = -1.9; c_b = 0.19 / 0.2 = 0.95; c = -0.475; delta = -1.425 and 1.425
    #   x = 1 - 0.5 / 2 * (-0.38 + 0.19) = 1.0475
    found = replied(aggregator, tensors(w=1.0), {"a": tensors(w=1.38), "b": tensors(w=0.81)}, rates={"w": 0.1})
    assert numbers(found) == {"w": pytest.approx(1.0475)}
    assert numbers(aggregator.nodes_states["a"]) == {"w": pytest.approx(-1.9)}
    assert numbers(aggregator.nodes_states["b"]) == {"w": pytest.approx(0.95)}
    assert numbers(aggregator.global_state) == {"w": pytest.approx(-0.475)}
    assert numbers(aggregator.nodes_deltas["a"]) == {"w": pytest.approx(-1.425)}
    assert numbers(aggregator.nodes_deltas["b"]) == {"w": pytest.approx(1.425)}
    assert aggregator.nodes_lr == {"a": {"w": 0.1}, "b": {"w": 0.1}}
    # x = 1.0475; y_a = 1.147725, a alone
    #   c_a = -1.425 + (1.0475 - 1.147725) / 0.2 = -1.926125; c_b stays 0.95; c = -0.4880625, over both
    #   x = 1.0475 - 0.5 * (1.0475 - 1.147725) = 1.0976125
    found = replied(aggregator, tensors(w=1.0475), {"a": tensors(w=1.147725)}, rates={"w": 0.1}, round_=1)
    assert numbers(found) == {"w": pytest.approx(1.0976125)}
    assert numbers(aggregator.nodes_states["a"]) == {"w": pytest.approx(-1.926125)}
    assert numbers(aggregator.nodes_states["b"]) == {"w": pytest.approx(0.95)}
    assert numbers(aggregator.global_state) == {"w": pytest.approx(-0.4880625)}
    assert numbers(aggregator.nodes_deltas["a"]) == {"w": pytest.approx(-1.4380625)}
    assert numbers(aggregator.nodes_deltas["b"]) == {"w": pytest.approx(1.4380625)}


def test_a_warm_start_by_hand(tmp_path):
    # losses (w - 0)^2 / 2 on a and 4 (w - 10)^2 / 2 on b, at w = 2: gradients 2 and -32; one step of rate 0.1: 1.8 and 5.2
    aggregator, rates = Scaffold(fds=ALL, warm_start=True), {"w": 0.1}
    first = replied(aggregator, tensors(w=2.0), {"a": tensors(w=1.8), "b": tensors(w=5.2)}, rates=rates, n_updates=1)
    assert numbers(first) == {"w": 2.0}, "the pass for the gradients moves nothing"
    assert numbers(aggregator.nodes_states["a"]) == {"w": pytest.approx(2.0)}
    assert numbers(aggregator.nodes_states["b"]) == {"w": pytest.approx(-32.0)}
    assert numbers(aggregator.global_state) == {"w": pytest.approx(-15.0)}
    assert numbers(aggregator.nodes_deltas["a"]) == {"w": pytest.approx(17.0)}
    # each node steps by 0.1 (g - delta): both by 1.5, so 3.5 is the mean, from now on it moves
    resumed = Scaffold()
    resumed.load_state_breakpoint(json.loads(json.dumps(aggregator.save_state_breakpoint(tmp_path))))
    second = replied(resumed, tensors(w=2.0), {"a": tensors(w=3.5), "b": tensors(w=3.5)}, rates=rates, n_updates=1)
    assert numbers(second) == {"w": pytest.approx(3.5)}


def test_a_node_that_misses_the_warm_start_begins_with_no_correction():
    aggregator = Scaffold(fds=ALL, warm_start=True)
    replied(aggregator, tensors(w=2.0), {"a": tensors(w=1.8)}, rates={"w": 0.1}, n_updates=1)
    assert numbers(aggregator.nodes_states["b"]) == {"w": pytest.approx(2.0)}
    assert numbers(aggregator.nodes_deltas["b"]) == {"w": pytest.approx(0.0)}
    assert numbers(aggregator.global_state) == {"w": pytest.approx(2.0)}


def test_each_layer_counts_by_its_own_rate():
    # K = 5: c = (1 - 0) / (0.5 * 5) = 0.4, and 1 / (0.01 * 5) = 20
    aggregator = Scaffold()
    replied(aggregator, tensors(v=1.0, w=1.0), {"a": tensors(v=0.0, w=0.0)}, rates={"v": 0.5, "w": 0.01}, n_updates=5)
    assert numbers(aggregator.nodes_states["a"]) == {"v": pytest.approx(0.4), "w": pytest.approx(20.0)}


def test_a_rate_of_zero_moves_nothing():
    aggregator = Scaffold()
    replied(aggregator, tensors(v=1.0, w=1.0), {"a": tensors(v=1.0, w=0.0)}, rates={"v": 0.0, "w": 0.5})
    assert numbers(aggregator.nodes_states["a"]) == {"v": 0.0, "w": pytest.approx(1.0)}


def test_nodes_that_never_took_part_count_in_the_mean_of_the_controls():
    # c_a = (1 - 0) / (0.5 * 2) = 1; c_b = 0; c = 0.5
    aggregator = Scaffold(fds=ALL)
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0)}, rates=0.5)
    assert numbers(aggregator.global_state) == {"w": pytest.approx(0.5)}
    assert numbers(aggregator.nodes_deltas["b"]) == {"w": pytest.approx(-0.5)}


def test_by_samples_where_that_is_asked():
    # mean of y: (1 * 0 + 3 * 1) / 4 = 0.75; c_a = (2 - 0) / 1 = 2, c_b = (2 - 1) / 1 = 1; c = (2 + 3 * 1) / 4 = 1.25
    aggregator = Scaffold(weighted=True)
    updates = {"a": tensors(w=0.0), "b": tensors(w=1.0)}
    found = replied(aggregator, tensors(w=2.0), updates, rates=0.5, weights={"a": 1, "b": 3})
    assert numbers(found) == {"w": pytest.approx(0.75)}
    assert numbers(aggregator.global_state) == {"w": pytest.approx(1.25)}


def test_a_stranger_counts_by_samples_like_the_mean_of_the_others():
    # a: 3 samples, c_a = 1; b unknown, so 3 too, and c_b = 0
    aggregator = Scaffold(fds=ALL, weighted=True)
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0)}, rates=0.5, weights={"a": 3})
    assert numbers(aggregator.global_state) == {"w": pytest.approx(0.5)}


def test_an_update_that_counts_nothing_changes_no_control():
    aggregator = Scaffold(fds=ALL)
    found = replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0), "b": tensors(w=5.0)}, rates=0.5, weights={"b": 0})
    assert numbers(found) == {"w": 0.0}
    assert numbers(aggregator.nodes_states["b"]) == {"w": 0.0}


def test_the_first_round_is_that_of_federated_averaging_to_the_bit():
    generator = torch.Generator().manual_seed(3)
    updates = {name: {"w": torch.randn(50, generator=generator)} for name in ("a", "b", "c")}
    weights = {"a": 20, "b": 7, "c": 1}
    shares = {name: weight / 28 for name, weight in weights.items()}
    found = replied(Scaffold(weighted=True), {"w": torch.randn(50, generator=generator)}, updates, rates=0.1, weights=weights)
    average = FedAverage()
    average.begin(0)
    for name, params in updates.items():
        average.add(name, params, weights[name])
    assert torch.equal(found["w"], average.finish()["w"])
    assert torch.allclose(found["w"], FedAverage().aggregate(updates, shares)["w"])
    even = replied(Scaffold(), {"w": torch.randn(50, generator=generator)}, updates, rates=0.1, weights=weights)
    assert torch.allclose(even["w"], FedAverage().aggregate(updates, dict.fromkeys(updates, 1 / 3))["w"])


def test_what_is_no_parameter_is_averaged_and_not_corrected():
    plan = built()
    sent = plan.get_model_params()
    aggregator = Scaffold(server_lr=0.5)
    aggregator.begin(0)
    aggregator.check_values(n_updates=2, training_plan=plan)
    _, large = aggregator.create_aggregator_args(sent, ["a"])
    assert set(large["a"]["aggregator_correction"]) == set(plan.get_model_params(only_trainable=True))
    moved = {name: value + 2 for name, value in sent.items()}
    aggregator.hear("a", {"optimizer_args": {"lr": dict.fromkeys(plan.get_model_params(only_trainable=True), 0.1)}})
    aggregator.add("a", moved, 1)
    found = aggregator.finish()
    assert torch.allclose(found["0.weight"], sent["0.weight"] + 1)  # half the step
    assert torch.equal(found["1.running_mean"], sent["1.running_mean"] + 2)
    assert found["1.num_batches_tracked"].item() == 2
    assert set(aggregator.global_state) == set(plan.get_model_params(only_trainable=True))


def test_one_shot_with_all_that_it_takes():
    one, other = Scaffold(server_lr=0.5), Scaffold(server_lr=0.5)
    updates = {"a": tensors(w=1.38), "b": tensors(w=0.81)}
    expected = replied(one, tensors(w=1.0), updates, rates=0.1)
    replies = Responses([{"node_id": name, "optimizer_args": {"lr": {"w": 0.1}}} for name in updates])
    found = other.aggregate(updates, {"a": 0.5, "b": 0.5}, tensors(w=1.0), None, {0: replies}, n_updates=2, n_round=0)
    assert numbers(found) == numbers(expected)
    assert numbers(other.nodes_deltas["a"]) == numbers(one.nodes_deltas["a"])
    with pytest.raises(AggregationError, match=r"updates of \['a', 'b'\], but weights of \['a'\]"):
        other.aggregate(updates, {"a": 1.0})


# --- nodes and models that change


def test_a_node_that_joins_gets_a_control_of_zero():
    aggregator = Scaffold()
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0)}, rates=0.5)
    _, large = aggregator.create_aggregator_args(tensors(w=0.0), ["a", "b"])
    # c_a = 1, c_b = 0: c = 0.5
    assert numbers(large["a"]["aggregator_correction"]) == {"w": pytest.approx(0.5)}
    assert numbers(large["b"]["aggregator_correction"]) == {"w": pytest.approx(-0.5)}


def test_a_node_that_leaves_does_not_count_and_may_come_back():
    aggregator = Scaffold(fds=ALL)
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0), "b": tensors(w=-1.0)}, rates=0.5)
    aggregator.set_fds(FederatedDataSet({"a": {"shape": [1, 1]}}))
    aggregator.create_aggregator_args(tensors(w=0.0), ["a"])
    assert numbers(aggregator.global_state) == {"w": pytest.approx(1.0)}  # c_a alone
    assert set(aggregator.nodes_deltas) == {"a"}
    aggregator.set_fds(ALL)
    aggregator.create_aggregator_args(tensors(w=0.0), ["a"])
    assert numbers(aggregator.global_state) == {"w": pytest.approx(1.5)}  # c_b = 2


def test_another_model_begins_again_and_that_is_said(caplog):
    aggregator = Scaffold()
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0)}, rates=0.5)
    _, large = aggregator.create_aggregator_args({"w": torch.ones(3)}, ["a"])
    assert large["a"]["aggregator_correction"]["w"].tolist() == [0.0] * 3
    assert "another one" in caplog.text


def test_asking_for_arguments_changes_nothing():
    aggregator = Scaffold()
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.0), "b": tensors(w=3.0)}, rates=0.5)
    first = aggregator.create_aggregator_args(tensors(w=0.0), ["a", "b"])
    first[1]["a"]["aggregator_correction"].clear()
    second = aggregator.create_aggregator_args(tensors(w=0.0), ["b", "a"])
    assert numbers(second[1]["a"]["aggregator_correction"]) == {"w": pytest.approx(1.5)}
    assert second[0] == {name: {"aggregator_name": "Scaffold"} for name in ("a", "b")}


# --- what it needs


def test_paths_and_names():
    assert scaffold.Scaffold is Scaffold
    assert Scaffold().aggregator_name == "Scaffold"
    assert (Scaffold().server_lr, Scaffold(0.8).server_lr) == (1.0, 0.8)
    assert (Scaffold().global_state, Scaffold().nodes_states, Scaffold().nodes_deltas, Scaffold().nodes_lr) == ({}, {}, {}, {})


@pytest.mark.parametrize("wrong", [0, 0.0, math.nan, math.inf, "1", None, True])
def test_server_lr_is_a_number_other_than_0(wrong):
    with pytest.raises(FedbiomedAggregatorError, match="server_lr of Scaffold must be a number other than 0"):
        Scaffold(server_lr=wrong)


@pytest.mark.parametrize("wrong", [None, 0, -1, 1.5, "2", True])
def test_num_updates_are_needed(wrong):
    with pytest.raises(FedbiomedAggregatorError, match="num_updates, an integer of 1 or more"):
        Scaffold().check_values(n_updates=wrong, training_plan=built())


def test_a_plan_on_torch_is_needed():
    plan = type("Plan", (FedSGDRegressor,), {"training_data": lambda self: None})
    with pytest.raises(FedbiomedAggregatorError, match="torch plans only"):
        Scaffold().check_values(n_updates=2, training_plan=built(plan, {"n_features": 1}))
    told = Scaffold()
    told.set_training_plan_type(TrainingPlans.SkLearnTrainingPlan)
    with pytest.raises(FedbiomedAggregatorError, match="torch plans only"):
        told.check_values(n_updates=2)


def test_an_optimizer_of_torch_is_needed():
    class Other(Line):
        def optimizer(self):
            return object()

    with pytest.raises(FedbiomedAggregatorError, match="optimizers of torch only, that of this plan is a object"):
        Scaffold().check_values(n_updates=2, training_plan=built(Other))


@pytest.mark.parametrize(
    ("args", "said"), [({}, ""), ({"kind": "Adam"}, "with Adam its controls"), ({"momentum": 0.9}, "without momentum")], ids=str
)
def test_another_optimizer_than_plain_gradient_descent_is_said_once(args, said, caplog):
    aggregator, plan = Scaffold(), built(**args)
    with caplog.at_level(logging.WARNING):
        assert aggregator.check_values(n_updates=2, training_plan=plan)
        assert aggregator.check_values(n_updates=2, training_plan=plan)
    assert len(caplog.records) == (1 if said else 0)
    assert said in caplog.text


@pytest.mark.parametrize(
    "told", [None, {}, {"lr": None}, {"lr": "0.1"}, {"lr": {}}, {"lr": {"w": -1}}, {"lr": {"w": math.nan}}, {"lr": [0.1]}, 3], ids=str
)
def test_a_reply_without_rates_is_refused(told):
    aggregator = Scaffold()
    aggregator.create_aggregator_args(tensors(w=1.0), ["a"])
    with pytest.raises(AggregationError, match="a does not tell its learning rates"):
        aggregator.hear("a", {"optimizer_args": told})
    assert aggregator.nodes_lr == {}


@pytest.mark.parametrize("missing", ["check_values", "create_aggregator_args", "hear"])
def test_what_it_was_not_told_is_named(missing):
    aggregator = Scaffold()
    aggregator.begin(0)
    if missing != "check_values":
        aggregator.check_values(n_updates=2)
    if missing != "create_aggregator_args":
        aggregator.create_aggregator_args(tensors(w=1.0), ["a"])
    if missing != "hear":
        aggregator.hear("a", {"optimizer_args": {"lr": {"w": 0.1}}})
    with pytest.raises(AggregationError, match=missing):
        aggregator.add("a", tensors(w=0.0), 1)


@pytest.mark.parametrize(
    ("update", "said"),
    [({"w": torch.ones(2)}, "'w' of a has shape"), ({"w": torch.tensor([math.nan])}, "NaN"), ({"w": "text"}, "not numbers")],
    ids=str,
)
def test_an_update_that_does_not_fit_changes_nothing(update, said):
    aggregator = Scaffold()
    aggregator.check_values(n_updates=2)
    aggregator.create_aggregator_args(tensors(w=1.0), ["a", "b"])
    aggregator.begin(0)
    for node_id in ("a", "b"):
        aggregator.hear(node_id, {"optimizer_args": {"lr": 0.5}})
    with pytest.raises(AggregationError, match=said):
        aggregator.add("a", update, 1)
    aggregator.add("b", tensors(w=0.0), 1)
    assert numbers(aggregator.finish()) == {"w": 0.0}
    assert numbers(aggregator.nodes_states["a"]) == {"w": 0.0}


# --- its files


@pytest.fixture
def used():
    aggregator = Scaffold(server_lr=0.7, fds=ALL, weighted=True)
    replied(aggregator, tensors(w=1.0), {"a": tensors(w=0.3), "b": tensors(w=0.1)}, rates={"w": 0.3}, weights={"a": 1, "b": 3})
    return aggregator


def test_its_state_lies_in_files(used, tmp_path):
    state = used.save_state_breakpoint(tmp_path, global_model={})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:2] == ["aggregator_correction_a.mpk", "aggregator_correction_b.mpk"]
    assert names[2].startswith("global_state_")
    assert len(names) == 3
    assert (state["class"], state["module"]) == ("Scaffold", "fedbiomed.researcher.aggregators.scaffold")
    fresh = Scaffold()
    fresh.load_state_breakpoint(json.loads(json.dumps(state)))
    fresh.set_fds(ALL)
    assert (fresh.server_lr, fresh.weighted, fresh.nodes_lr) == (0.7, True, used.nodes_lr)
    for one, other in ((fresh.nodes_states, used.nodes_states), (fresh.nodes_deltas, used.nodes_deltas)):
        assert {name: numbers(params) for name, params in one.items()} == {name: numbers(params) for name, params in other.items()}
    second = {"a": tensors(w=0.2)}
    expected = replied(used, tensors(w=0.15), second, rates={"w": 0.3}, round_=1, weights={"a": 1})
    assert numbers(replied(fresh, tensors(w=0.15), second, rates={"w": 0.3}, round_=1, weights={"a": 1})) == numbers(expected)
    assert numbers(fresh.global_state) == numbers(used.global_state)


def test_a_broken_state_is_refused_and_changes_nothing(used, tmp_path):
    state = used.save_state_breakpoint(tmp_path)
    fresh = Scaffold(server_lr=3.0)
    (tmp_path / "aggregator_correction_b.mpk").unlink()
    with pytest.raises(FedbiomedBreakpointError, match="aggregator_correction_b"):
        fresh.load_state_breakpoint(state)
    (tmp_path / "aggregator_correction_b.mpk").write_bytes(b"other")
    with pytest.raises(FedbiomedBreakpointError, match="aggregator_correction_b"):
        fresh.load_state_breakpoint(state)
    for parameters in (None, {}, {"aggregator_correction_filename": {}}):
        with pytest.raises(FedbiomedBreakpointError):
            fresh.load_state_breakpoint({**state, "parameters": parameters})
    assert (fresh.server_lr, fresh.nodes_states) == (3.0, {})
    with pytest.raises(FedbiomedBreakpointError, match="folder"):
        used.save_state_breakpoint()


def test_an_id_that_is_no_file_name_writes_nothing(tmp_path):
    aggregator = Scaffold()
    aggregator.create_aggregator_args(tensors(w=1.0), ["../other"])
    (tmp_path / "in").mkdir()
    with pytest.raises(FedbiomedBreakpointError, match="not the id of a node"):
        aggregator.save_state_breakpoint(tmp_path / "in")
    assert not list(tmp_path.glob("**/*.mpk"))
