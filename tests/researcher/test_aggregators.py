"""One suite for all aggregators that are there, and the numbers of federated averaging."""

import importlib
import inspect
import json
import math
import tracemalloc

import numpy as np
import pytest
import torch

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError
from fedbiomed.common.plugins import load_class, member_names
from fedbiomed.researcher import aggregators
from fedbiomed.researcher.aggregators import Aggregator, FedAverage, Scaffold, federated_averaging, initialize, weighted_sum


class FedMedian(Aggregator):
    """As a user would write one: nothing but `aggregate`."""

    def aggregate(self, model_params, weights, *args, **kwargs):
        self.seen_weights = dict(weights)
        return {name: np.median([p[name] for p in model_params.values()], axis=0) for name in next(iter(model_params.values()))}


def aggregator_classes() -> list[type[Aggregator]]:
    found = []
    for name in member_names(aggregators):
        module = importlib.import_module(f"{aggregators.__name__}.{name}")
        found += [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__ and issubclass(c, Aggregator)]
    return [c for c in found if not inspect.isabstract(c)] + [FedMedian]


START = {"w": np.array([0.0, 1.0]), "b": np.array(0.25)}
REPLY = {"optimizer_args": {"lr": {"w": 0.1, "b": 0.1}}}
UPDATES = {"node_a": {"w": np.array([1.0, 2.0]), "b": np.array(0.5)}, "node_b": {"w": np.array([3.0, 6.0]), "b": np.array(0.5)}}


@pytest.fixture(params=aggregator_classes(), ids=lambda c: c.__name__)
def aggregator(request):
    return request.param()


def begun(aggregator, node_ids):
    """Begin a round as the loop does."""
    aggregator.begin(0)
    aggregator.check_values(n_updates=2, training_plan=None)
    aggregator.create_aggregator_args(START, list(node_ids))
    for node_id in node_ids:
        aggregator.hear(node_id, REPLY)


def folded(aggregator, updates, weights):
    begun(aggregator, updates)
    for node_id, params in updates.items():
        aggregator.add(node_id, params, weights[node_id])
    return aggregator.finish()


def test_the_family_is_found():
    assert {FedAverage, FedMedian, Scaffold} <= set(aggregator_classes())


def test_equal_updates_give_themselves(aggregator):
    same = dict.fromkeys(("node_a", "node_b", "node_c"), UPDATES["node_a"])
    result = folded(aggregator, same, {"node_a": 1, "node_b": 20, "node_c": 3})
    assert result.keys() == UPDATES["node_a"].keys()
    for name, value in UPDATES["node_a"].items():
        assert np.allclose(result[name], value, rtol=1e-14)


def test_streaming_gives_what_one_shot_gives(aggregator):
    streamed = folded(aggregator, UPDATES, {"node_a": 10, "node_b": 30})
    at_once = aggregator.aggregate(UPDATES, {"node_a": 0.25, "node_b": 0.75})
    for name in streamed:
        assert np.allclose(streamed[name], at_once[name], rtol=1e-14)


def test_updates_stay_untouched(aggregator):
    copies = {node_id: {name: value.copy() for name, value in params.items()} for node_id, params in UPDATES.items()}
    result = folded(aggregator, copies, {"node_a": 1, "node_b": 1})
    result["w"][:] = -1
    for node_id, params in UPDATES.items():
        for name in params:
            assert np.array_equal(copies[node_id][name], params[name])


def test_a_round_does_not_remember_the_one_before(aggregator):
    begun(aggregator, UPDATES)
    aggregator.add("node_a", {"other": np.ones(3)}, 5)  # a round that was broken off
    first = folded(aggregator, UPDATES, {"node_a": 1, "node_b": 1})
    second = folded(aggregator, {"node_b": UPDATES["node_b"]}, {"node_b": 7})
    assert np.allclose(first["w"], [2.0, 4.0])  # mean and median of two
    assert np.array_equal(second["w"], UPDATES["node_b"]["w"])
    with pytest.raises(AggregationError):
        aggregator.finish()


def test_a_node_counts_once(aggregator):
    begun(aggregator, UPDATES)
    aggregator.add("node_a", UPDATES["node_a"], 1)
    with pytest.raises(AggregationError, match="node_a came twice"):
        aggregator.add("node_a", UPDATES["node_a"], 1)


def test_there_is_nothing_to_finish_without_updates_or_weights(aggregator):
    aggregator.begin(0)
    with pytest.raises(FedbiomedAggregatorError, match="sum to 0"):
        aggregator.finish()
    aggregator.begin(0)
    aggregator.add("node_a", UPDATES["node_a"], 0)
    with pytest.raises(FedbiomedAggregatorError, match="sum to 0"):
        aggregator.finish()


def test_every_node_gets_arguments(aggregator):
    small, large = aggregator.create_aggregator_args(UPDATES["node_a"], ["node_a", "node_b"])
    assert small == {node: {"aggregator_name": aggregator.aggregator_name} for node in ("node_a", "node_b")}
    assert large.keys() == {"node_a", "node_b"}
    json.dumps(small)


def test_it_is_told_of_the_experiment(aggregator):
    data = object()
    assert aggregator.set_fds(data) is data
    assert aggregator.set_training_plan_type(TrainingPlans.TorchTrainingPlan) is TrainingPlans.TorchTrainingPlan
    assert aggregator.check_values(n_updates=3, training_plan=None)


def test_a_round_that_fails_leaves_it_as_it_was(aggregator):
    folded(aggregator, UPDATES, {"node_a": 1, "node_b": 1})
    before = aggregator.create_aggregator_args(START, ["node_a", "node_b"])

    def broken_off():
        with aggregator.undone_on_failure():
            folded(aggregator, UPDATES, {"node_a": 3, "node_b": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    after = aggregator.create_aggregator_args(START, ["node_a", "node_b"])
    assert repr(after) == repr(before)
    assert np.allclose(folded(aggregator, UPDATES, {"node_a": 1, "node_b": 1})["w"], [2.0, 4.0])


def test_its_state_goes_through_json(aggregator, tmp_path):
    state = json.loads(json.dumps(aggregator.save_state_breakpoint(tmp_path, global_model={})))
    assert state["class"] == type(aggregator).__name__
    assert state["module"] == type(aggregator).__module__
    fresh = type(aggregator)()
    fresh.load_state_breakpoint(state)
    assert np.allclose(folded(fresh, UPDATES, {"node_a": 1, "node_b": 1})["w"], [2.0, 4.0])
    with pytest.raises(FedbiomedBreakpointError, match="state of a 'Other' cannot be given"):
        fresh.load_state_breakpoint(state | {"class": "Other"})


def test_ours_are_found_again_by_the_names_in_their_state():
    state = FedAverage().save_state_breakpoint()
    assert load_class(aggregators, state["module"], state["class"], Aggregator) is FedAverage
    assert state["parameters"] == {}
    assert FedAverage().aggregator_name == "FedAverage"


def test_one_that_defines_only_aggregate_gets_weights_that_sum_to_one():
    median = FedMedian()
    result = folded(median, UPDATES | {"node_c": {"w": np.array([9.0, 0.0]), "b": np.array(0.5)}}, {"node_a": 1, "node_b": 2, "node_c": 5})
    assert result["w"].tolist() == [3.0, 2.0]
    assert median.seen_weights == {"node_a": 1 / 8, "node_b": 2 / 8, "node_c": 5 / 8}


def test_the_base_is_not_an_aggregator():
    with pytest.raises(TypeError, match="abstract"):
        Aggregator()


def test_nodes_count_by_their_samples():
    # (10 * 1 + 30 * 3) / 40 = 2.5 and (10 * 2 + 30 * 6) / 40 = 5
    result = folded(FedAverage(), UPDATES, {"node_a": 10, "node_b": 30})
    assert result["w"].tolist() == [2.5, 5.0]
    assert result["w"].dtype == np.float64


def test_tensors_come_back_as_float32_even_counters():
    updates = {f"node_{i}": {"w": torch.full((2,), float(i)), "bn.num_batches_tracked": torch.tensor(i)} for i in (1, 3)}
    result = folded(FedAverage(), updates, {"node_1": 1, "node_3": 1})
    assert result["w"].dtype == result["bn.num_batches_tracked"].dtype == torch.float32
    assert result["w"].tolist() == [2.0, 2.0]
    assert result["bn.num_batches_tracked"].item() == 2.0


def test_an_update_that_is_refused_does_not_count_and_is_named():
    average = FedAverage()
    average.begin(0)
    average.add("node_a", UPDATES["node_a"], 1)
    with pytest.raises(AggregationError, match="'w' of node_x holds NaN"):
        average.add("node_x", {"w": np.array([math.nan, 1.0]), "b": np.array(1.0)}, 1)
    average.add("node_b", UPDATES["node_b"], 1)
    assert average.finish()["w"].tolist() == [2.0, 4.0]


def test_names_beside_shares_of_a_mean_are_checked():
    with pytest.raises(AggregationError, match=r"updates of \['node_a', 'node_b'\], but weights of \['node_a'\]"):
        FedAverage().aggregate(UPDATES, {"node_a": 1.0})


@pytest.mark.parametrize("weights", [(1.5, 0.5), (-0.1, 1.0), (0.0, 0.0), (math.nan, 1.0)], ids=str)
def test_shares_lie_between_0_and_1_and_not_all_at_0(weights):
    with pytest.raises(FedbiomedAggregatorError, match="between 0 and 1"):
        FedAverage().aggregate(UPDATES, dict(zip(UPDATES, weights, strict=True)))


def test_memory_does_not_grow_with_the_number_of_nodes():
    size = 500_000
    average = FedAverage()
    tracemalloc.start()
    try:
        average.begin(0)
        for i in range(20):
            average.add(f"node_{i}", {"w": np.full(size, i, np.float32)}, 1)
        assert average.finish()["w"][0] == 9.5
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (8 + 4 + 4) * size + 1_000_000  # the sum, one update, the result


def test_functions_on_lists():
    sets = [{"w": np.array([1.0])}, {"w": np.array([3.0])}]
    assert federated_averaging(sets, [0.1, 0.3])["w"].tolist() == pytest.approx([2.5])
    assert weighted_sum(sets, [0.1, 0.3])["w"].tolist() == pytest.approx([1.0])
    with pytest.raises(AggregationError, match="between 0 and 1"):
        federated_averaging(sets, [1, 3])
    with pytest.raises(AggregationError, match="sum to 0"):
        federated_averaging([], [])


def test_zeros_to_sum_into():
    kind, zeros = initialize(torch.ones(2, 3, dtype=torch.int64))
    assert (kind, zeros.dtype, zeros.tolist()) == ("tensor", torch.float32, [[0.0] * 3] * 2)
    for value in (np.ones((2, 2), np.float32), [[1, 2], [3, 4]]):
        kind, zeros = initialize(value)
        assert (kind, zeros.dtype, zeros.tolist()) == ("array", np.float64, [[0.0, 0.0], [0.0, 0.0]])
