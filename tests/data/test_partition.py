"""Splits over partitions whose labels differ, and made-up data of unlike nodes."""

import numpy as np
import pytest

from fedbiomed.common.data import DirichletLabelPartitioner, LabelSkewPartitioner, fedprox_synthetic
from fedbiomed.common.data.partition import whole_numbers
from fedbiomed.common.exceptions import FedbiomedValueError

LABELS = np.repeat([0, 1, 2], [50, 31, 19])


def counts(partition, labels=LABELS):
    return [np.bincount(labels[part], minlength=3).tolist() for part in partition.indices]


@pytest.mark.parametrize("beta", [0.1, 1.0, 100.0])
def test_no_sample_is_lost_and_none_comes_twice(beta):
    partition = DirichletLabelPartitioner(4, [0, 1, 2], beta=beta, seed=3).partition(LABELS)
    assert sorted(np.concatenate(partition.indices).tolist()) == list(range(100))
    for label in range(3):
        meant, of_label = partition.distribution[label] * (label == LABELS).sum(), [row[label] for row in counts(partition)]
        assert np.abs(meant - of_label).max() < 1


def test_the_smaller_beta_the_less_alike():
    def largest(beta):
        return np.mean([max(DirichletLabelPartitioner(5, [0], beta=beta, seed=s).partition([0] * 100).distribution[0]) for s in range(20)])

    assert largest(0.1) > largest(1.0) > largest(100.0)


def test_the_seed_fixes_the_split():
    def split(seed):
        return counts(DirichletLabelPartitioner(4, [0, 1, 2], beta=0.5, seed=seed).partition(LABELS))

    assert split(1) == split(1)
    assert split(1) != split(2)


def test_remainders_go_to_the_largest():
    # 10 * (0.26, 0.35, 0.39) = 2.6, 3.5, 3.9: floors 2, 3, 3 sum to 8; the two left go to the remainders .9 and .6
    assert whole_numbers(np.array([0.26, 0.35, 0.39]), 10).tolist() == [3, 3, 4]


def test_a_prior_is_followed_and_may_come_from_another_split():
    prior = {0: [0.5, 0.5], 1: [1.0, 0.0], 2: [0.25, 0.75]}
    partition = DirichletLabelPartitioner(2, [0, 1, 2], prior_distribution=prior, seed=0).partition(LABELS)
    assert counts(partition) == [[25, 31, 5], [25, 0, 14]]
    again = DirichletLabelPartitioner(2, [0, 1, 2], prior_distribution=partition.distribution, seed=9).partition(LABELS)
    assert counts(again) == counts(partition)


def test_a_minimum_is_kept():
    partition = DirichletLabelPartitioner(3, [0, 1, 2], 2, beta=1.0, seed=5).partition(LABELS)
    assert min(min(row) for row in counts(partition)) >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior_distribution": {0: [1.0, 0.0]}, "min_label_examples": 1}, "gives partition 1 0 samples of label 0"),
        ({"beta": 1e-3, "min_label_examples": 5, "max_retries": 3}, "3 draws gave some partition fewer than 5"),
        ({"beta": 1.0, "min_label_examples": 26}, "50 samples, 2 partitions need 26 each"),
    ],
)
def test_a_minimum_that_cannot_be_had_ends_with_an_error(arguments, message):
    partitioner = DirichletLabelPartitioner(2, [0], **arguments, seed=1)
    with pytest.raises(FedbiomedValueError, match=message):
        partitioner.partition(LABELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number_of_partitions": 0, "unique_labels": [0], "beta": 1.0}, "number_of_partitions must be"),
        ({"number_of_partitions": 2, "unique_labels": [0, 0], "beta": 1.0}, "each once"),
        ({"number_of_partitions": 2, "unique_labels": [0]}, "either beta or prior_distribution"),
        ({"number_of_partitions": 2, "unique_labels": [0], "beta": 0.0}, "beta must be a number above 0"),
        ({"number_of_partitions": 2, "unique_labels": [0], "beta": "x"}, "beta must be a number above 0"),
        ({"number_of_partitions": 2, "unique_labels": [0], "prior_distribution": {0: [0.5, 0.4]}}, "that sum to 1 for label 0"),
        ({"number_of_partitions": 2, "unique_labels": [0, 1], "prior_distribution": {0: [0.5, 0.5]}}, "for label 1"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(FedbiomedValueError, match=message):
        DirichletLabelPartitioner(**arguments)


def test_labels_without_samples_are_refused():
    with pytest.raises(FedbiomedValueError, match="no sample has the label 7"):
        DirichletLabelPartitioner(2, [0, 7], beta=1.0).partition(LABELS)


def test_each_partition_has_as_many_labels_as_asked():
    labels = np.repeat(np.arange(10), 30)
    partition = LabelSkewPartitioner(5, range(10), 4, seed=2).partition(labels)
    assert [len(set(labels[part])) for part in partition.indices] == [4] * 5
    # 5 x 4 places for 10 labels: each is held twice, so each holder has 15 of 30 samples, 4 x 15 = 60 in all
    assert [len(part) for part in partition.indices] == [60] * 5
    assert sorted(np.concatenate(partition.indices).tolist()) == list(range(300))


@pytest.mark.parametrize(("number", "per", "message"), [(2, 4, "there are 3 labels"), (1, 2, "cannot hold 3 labels")])
def test_a_skew_that_cannot_be_is_refused(number, per, message):
    with pytest.raises(FedbiomedValueError, match=message):
        LabelSkewPartitioner(number, [0, 1, 2], per)


def test_sizes_and_shapes_are_as_published():
    found = fedprox_synthetic(1, 1, seed=0)
    assert len(found) == 30
    assert min(len(x) for x, _ in found) >= 50
    assert all(x.shape == (len(y), 60) and x.dtype == np.float32 and y.min() >= 0 and y.max() < 10 for x, y in found)
    assert [x.tobytes() for x, _ in fedprox_synthetic(1, 1, seed=0)] == [x.tobytes() for x, _ in found]


def test_inputs_vary_less_from_coordinate_to_coordinate():
    ((x, _),) = fedprox_synthetic(0, 0, nodes=1, sizes=[20000], features=4, seed=1)
    assert np.allclose(x.std(axis=0) ** 2, np.arange(1, 5) ** -1.2, rtol=0.05)


def test_beta_moves_the_inputs_and_iid_nodes_are_alike():
    def spread(**arguments):
        return np.std([x.mean() for x, _ in fedprox_synthetic(nodes=40, sizes=[50] * 40, seed=4, **arguments)])

    # the mean over 60 coordinates of v_k ~ N(B_k, 1): sd sqrt(beta^2 + 1/60), that is 0.13 for 0 and 3.0 for 3
    assert spread(beta=3.0) == pytest.approx(3.0, rel=0.35)
    assert spread(beta=0.0) == pytest.approx(0.13, rel=0.35)
    assert spread(iid=True) < 0.02


def test_wrong_arguments_of_synthetic_data_are_refused():
    for arguments, message in (
        ({"alpha": -1}, "alpha"), ({"beta": "x"}, "beta"), ({"nodes": 0}, "nodes"),
        ({"sizes": [3]}, "sizes"), ({"alpha": 1, "iid": True}, "iid"),
    ):  # fmt: skip
        with pytest.raises(FedbiomedValueError, match=message):
            fedprox_synthetic(**arguments)
