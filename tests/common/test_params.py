"""Means of parameter sets: the numbers, the types, what is refused, and how much memory it takes."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import RunningMean, combined, weighted_mean, weighted_sum


def test_sets_count_by_their_weights():
    # (1 * 0 + 3 * 4) / 4 = 3 and (1 * 8 + 3 * 0) / 4 = 2
    mean = weighted_mean([{"w": np.array([0.0, 8.0])}, {"w": np.array([4.0, 0.0])}], [1, 3])
    assert mean["w"].tolist() == [3.0, 2.0]
    assert weighted_sum([{"w": np.array([0.0, 8.0])}, {"w": np.array([4.0, 0.0])}], [1, 3])["w"].tolist() == [12.0, 8.0]
    assert weighted_sum([{"w": np.array([5.0])}], [0])["w"].tolist() == [0.0]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=n, max_size=n),
            st.lists(st.integers(1, 1000), min_size=n, max_size=n),
        )
    )
)
def test_the_mean_is_that_of_exact_arithmetic(case):
    rows, weights = case
    mean = weighted_mean([{"w": np.array(row)} for row in rows], weights)
    for i in range(3):
        exact = math.fsum(weight * row[i] for row, weight in zip(rows, weights, strict=True)) / sum(weights)
        assert mean["w"][i] == pytest.approx(exact, rel=1e-12, abs=1e-6)


def test_summing_many_small_numbers_in_float32_loses_nothing():
    # 1 + 4096 * 2^-24 in float32 stays 1; the mean of 4097 values is (1 + 2^-12) / 4097
    running = RunningMean()
    running.add({"w": torch.tensor([1.0])}, 1)
    for _ in range(4096):
        running.add({"w": torch.tensor([2.0**-24])}, 1)
    assert running.mean()["w"].item() == np.float32((1 + 2.0**-12) / 4097)
    assert (running.count, running.total_weight) == (4097, 4097.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float64, torch.float64),
        (torch.int64, torch.float32),
        (torch.uint8, torch.float32),
        (torch.bool, torch.float32),
        (torch.complex64, torch.complex64),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_tensors_come_back_as_tensors(given, expected, shape):
    value = torch.ones(shape).to(given)
    mean = weighted_mean([{"w": value}, {"w": value}], [1, 2])["w"]
    assert mean.dtype == expected
    assert mean.shape == value.shape
    assert torch.equal(mean, torch.ones(shape).to(expected))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("float32", "float32"), ("float16", "float16"), ("float64", "float64"), ("int64", "float64"), ("bool", "float64"), (">f4", "float32")],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_arrays_come_back_as_arrays(given, expected, shape):
    mean = weighted_mean([{"w": np.ones(shape, given)}] * 2, [1, 2])["w"]
    assert isinstance(mean, np.ndarray)
    assert mean.dtype == np.dtype(expected)
    assert np.array_equal(mean, np.ones(shape))


def test_numbers_and_numpy_scalars_are_arrays_without_dimensions():
    mean = weighted_mean([{"a": 1, "b": np.float32(1)}, {"a": 3, "b": np.float32(3)}], [1, 1])
    assert (mean["a"].item(), mean["b"].item()) == (2.0, 2.0)
    assert (mean["a"].dtype, mean["b"].dtype) == (np.float64, np.float32)


def test_the_order_of_names_is_that_of_the_first_set():
    mean = weighted_mean([{"b": 1.0, "a": 2.0}, {"a": 4.0, "b": 3.0}], [1, 1])
    assert list(mean.items()) == [("b", 2.0), ("a", 3.0)]


def test_inputs_stay_untouched_and_results_share_no_memory():
    base = np.arange(12.0).reshape(3, 4)
    first = {"w": base.T, "t": torch.ones(3, requires_grad=True), "r": np.broadcast_to(1.0, (3,))}
    running = RunningMean()
    running.add(first, 2.0)
    one = running.mean()
    assert np.array_equal(one["w"], base.T)
    one["w"][:] = -1
    one["t"][:] = -1
    running.add(first, 3.0)
    two = running.mean()
    assert np.array_equal(two["w"], base.T)
    assert two["t"].tolist() == [1.0, 1.0, 1.0]
    assert not two["t"].requires_grad
    assert np.array_equal(base, np.arange(12.0).reshape(3, 4))


def test_arrays_longer_than_a_block_are_summed_to_their_end():
    value = np.arange(100_001, dtype=np.float32)
    mean = weighted_mean([{"w": value}, {"w": value + 2}], [1, 1])["w"]
    assert np.array_equal(mean, value + 1)


@pytest.mark.parametrize(
    ("params", "weight", "reason"),
    [
        ({"w": np.ones(2)}, 1, r"other names than those of node_a: missing \['b'\], in excess \[\]"),
        ({"w": np.ones(2), "b": 1.0, "c": 1.0}, 1, r"other names than those of node_a: missing \[\], in excess \['c'\]"),
        ({"w": np.ones(3), "b": 1.0}, 1, r"'w' of node_b has shape \(3,\), that of node_a has \(2,\)"),
        ({"w": np.ones((2, 1)), "b": 1.0}, 1, "has shape"),
        ({"w": np.array([1.0, np.nan]), "b": 1.0}, 1, "'w' of node_b holds NaN or infinite values"),
        ({"w": torch.tensor([math.inf, 1.0]), "b": 1.0}, 1, "'w' of node_b holds NaN or infinite values"),
        ({"w": ["x", "y"], "b": 1.0}, 1, "'w' of node_b is a list of dtype <U1, not numbers"),
        ({"w": [[1], [1, 2]], "b": 1.0}, 1, "'w' of node_b is a list, not an array of numbers"),
        ({"w": None, "b": 1.0}, 1, "'w' of node_b is a NoneType"),
        ({"w": torch.eye(2).to_sparse(), "b": 1.0}, 1, "'w' of node_b is a Tensor, not an array of numbers"),
        ({}, 1, "node_b holds no parameters"),
        ({"w": np.ones(2), "b": 1.0}, -1, "weight of node_b must be a number of 0 or more, not -1"),
        ({"w": np.ones(2), "b": 1.0}, math.nan, "weight of node_b must be"),
        ({"w": np.ones(2), "b": 1.0}, math.inf, "weight of node_b must be"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_and_changes_nothing(params, weight, reason):
    running = RunningMean()
    running.add({"w": np.array([1.0, 2.0]), "b": 3.0}, 1, source="node_a")
    with pytest.raises(AggregationError, match=reason):
        running.add(params, weight, source="node_b")
    assert (running.count, running.total_weight) == (1, 1.0)
    assert running.mean()["w"].tolist() == [1.0, 2.0]


def test_a_first_set_that_is_refused_leaves_the_mean_empty():
    running = RunningMean()
    with pytest.raises(AggregationError, match="parameter set 1 holds NaN"):
        running.add({"w": math.nan}, 1)
    running.add({"other": 1.0}, 1)
    assert running.mean() == {"other": 1.0}


def test_there_is_no_mean_of_nothing():
    for running in (RunningMean(), RunningMean()):
        with pytest.raises(AggregationError, match=r"no mean of . parameter sets whose weights sum to 0"):
            running.mean()
        running.add({"w": 1.0}, 0)
        with pytest.raises(AggregationError, match="no mean of 1 parameter sets whose weights sum to 0"):
            running.mean()
    with pytest.raises(AggregationError, match="no sum of 0"):
        RunningMean().sum()
    with pytest.raises(AggregationError, match="2 parameter sets, but 1 weights"):
        weighted_mean([{"w": 1.0}, {"w": 1.0}], [1])


def test_memory_is_one_sum_in_float64_whatever_the_number_of_sets():
    size = 1_000_000  # 4 MB as float32: the sum takes 8 MB, the result 4, blocks less than 1
    value = {"w": np.ones(size, np.float32)}
    tracemalloc.start()
    try:
        running = RunningMean()
        for _ in range(5):
            running.add(value, 1)
        mean = running.mean()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mean["w"][0] == 1
    assert peak < 8 * size + 4 * size + 1_000_000


@pytest.mark.parametrize("weight", ["1", None, [1]])
def test_a_weight_is_a_number(weight):
    with pytest.raises(AggregationError, match="the weight of parameter set 1 must be a number of 0 or more"):
        weighted_mean([{"w": np.ones(1)}], [weight])


def test_a_tensor_that_is_a_conjugate_view_is_averaged():
    assert weighted_mean([{"w": torch.tensor([1 + 2j]).conj()}, {"w": torch.tensor([3 + 2j])}], [1, 1])["w"].tolist() == [2 + 0j]


def test_complex_numbers_among_others_are_refused_and_leave_the_mean_as_it_was():
    running = RunningMean()
    running.add({"a": np.ones(1), "b": np.ones(1)}, 1)
    with pytest.raises(AggregationError, match="parameter 'b' of node_2 is complex, others are not"):
        running.add({"a": np.full(1, 3.0), "b": np.full(1, 1j)}, 1, "node_2")
    assert (running.mean()["a"].tolist(), running.count) == ([1.0], 1)
    with pytest.raises(AggregationError, match="parameter 'w' of term 1 is complex"):
        combined([(1.0, np.ones(1)), (1.0, np.full(1, 1j))], "w")


@pytest.mark.parametrize(
    "make", [lambda x: np.array([x], np.float16), lambda x: torch.tensor([x], dtype=torch.float16)], ids=["array", "tensor"]
)
def test_what_half_precision_cannot_hold_is_refused_and_not_made_infinite(make):
    assert weighted_sum([{"w": make(30000.0)}], [2])["w"].tolist() == [60000.0]
    with pytest.raises(AggregationError, match="120000 in 'w' is beyond 65504, the largest float16"):
        weighted_sum([{"w": make(60000.0)}], [2])
    assert weighted_sum([{"w": make(0.0)[:0]}], [2])["w"].tolist() == []
