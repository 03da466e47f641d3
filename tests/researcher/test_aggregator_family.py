"""What holds for every aggregator that is there."""

import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError
from fedbiomed.common.params import weighted_mean
from fedbiomed.common.plugins import load_class
from fedbiomed.researcher import aggregators
from fedbiomed.researcher.aggregators import Aggregator, ClientLevelDP, Scaffold
from tests.support.aggregators import CASES, begun, family, folded, measures, reply

START = {"w": np.array([0.0, 1.0]), "b": np.array(0.25)}
UPDATES = {
    "node_a": {"w": np.array([1.0, 2.0]), "b": np.array(0.5)},
    "node_b": {"w": np.array([3.0, 6.0]), "b": np.array(-0.5)},
    "node_c": {"w": np.array([2.5, 0.0]), "b": np.array(1.5)},
}
LATER = {
    "node_a": {"w": np.array([0.5, 2.5]), "b": np.array(0.1)},
    "node_b": {"w": np.array([2.0, 1.0]), "b": np.array(0.2)},
    "node_c": {"w": np.array([-1.0, 3.0]), "b": np.array(0.7)},
}
SAMPLES = {"node_a": 10, "node_b": 30, "node_c": 20}
BAD = {
    "NaN": ({"w": np.array([math.nan, 1.0]), "b": np.array(1.0)}, "'w' of node_x holds NaN"),
    "infinite": ({"w": np.array([1.0, 1.0]), "b": np.array(math.inf)}, "'b' of node_x holds NaN or infinite"),
    "missing name": ({"w": np.array([1.0, 1.0])}, r"node_x have other names than those of .*: missing \['b'\]"),
    "excess name": ({**UPDATES["node_a"], "c": np.array(1.0)}, r"node_x have other names than those of .* in excess \['c'\]"),
    "other shape": ({"w": np.ones(1), "b": np.array(1.0)}, r"'w' of node_x has shape \(1,\)"),
    "no numbers": ({"w": np.array(["a", "b"]), "b": np.array(1.0)}, "'w' of node_x .* not numbers"),
}


@pytest.fixture(params=CASES, ids=lambda c: c.__name__)
def case(request):
    return CASES[request.param]


@pytest.fixture
def aggregator(case):
    return case.make()


def as_bytes(params):
    return {name: np.asarray(value).tobytes() for name, value in params.items()}


def test_every_member_of_the_family_is_tested_here():
    assert set(CASES) == family()


def test_all_are_found_by_users_and_by_breakpoints():
    for found in CASES:
        assert getattr(aggregators, found.__name__) is found
        assert found.__name__ in aggregators.__all__
        assert load_class(aggregators, found.__module__, found.__name__, Aggregator) is found


def test_updates_that_are_what_was_sent_change_nothing(aggregator):
    result = folded(aggregator, START, dict.fromkeys(UPDATES, START), SAMPLES)
    assert result.keys() == START.keys()
    for name, value in START.items():
        assert np.allclose(result[name], value, rtol=1e-14)


def test_equal_updates_give_themselves_or_a_step_towards_them(case, aggregator):
    result = folded(aggregator, START, dict.fromkeys(UPDATES, UPDATES["node_a"]), SAMPLES)
    for name, value in UPDATES["node_a"].items():
        if case.is_mean:
            assert np.allclose(result[name], value, rtol=1e-14)
        else:
            assert np.array_equal(np.sign(result[name] - START[name]), np.sign(value - START[name]))


def test_streaming_gives_what_one_shot_gives(case):
    streamed, other = folded(case.make(), START, UPDATES, SAMPLES), case.make()
    begun(other, START, UPDATES)
    other.hear_measures(measures(UPDATES))
    at_once = other.aggregate(UPDATES, {node_id: count / 60 for node_id, count in SAMPLES.items()})
    for name in streamed:
        assert np.allclose(streamed[name], at_once[name], rtol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.make().takes_sums], ids=lambda kind: kind.__name__)
def test_a_mean_does_in_the_place_of_updates_where_sums_are_taken(kind):
    plain, summed = CASES[kind].make(), CASES[kind].make()
    weights = dict.fromkeys(UPDATES, 1) if kind in (Scaffold, ClientLevelDP) else SAMPLES
    total = sum(weights.values())
    summed.expect_sums(16.0)
    summed.begin(0)
    summed.check_values(n_updates=2, training_plan=None)
    small, _ = summed.create_aggregator_args(START, list(UPDATES))
    assert small.keys() == UPDATES.keys()
    controls = {f"sent/scaffold/control/{name}": np.zeros_like(value) for name, value in START.items()}
    summed.hear_sum(list(UPDATES), total, {"told/training_loss": 1.5, "told/within_clipping_bound": 1.0, **controls})
    summed.add("all", weighted_mean(list(UPDATES.values()), list(weights.values())), total)
    found = summed.finish()
    for name, value in folded(plain, START, UPDATES, weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)


def test_the_order_of_the_nodes_does_not_matter(case):
    one, other = case.make(), case.make()
    for round_, updates in enumerate((UPDATES, LATER)):
        forward = folded(one, START, updates, SAMPLES, round_=round_)
        backward = folded(other, START, dict(reversed(updates.items())), SAMPLES, round_=round_)
        for name in forward:
            assert np.allclose(forward[name], backward[name], rtol=1e-12, atol=1e-15)


def test_updates_and_what_was_sent_stay_untouched(aggregator):
    start = {name: value.copy() for name, value in START.items()}
    updates = {node_id: {name: value.copy() for name, value in params.items()} for node_id, params in UPDATES.items()}
    for value in (*start.values(), *(value for params in updates.values() for value in params.values())):
        value.flags.writeable = False
    result = folded(aggregator, start, updates)
    result["w"][:] = -1
    assert np.array_equal(start["w"], START["w"])
    assert all(np.array_equal(updates[node_id]["w"], UPDATES[node_id]["w"]) for node_id in UPDATES)


def test_no_update_stays_in_memory(aggregator):
    begun(aggregator, START, UPDATES)
    alive = []
    for node_id, params in UPDATES.items():
        update = {name: value.copy() for name, value in params.items()}
        alive += [weakref.ref(value) for value in update.values()]
        aggregator.add(node_id, update, 1)
        del update
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []


@pytest.mark.parametrize("bad", BAD)
def test_an_update_that_is_refused_is_named_and_leaves_no_trace(case, bad):
    if bad == "missing name" and case.takes_parts:
        return
    params, message = BAD[bad]
    expected = folded(case.make(), START, UPDATES, SAMPLES)
    aggregator = case.make()
    begun(aggregator, START, [*UPDATES, "node_x"])
    for node_id, update in UPDATES.items():
        aggregator.add(node_id, update, SAMPLES[node_id])
    with pytest.raises(AggregationError, match=message):
        aggregator.add("node_x", params, 5)
    aggregator.hear_measures(measures(UPDATES))
    assert as_bytes(aggregator.finish()) == as_bytes(expected)


def test_values_of_a_node_that_counts_by_0_do_not_matter(case):
    expected = folded(case.make(), START, UPDATES, SAMPLES)
    broken = {"node_0": {"w": np.array([math.nan, math.inf]), "b": np.array(math.nan)}}
    for updates in (broken | UPDATES, UPDATES | broken):
        result = folded(case.make(), START, updates, SAMPLES | {"node_0": 0})
        assert np.allclose(result["w"], expected["w"], rtol=1e-12)


def test_there_is_nothing_to_finish_without_updates_or_weights(aggregator):
    with pytest.raises(FedbiomedAggregatorError, match="sum to 0"):
        folded(aggregator, START, {})
    with pytest.raises(FedbiomedAggregatorError, match="sum to 0") as caught:
        folded(aggregator, START, UPDATES, dict.fromkeys(UPDATES, 0))
    assert "node_a" in str(caught.value)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_is_a_number_of_0_or_more(aggregator, weight):
    begun(aggregator, START, UPDATES)
    with pytest.raises(AggregationError, match="weight of node_a must be a number of 0 or more"):
        aggregator.add("node_a", UPDATES["node_a"], weight)


def test_a_node_counts_once(aggregator):
    begun(aggregator, START, UPDATES)
    aggregator.add("node_a", UPDATES["node_a"], 1)
    with pytest.raises(AggregationError, match="node_a came twice"):
        aggregator.add("node_a", UPDATES["node_a"], 1)


def test_names_beside_shares_are_checked(aggregator):
    with pytest.raises(AggregationError, match=r"updates of \['node_a', 'node_b', 'node_c'\], but weights of \['node_a'\]"):
        aggregator.aggregate(UPDATES, {"node_a": 1.0})


def test_a_round_that_was_broken_off_is_forgotten(case):
    aggregator = case.make()
    begun(aggregator, START, UPDATES)
    aggregator.add("node_a", LATER["node_a"], 5)
    assert as_bytes(folded(aggregator, START, UPDATES, SAMPLES)) == as_bytes(folded(case.make(), START, UPDATES, SAMPLES))


def test_a_round_that_fails_leaves_it_as_it_was(case):
    aggregator, unbroken = case.make(), case.make()
    for one in (aggregator, unbroken):
        folded(one, START, UPDATES, SAMPLES)

    def broken_off():
        with aggregator.undone_on_failure():
            folded(aggregator, START, LATER, round_=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert as_bytes(folded(aggregator, START, LATER, round_=1)) == as_bytes(folded(unbroken, START, LATER, round_=1))


def test_it_goes_on_from_a_breakpoint_bit_by_bit(case, tmp_path):
    unbroken = case.make()
    folded(unbroken, START, UPDATES, SAMPLES)
    state = json.loads(json.dumps(unbroken.save_state_breakpoint(tmp_path)))
    assert (state["class"], state["module"]) == (type(unbroken).__name__, type(unbroken).__module__)
    resumed = type(unbroken)()
    resumed.load_state_breakpoint(state)
    for round_, updates in enumerate((LATER, UPDATES), 1):
        expected = folded(unbroken, START, updates, SAMPLES, round_=round_)
        assert as_bytes(folded(resumed, START, updates, SAMPLES, round_=round_)) == as_bytes(expected)


def test_it_takes_no_state_of_another(aggregator, tmp_path):
    state = aggregator.save_state_breakpoint(tmp_path)
    with pytest.raises(FedbiomedBreakpointError, match="state of a 'Other' cannot be given"):
        aggregator.load_state_breakpoint(state | {"class": "Other"})


def test_a_state_whose_settings_or_file_were_spoiled_is_refused(case, tmp_path):
    aggregator = case.make()
    folded(aggregator, START, UPDATES, SAMPLES)
    state = aggregator.save_state_breakpoint(tmp_path)
    parameters = state["parameters"]
    spoiled = [{**parameters, "settings": {"nonsense": 1}}, {**parameters, "settings": None}] if "settings" in parameters else []
    if "state_filename" in parameters:
        spoiled.append({**parameters, "state_filename": str(tmp_path / "nowhere.mpk")})
    for wrong in spoiled:
        with pytest.raises(FedbiomedBreakpointError):
            aggregator.load_state_breakpoint({**state, "parameters": wrong})
    aggregator.load_state_breakpoint(state)


def test_every_node_gets_arguments(aggregator):
    small, large = aggregator.create_aggregator_args(START, ["node_a", "node_b"])
    assert {node: args["aggregator_name"] for node, args in small.items()} == dict.fromkeys(
        ("node_a", "node_b"), aggregator.aggregator_name
    )
    assert large.keys() == {"node_a", "node_b"}
    json.dumps(small)


def test_it_is_told_of_the_experiment(aggregator):
    data = object()
    assert aggregator.set_fds(data) is data
    assert aggregator.set_training_plan_type(TrainingPlans.TorchTrainingPlan) is TrainingPlans.TorchTrainingPlan
    assert aggregator.check_values(n_updates=3, training_plan=None)


def test_counters_and_masks_become_floats_and_halves_do_not_overflow(aggregator):
    start = {"w": torch.full((2,), 50000.0, dtype=torch.float16), "steps": torch.tensor(0), "mask": torch.tensor([False, True])}
    updates = {
        f"node_{i}": {
            "w": torch.full((2,), 60000.0, dtype=torch.float16),
            "steps": torch.tensor(30),
            "mask": torch.tensor([True, True]),
        }
        for i in range(3)
    }
    begun(aggregator, start, updates)
    for node_id, update in updates.items():
        aggregator.hear(node_id, reply({"w": 0}))
        aggregator.add(node_id, update, 1000)
    aggregator.hear_measures(measures(updates))
    result = aggregator.finish()
    assert (result["w"].dtype, result["steps"].dtype, result["mask"].dtype) == (torch.float16, torch.float32, torch.float32)
    assert torch.isfinite(result["w"]).all()
    assert result["steps"].item() == 30.0
    assert result["mask"].tolist() == [1.0, 1.0]
