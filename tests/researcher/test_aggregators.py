"""The numbers of federated averaging, and an aggregator as a user would write one; what all have in common is in another file."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.plugins import load_class
from fedbiomed.researcher import aggregators
from fedbiomed.researcher.aggregators import Aggregator, FedAverage, federated_averaging, initialize, weighted_sum


class FedMedian(Aggregator):
    """As a user would write one: nothing but `aggregate`."""

    def aggregate(self, model_params, weights, *args, **kwargs):
        self.seen_weights = dict(weights)
        return {name: np.median([p[name] for p in model_params.values()], axis=0) for name in next(iter(model_params.values()))}


UPDATES = {"node_a": {"w": np.array([1.0, 2.0]), "b": np.array(0.5)}, "node_b": {"w": np.array([3.0, 6.0]), "b": np.array(0.5)}}


def folded(aggregator, updates, weights):
    aggregator.begin(0)
    for node_id, params in updates.items():
        aggregator.add(node_id, params, weights[node_id])
    return aggregator.finish()


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


class First(Aggregator):
    """The update of the first node."""

    def aggregate(self, model_params, weights, *args, **kwargs):
        return dict(next(iter(model_params.values())))


def test_nodes_that_all_count_by_nothing_are_named():
    assert folded(First(), UPDATES, {"node_a": 1, "node_b": 1})["w"].tolist() == UPDATES["node_a"]["w"].tolist()
    with pytest.raises(AggregationError, match=r"updates of \['node_a', 'node_b'\], whose weights sum to 0"):
        folded(First(), UPDATES, {"node_a": 0, "node_b": 0})
