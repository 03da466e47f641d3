"""Median, trimmed mean, Krum, geometric median and FedDG-GA: numbers worked out by hand, and wrong nodes that do no harm."""

import gc
import tempfile

import numpy as np
import pytest

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.researcher.aggregators import FedDGGA, GeometricMedian, Krum, Median, MultiKrum, TrimmedMean
from fedbiomed.researcher.aggregators._update_files import UpdateFiles
from fedbiomed.researcher.aggregators.feddgga import adjusted_weights
from tests.support.aggregators import folded


def updates(*values):
    return {f"n{index}": {"w": np.atleast_1d(np.array(value, np.float64))} for index, value in enumerate(values)}


def result(aggregator, *values, weights=None):
    return folded(aggregator, {"w": np.zeros_like(np.atleast_1d(values[0]), np.float64)}, updates(*values), weights)["w"].tolist()


def test_median_of_odd_and_even():
    assert result(Median(), [1, 9], [5, 2], [100, 3]) == [5.0, 3.0]
    assert result(Median(), 1, 2, 4, 1000) == [3.0]
    assert result(Median(), 1, 2, 4, weights={"n0": 1, "n1": 1, "n2": 1000}) == [2.0]  # samples do not count


def test_trimmed_mean_leaves_out_both_ends():
    # 5 nodes, beta 0.2: 1 at either end; (2 + 3 + 4) / 3 = 3
    assert result(TrimmedMean(), -1000, 2, 3, 4, 1e6) == [3.0]
    # beta 0.4: 2 at either end
    assert result(TrimmedMean(0.4), -1000, 2, 3, 40, 1e6) == [3.0]
    assert result(TrimmedMean(0), 1, 2, 6) == [3.0]


def test_trimmed_mean_of_too_few():
    with pytest.raises(AggregationError, match=r"beta=0.2\) leaves out no node of 4 \(n0, n1, n2, n3\): it needs 5 or more"):
        result(TrimmedMean(), 1, 2, 3, 4)


def test_krum_takes_the_one_in_the_crowd():
    # 5 nodes, 1 wrong: 5 - 1 - 2 = 2 nearest. 0: 1 + 4 = 5; 1: 1 + 1 = 2; 2: 1 + 2.25 = 3.25; 3.5: 2.25 + 6.25 = 8.5; 100: far
    assert result(Krum(), 0, 1, 2, 3.5, 100) == [1.0]
    # the two lowest: (1 + 2) / 2; four, which is n - f, are averaged where nothing is said: 6.5 / 4
    assert result(MultiKrum(1, keep=2), 0, 1, 2, 3.5, 100) == [1.5]
    assert result(MultiKrum(), 0, 1, 2, 3.5, 100) == [1.625]


def test_krum_of_equal_scores_takes_the_first_id():
    values = {"b": {"w": np.array([0.0])}, "c": {"w": np.array([0.0])}, "a": {"w": np.array([0.0])}}
    values = {node_id: {**params, "k": np.array(index)} for index, (node_id, params) in enumerate(values.items())}
    assert folded(Krum(0), {"w": np.zeros(1), "k": np.array(0)}, values)["k"] == 2.0


def test_krum_of_too_few_or_too_many_kept():
    with pytest.raises(AggregationError, match="Krum with 1 wrong nodes needs 5 updates or more, 4 came: n0, n1, n2, n3"):
        result(Krum(), 1, 2, 3, 4)
    with pytest.raises(AggregationError, match="MultiKrum with 2 wrong nodes needs 7"):
        result(MultiKrum(2), 1, 2, 3, 4, 5, 6)
    with pytest.raises(AggregationError, match="keep 5 updates of 5, of which 1 may be wrong"):
        result(MultiKrum(1, keep=5), 1, 2, 3, 4, 5)


def test_distances_leave_counters_out():
    # by w the crowd is n0, n1, n2; the counter k would make n3 one of it
    values = {
        node_id: {"w": np.array([w]), "k": np.array(k)}
        for node_id, w, k in (("n0", 0.0, 0), ("n1", 0.1, 900), ("n2", 0.2, 5000), ("n3", 9.0, 0), ("n4", 9.5, 1))
    }
    assert folded(Krum(), {"w": np.zeros(1), "k": np.array(0)}, values)["w"].tolist() == [0.1]


def test_geometric_median_by_hand():
    # 0, 1, 4 with one iteration: mean 5/3, distances 5/3, 2/3, 7/3; 1/d = 0.6, 1.5, 3/7; (1.5 + 12/7) / (2.1 + 3/7) = 3.2142857 / 2.5285714
    expected = (1.5 + 12 / 7) / (2.1 + 3 / 7)
    assert result(GeometricMedian(1), 0, 1, 4) == pytest.approx([expected])
    # on a line it is the median
    assert result(GeometricMedian(500, tolerance=0), 0, 1, 4) == pytest.approx([1.0], abs=1e-3)


def test_geometric_median_counts_samples_unless_told_otherwise():
    weights = {"n0": 10, "n1": 1, "n2": 1}
    assert result(GeometricMedian(500, tolerance=0), 0, 1, 4, weights=weights) == pytest.approx([0.0], abs=1e-3)
    assert result(GeometricMedian(500, tolerance=0, weighted=False), 0, 1, 4, weights=weights) == pytest.approx([1.0], abs=1e-3)


@pytest.mark.parametrize("make", [Median, lambda: TrimmedMean(0.3), lambda: Krum(2), lambda: MultiKrum(2, 3), lambda: GeometricMedian(50)])
def test_wrong_nodes_do_no_harm(make):
    generator = np.random.default_rng(5)
    good = [generator.normal(3, 0.1, 40) for _ in range(5)]
    wrong = [np.full(40, -1e6), np.full(40, 1e7)]
    assert np.allclose(result(make(), *good, *wrong), 3, atol=0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrimmedMean(0.5),
        lambda: TrimmedMean(-0.1),
        lambda: Krum(-1),
        lambda: MultiKrum(1, keep=0),
        lambda: GeometricMedian(0),
        lambda: GeometricMedian(nu=0),
        lambda: FedDGGA(1.0),
        lambda: FedDGGA(rounds=0),
        lambda: FedDGGA(metric=3),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(FedbiomedAggregatorError, match="FB401"):
        make()


def test_complex_numbers_have_no_order():
    with pytest.raises(AggregationError, match="'w' of n0 holds complex numbers"):
        Median().add("n0", {"w": np.array([1j])}, 1)


def test_files_go_with_the_round(tmp_path):
    tempfile.tempdir, before = str(tmp_path), tempfile.tempdir
    try:
        aggregator = Median()
        aggregator.begin(0)
        for node_id, params in updates([1, 2], [3, 4]).items():
            aggregator.add(node_id, params, 1)
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 2
        assert aggregator.finish()["w"].tolist() == [2.0, 3.0]
        gc.collect()
        assert list(tmp_path.iterdir()) == []
    finally:
        tempfile.tempdir = before


def test_blocks_give_what_one_piece_gives():
    files, generator = UpdateFiles(), np.random.default_rng(1)
    matrices = [generator.normal(size=(700, 300)).astype(np.float32).T for _ in range(4)]
    sets = {f"n{i}": {"w": matrix, "empty": np.zeros((0, 2)), "k": np.array(i)} for i, matrix in enumerate(matrices)}
    for node_id, params in sets.items():
        files.put(node_id, params)
    blocks = [block.shape for block in files.blocks(["w"])]
    assert len(blocks) > 1
    assert sum(shape[1] for shape in blocks) == 210_000
    median = files.by_coordinate(lambda block: np.median(block, axis=0))
    assert np.array_equal(median["w"], np.median([p["w"].astype(np.float64) for p in sets.values()], axis=0).astype(np.float32))
    assert (median["w"].dtype, median["empty"].shape, median["k"].item()) == (np.float32, (0, 2), 1.5)
    assert not files.arrays("n0")["w"].flags.owndata


def test_a_folder_that_cannot_be_written_is_told():
    files = UpdateFiles()
    files.close()
    with pytest.raises(AggregationError, match="the update of n0 cannot be kept in"):
        files.put("n0", {"w": np.ones(1)})


# --- FedDG-GA


def told(before, after, metric="Loss"):
    points = zip((Phase.TEST_GLOBAL, Phase.TEST_LOCAL), (before, after), strict=True)
    return [{"phase": str(phase), "metric": metric, "value": value} for phase, value in points]


def dgga_round(aggregator, measures, **values):
    aggregator.begin(0)
    for node_id, value in values.items():
        aggregator.add(node_id, {"w": np.array([float(value)])}, 1)
    aggregator.hear_measures(measures)
    return aggregator.finish()["w"][0]


def test_weights_follow_the_gaps():
    # mean gap 0.2, deviations +-0.1, scaled to +-1
    assert adjusted_weights({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.1}, 0.2) == pytest.approx({"a": 0.7, "b": 0.3})
    assert adjusted_weights({"a": 0.6, "b": 0.4}, {"a": 0.1 + 0.2, "b": 0.3}, 0.2) == {"a": 0.6, "b": 0.4}
    # cut to 1 and 0
    assert adjusted_weights({"a": 0.95, "b": 0.05}, {"a": 0.3, "b": 0.1}, 0.2) == {"a": 1.0, "b": 0.0}


def test_rounds_of_feddgga_by_hand():
    aggregator = FedDGGA(0.2, rounds=2)
    assert dgga_round(aggregator, {"a": told(1.0, 0.5), "b": told(1.0, 0.8)}, a=0, b=10) == 5.0
    # gaps: 0.8 - 0.5 = 0.3 and 0.9 - 0.8 = 0.1; step 0.2: 0.7 and 0.3
    assert dgga_round(aggregator, {"a": told(0.8, 0.4), "b": told(0.9, 0.6)}, a=0, b=10) == pytest.approx(3.0)
    # gaps: 0.4 - 0.4 = 0 and 0.8 - 0.6 = 0.2; step 0.1: 0.6 and 0.4
    assert dgga_round(aggregator, {"a": told(0.4, 0.4), "b": told(0.8, 0.6)}, a=0, b=10) == pytest.approx(4.0)
    assert aggregator.node_weights == pytest.approx({"a": 0.6, "b": 0.4})


def test_accuracy_counts_the_other_way_round():
    aggregator = FedDGGA(0.2)
    dgga_round(aggregator, {"a": told(0.5, 0.9, "ACCURACY"), "b": told(0.5, 0.9, "ACCURACY")}, a=0, b=10)
    # the aggregate is worse for a by 0.3, for b by 0.1
    assert dgga_round(aggregator, {"a": told(0.6, 0.9, "ACCURACY"), "b": told(0.8, 0.9, "ACCURACY")}, a=0, b=10) == pytest.approx(3.0)


def test_a_node_that_comes_later_begins_with_the_mean_of_the_others():
    aggregator = FedDGGA(0.2)
    dgga_round(aggregator, {"a": told(1.0, 0.5), "b": told(1.0, 0.8)}, a=0, b=10)
    # a and b: 1/3 and 1/3, moved by 0.2; c keeps its third; b is not there: a by 8/15, c by 1/3, of 13/15
    measures = {"a": told(0.8, 0.5), "b": told(0.9, 0.6), "c": told(1.0, 1.0)}
    assert dgga_round(aggregator, measures, a=0, b=0, c=10) == pytest.approx(10 / 3)
    assert aggregator.node_weights == pytest.approx({"a": 8 / 15, "b": 2 / 15, "c": 1 / 3})


def test_the_mean_over_batches_counts():
    aggregator = FedDGGA(0.2)
    halves = [*told(1.0, 0.25), *told(1.0, 0.75)]
    dgga_round(aggregator, {"a": halves, "b": told(1.0, 0.8)}, a=0, b=10)
    assert dgga_round(aggregator, {"a": told(0.8, 0.5), "b": told(0.9, 0.6)}, a=0, b=10) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "n0 told no finite metric of VALIDATION ON GLOBAL UPDATES: .*test_on_global_updates"),
        (told(1.0, 1.0)[:1], "of VALIDATION ON LOCAL UPDATES"),
        (told("nan", 1.0), "no finite"),
        (told(1.0, None), "no finite"),
        ([*told(1.0, 1.0), *told(1.0, 1.0, "ACCURACY")], "n0 measured ACCURACY, Loss: say by"),
        (told(1.0, 1.0, "Custom"), "whether a larger 'Custom' is better"),
    ],
)
def test_measures_that_do_not_do_are_told(reports, message):
    with pytest.raises(AggregationError, match=message):
        FedDGGA().hear_measures({"n0": reports})


def test_which_metric_and_which_way_can_be_said():
    FedDGGA(metric="Custom", maximize=False).hear_measures({"n0": [*told(1.0, 1.0, "Custom"), *told(1.0, 1.0, "ACCURACY")]})
    with pytest.raises(AggregationError, match="not told what n0 measured"):
        FedDGGA().aggregate(updates(1.0), {"n0": 1.0})
