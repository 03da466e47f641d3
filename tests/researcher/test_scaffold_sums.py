"""Scaffold where only sums are known: c by hand, who begins with which control, breakpoints; and the node that keeps its own."""

import logging

import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedTrainingPlanError
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.optimizers.native import NativeTorchOptimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Tools
from fedbiomed.common.training_plans.corrections.scaffold import OwnControl, correction
from fedbiomed.researcher.aggregators import Scaffold
from fedbiomed.researcher.datasets import FederatedDataSet


def of(*nodes):
    return FederatedDataSet({node: {"shape": [1, 1]} for node in nodes})


def tensor(value):
    return torch.tensor([float(value)], dtype=torch.float64)


def summed(aggregator, nodes, change, *, weight=None, mean=1.0, asked=None):
    """One round over these nodes; returns with which control each that was asked began, and the next parameter."""
    weight = len(nodes) if weight is None else weight
    aggregator.expect_sums(16.0)
    aggregator.begin(0)
    aggregator.check_values(n_updates=2, training_plan=None)
    small, large = aggregator.create_aggregator_args({"w": tensor(0)}, asked or nodes)
    assert {args["shared_control"]["w"].item() for args in large.values()} == {aggregator.global_state["w"].item()}
    assert all(("own_control" in large[node]) == (small[node]["control"] == "start") for node in small)
    aggregator.hear_sum(nodes, weight, {"sent/scaffold/control/w": tensor(change).numpy()})
    aggregator.add("all", {"w": tensor(mean)}, weight)
    params = aggregator.finish()
    return {node: args["control"] for node, args in small.items()}, params["w"].item()


def test_c_is_the_mean_of_all_controls():
    aggregator = Scaffold(server_lr=0.5, fds=of("a", "b", "c"))
    assert summed(aggregator, ["a", "b"], 3.0, asked=["a", "b", "c"]) == ({"a": "zero", "b": "zero", "c": "zero"}, 0.5)
    assert aggregator.global_state["w"].item() == pytest.approx(2.0)  # (2 * 3 + 0) / 3
    begins, _ = summed(aggregator, ["b", "c"], 1.5, asked=["a", "b", "c"])
    assert begins == {"a": "kept", "b": "kept", "c": "zero"}
    assert aggregator.global_state["w"].item() == pytest.approx(3.0)  # 2 + 2 * 1.5 / 3
    aggregator.set_fds(of("a", "b", "c", "d"))  # a new node has a control of zero
    begins, _ = summed(aggregator, ["a", "d"], 2.0)
    assert begins == {"a": "kept", "d": "zero"}
    assert aggregator.global_state["w"].item() == pytest.approx(3.0 * 3 / 4 + 2 * 2.0 / 4)


def test_a_node_that_leaves_begins_all_controls_anew(caplog):
    aggregator = Scaffold(fds=of("a", "b", "c"))
    summed(aggregator, ["a", "b"], 3.0)
    aggregator.set_fds(of("a", "b"))  # which c never was in
    assert summed(aggregator, ["a", "b"], 0.0)[0] == {"a": "kept", "b": "kept"}
    assert "begin at zero" not in caplog.text
    assert aggregator.global_state["w"].item() == pytest.approx(3.0)  # 2 * 3 / 2
    aggregator.set_fds(of("b", "c"))
    assert summed(aggregator, ["b", "c"], 4.0)[0] == {"b": "zero", "c": "zero"}
    assert "a keeps its control of Scaffold, and is no node of this data set any more" in caplog.text
    assert aggregator.global_state["w"].item() == pytest.approx(4.0)


def test_weights_that_are_told_by_their_sums():
    # a and b weigh 4 together, so c is taken to weigh 2; then all three weigh 10: c weighs 6
    aggregator = Scaffold(fds=of("a", "b", "c"), weighted=True)
    summed(aggregator, ["a", "b"], 3.0, weight=4)
    assert aggregator.global_state["w"].item() == pytest.approx(4 * 3.0 / 6)
    summed(aggregator, ["a", "b", "c"], 1.0, weight=10)
    assert aggregator.global_state["w"].item() == pytest.approx((4 * 3.0 + 10 * 1.0) / 10)
    summed(aggregator, ["c"], 2.0, weight=6)
    assert aggregator.global_state["w"].item() == pytest.approx((4 * 3.0 + 10 * 1.0 + 6 * 2.0) / 10)


def test_a_warm_start_of_nodes_that_weigh_more_than_was_thought():
    # c begins with the mean control 3 of a and b; then it turns out to weigh 6
    aggregator = Scaffold(fds=of("a", "b", "c"), weighted=True, warm_start=True)
    assert summed(aggregator, ["a", "b"], 3.0, weight=4, mean=5.0)[1] == 0.0  # x stays
    assert aggregator.global_state["w"].item() == 3.0
    begins, moved = summed(aggregator, ["a", "b", "c"], 1.0, weight=10, mean=5.0)
    assert begins == {"a": "kept", "b": "kept", "c": "start"}
    assert moved == 5.0
    assert aggregator.global_state["w"].item() == pytest.approx((4 * 3.0 + 6 * 3.0 + 10 * 1.0) / 10)


def test_it_goes_on_from_a_breakpoint(tmp_path):
    aggregator = Scaffold(fds=of("a", "b", "c", "d"), warm_start=True)
    summed(aggregator, ["a", "b"], 3.0)
    saved = aggregator.save_state_breakpoint(tmp_path)
    other = Scaffold(fds=of("a", "b", "c", "d"))
    other.load_state_breakpoint(saved)
    for one in (aggregator, other):
        assert summed(one, ["b", "c"], 1.0)[0] == {"b": "kept", "c": "start"}
    assert aggregator.global_state["w"].item() == other.global_state["w"].item() == pytest.approx(3.5)
    for wrong in ({}, {"everyone": 3}, {**saved["parameters"]["held"], "control_starts_filename": str(tmp_path / "none.mpk")}):
        with pytest.raises(FedbiomedBreakpointError, match="knows of the nodes' controls"):
            other.load_state_breakpoint({**saved, "parameters": {**saved["parameters"], "held": wrong}})


def test_without_sums_controls_begin_anew(caplog):
    caplog.set_level(logging.WARNING)
    aggregator = Scaffold(fds=of("a", "b"))
    summed(aggregator, ["a", "b"], 3.0)
    aggregator.expect_sums(None)
    _, large = aggregator.create_aggregator_args({"w": tensor(0)}, ["a", "b"])
    assert {args["aggregator_correction"]["w"].item() for args in large.values()} == {0.0}
    assert "begin at zero again" in caplog.text


def half(**told):
    args = {"aggregator_name": "Scaffold", "control": "zero", "num_updates": 2, "aux_range": 16.0, "shared_control": {"weight": tensor(1)}}
    return correction(TrainingArgs({}, only_required=False), {**args, **told})


def played(made, *, rate=0.5, to=0.25):
    """A training that goes from 1 to another parameter; gives the correction of its steps."""
    module = nn.Module()
    module.weight = nn.Parameter(tensor(1))
    optimizer = NativeTorchOptimizer(TorchModel(module), torch.optim.SGD(module.parameters(), lr=rate))
    made.arriving({"weight": tensor(1)})
    made.use(Tools(loss_of=lambda *_: torch.zeros(()), new_optimizer=lambda: optimizer, hook=lambda _: None, optimizer=optimizer))
    made.begin(module, {})
    made.correct_gradients()
    made.end()
    made.leaving({"weight": tensor(to)})
    return -module.weight.grad.item()


def test_a_node_keeps_its_control_and_sends_the_change():
    # c = 1; round 0 from c_i = 0: delta = -1, c_i' = -1 + (1 - 0.25) / (0.5 * 2) = -0.25
    first = half()
    assert isinstance(first, OwnControl)
    assert played(first) == pytest.approx(-1.0)
    assert first.kept()["control"]["weight"].item() == pytest.approx(-0.25)
    assert first.sends([])["control"]["weight"].item() == pytest.approx(-0.25)
    # round 1, c_i = -0.25: delta = -1.25, c_i' = -1.25 + 0.75 = -0.5, so it changes by -0.25, of which 0.125 is summed and kept
    second = half(control="kept", aux_range=0.125)
    second.take_kept(first.kept())
    assert played(second) == pytest.approx(-1.25)
    assert second.sends([])["control"]["weight"].item() == pytest.approx(-0.25)
    assert second.kept()["control"]["weight"].item() == pytest.approx(-0.375)
    third = half(control="start", own_control={"weight": tensor(3)})
    assert played(third) == pytest.approx(2.0)
    still = half()
    played(still, rate=0.0)  # a parameter that does not move tells nothing
    assert still.kept()["control"]["weight"].item() == still.sends([])["control"]["weight"].item() == 0.0


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"control": "mine"}, "must send 'control', kept or start or zero"),
        ({"num_updates": 0}, "num_updates"),
        ({"aux_range": None}, "aux_range"),
        ({"control": "kept"}, "keeps no control of Scaffold"),
        ({"control": "start"}, "keeps no control of Scaffold"),
        ({"shared_control": None}, "none came"),
        ({"shared_control": {"other": tensor(1)}}, "lack the parameter 'weight'"),
    ],
)
def test_what_a_node_needs_is_said(told, said):
    with pytest.raises(FedbiomedTrainingPlanError, match=said):
        played(half(**told))
