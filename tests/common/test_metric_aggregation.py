"""Metrics of several nodes in one."""

import math

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedMetricError
from fedbiomed.common.metric_aggregation import EmaMetric, uniform_metrics, weighted_metrics


@pytest.mark.parametrize("mean", [weighted_metrics, uniform_metrics])
def test_only_those_who_reported_are_divided_by(mean):
    assert mean([(3, {"a": 1.0}), (1, {})]) == {"a": 1.0}


def test_samples_count_or_do_not():
    results = [(30, {"a": 1.0, "b": 2}), (10, {"a": np.float32(0.5)})]
    # (30 * 1 + 10 * .5) / 40 = .875; uniform (1 + .5) / 2
    assert weighted_metrics(results) == {"a": 0.875, "b": 2.0}
    assert uniform_metrics(results) == {"a": 0.75, "b": 2.0}


def test_a_node_without_samples_does_not_count_and_no_one_reports_nothing():
    assert weighted_metrics([(0, {"a": math.nan}), (2, {"a": 0.5})]) == {"a": 0.5}
    assert weighted_metrics([]) == {}
    assert math.isnan(weighted_metrics([(1, {"a": math.nan}), (2, {"a": 0.5})])["a"])


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([(1, {"a": "0.5"})], "a must be a number, not '0.5'"),
        ([(1, {"a": True})], "a must be a number"),
        ([(1, {"a": np.zeros(2)})], "a must be a number"),
        ([(None, {"a": 1.0})], "number of samples must be a number"),
        ([(-1, {"a": 1.0})], "must be 0 or more"),
        ([(0, {"a": 1.0})], "all who reported a have 0 samples"),
        ([{"a": 1.0}], "must be pairs"),
    ],
)
def test_what_is_no_number_is_refused(results, message):
    with pytest.raises(FedbiomedMetricError, match=message):
        weighted_metrics(results)


def test_a_moving_average_begins_with_its_first_value():
    # 1; .1 * 0 + .9 * 1 = .9; .1 * 1 + .9 * .9 = .91
    average = EmaMetric("ACCURACY")
    assert [average.update(value) for value in (1, 0, 1)] == pytest.approx([1.0, 0.9, 0.91])
    assert average.added_to({"ACCURACY": 0.91})["EMA_ACCURACY"] == pytest.approx(0.91)


def test_a_moving_average_refuses_what_would_spoil_it():
    average = EmaMetric("a", 0.5)
    average.update(1.0)
    for wrong in (math.nan, "x"):
        with pytest.raises(FedbiomedMetricError):
            average.update(wrong)
    assert average.value == 1.0
    with pytest.raises(FedbiomedMetricError, match="no 'a' among the metrics b"):
        average.added_to({"b": 1.0})
    with pytest.raises(FedbiomedMetricError, match="smoothing_factor"):
        EmaMetric("a", 0.0)
