"""Aggregators to which each node sends a part of the model, by hand."""

import numpy as np
import pytest

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.researcher.aggregators import DynamicLayers, SparseExchange
from tests.support.aggregators import begun, folded

START = {"a": np.array([1.0, 1.0]), "b": np.array([5.0]), "c": np.array([7.0, 8.0])}


def entries(indices, values):
    return {"indices": np.array(indices, dtype=np.int32), "values": np.array(values)}


def test_the_mean_of_a_layer_is_over_those_that_sent_it():
    # a: (2, 2) with 10 and (6, 10) with 30; b: from one of three; c: from nobody
    updates = {"x": {"a": np.array([2.0, 2.0])}, "y": {"a": np.array([6.0, 10.0]), "b": np.array([9.0])}, "z": {}}
    result = folded(DynamicLayers(), START, updates, {"x": 10, "y": 30, "z": 1000})
    assert {name: value.tolist() for name, value in result.items()} == {"a": [5.0, 8.0], "b": [9.0], "c": [7.0, 8.0]}


def test_absent_entries_are_absent():
    start = {"w": np.array([1.0, 1.0, 3.0])}
    updates = {"x": {"w": entries([0], [4.0])}, "y": {"w": entries([1], [2.0])}}
    assert folded(SparseExchange(), start, updates)["w"].tolist() == [4.0, 2.0, 3.0]


def test_absent_entries_count_as_zero_where_that_is_asked():
    start = {"w": np.array([1.0, 1.0, 3.0])}
    updates = {"x": {"w": entries([0], [4.0])}, "y": {"w": entries([1], [2.0])}}
    assert folded(SparseExchange(absent_as_zero=True), start, updates)["w"].tolist() == [2.0, 1.0, 3.0]


def test_entries_count_by_samples_and_whole_arrays_are_taken_too():
    # w_0: (10 * 4 + 30 * 8) / 40 = 7; w_1: 6 of y alone; b whole from both: (10 * 1 + 30 * 5) / 40 = 4
    start = {"w": np.array([[0.0], [0.0]]), "b": np.array(0.0)}
    updates = {
        "x": {"w": entries([0], [4.0]), "b": np.array(1.0)},
        "y": {"w": entries([0, 1], [8.0, 6.0]), "b": np.array(5.0)},
        "z": {},
    }
    result = folded(SparseExchange(), start, updates, {"x": 10, "y": 30, "z": 7})
    assert (result["w"].tolist(), result["b"].item()) == ([[7.0], [6.0]], 4.0)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"a": entries([2], [1.0])}, "indices of parameter 'a' of node_x must rise from 0 or more to less than 2"),
        ({"a": entries([-1], [1.0])}, "must rise"),
        ({"a": entries([1, 0], [1.0, 1.0])}, "must rise"),
        ({"a": entries([0, 0], [1.0, 1.0])}, "must rise"),
        ({"a": entries([0, 1], [1.0])}, "as many whole numbers as indices as it has values"),
        ({"a": {"indices": np.array([0.5]), "values": np.array([1.0])}}, "as many whole numbers"),
        ({"a": {"places": np.array([0])}}, r"must have indices and values, it has \['places'\]"),
        ({"d": entries([0], [1.0])}, r"in excess \['d'\]"),
        ({"a": entries([0], [np.nan])}, "'a' of node_x holds NaN"),
    ],
)
def test_entries_that_do_not_fit_are_refused_and_leave_no_trace(update, said):
    aggregator = SparseExchange()
    begun(aggregator, START, ["node_x", "node_y"])
    with pytest.raises(AggregationError, match=said):
        aggregator.add("node_x", {"b": np.array([9.0]), **update}, 1)
    aggregator.add("node_y", {"a": entries([1], [3.0])}, 1)
    assert {name: value.tolist() for name, value in aggregator.finish().items()} == {"a": [1.0, 3.0], "b": [5.0], "c": [7.0, 8.0]}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DynamicLayers(0.0), "exchange_percentage of DynamicLayers must be a number above 0 and at most 1, not 0.0"),
        (lambda: DynamicLayers(1.5), "exchange_percentage of DynamicLayers"),
        (lambda: DynamicLayers(norm_threshold=-1.0), "norm_threshold of DynamicLayers must be a number of 0 or more, not -1.0"),
        (lambda: DynamicLayers(0.5, 0.5), "exchange_percentage or norm_threshold, not both"),
        (lambda: DynamicLayers(normalize=1), "normalize of DynamicLayers must be True or False, not 1"),
        (lambda: SparseExchange(0), "share of SparseExchange must be a number above 0 and at most 1, not 0"),
        (lambda: SparseExchange(score="best"), "score of SparseExchange must be one of movement, magnitude_increase, .*, not 'best'"),
    ],
)
def test_wrong_settings(make, said):
    with pytest.raises(FedbiomedAggregatorError, match=said):
        make()


class OnOtherLibrary:
    """A plan of scikit-learn, as far as an aggregator asks."""

    def type(self):
        return TrainingPlans.SkLearnTrainingPlan


@pytest.mark.parametrize("aggregator", [DynamicLayers, SparseExchange])
def test_plans_of_scikit_learn_are_refused_in_one_line(aggregator):
    with pytest.raises(FedbiomedAggregatorError, match=f"{aggregator.__name__} works with torch plans only") as caught:
        aggregator().check_values(n_updates=1, training_plan=OnOtherLibrary())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [{}, {"exchange_percentage": 0.25}, {"norm_threshold": 2.0, "normalize": False, "select_drift_more": False}]
)
def test_the_nodes_get_the_settings(given):
    small, _ = DynamicLayers(**given).create_aggregator_args(START, ["x"])
    usual = {"exchange_percentage": None if "norm_threshold" in given else 0.5, "norm_threshold": None}
    assert small["x"] == {"aggregator_name": "DynamicLayers", **usual, "normalize": True, "select_drift_more": True, **given}
