"""Split the samples of one data set over partitions whose labels differ, to try an algorithm before hospitals do.

Every sample whose label is named goes to exactly one partition; the order within a partition is random. Nothing is read or written here: an
array of labels goes in, indices of samples come out.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedValueError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Partition:
    """What a partitioner gives.

    Args:
        indices: of the samples of each partition, int64.
        distribution: by label, the share of its samples that each partition was meant to have; they sum to 1.
    """

    indices: tuple[Array, ...]
    distribution: Mapping[Hashable, Array]


class DirichletLabelPartitioner:
    """Draws for each label how its samples are shared, from a Dirichlet distribution with equal parameters (Hsu et al. 2019,
    arXiv:1909.06335).

    Numbers are rounded down and what is left goes, one sample each, to the partitions with the largest remainders, so no sample is lost. A
    draw that leaves a partition with fewer than `min_label_examples` samples of a label is made anew, a limited number of times.

    >>> labels = ["a"] * 60 + ["b"] * 40
    >>> parts = DirichletLabelPartitioner(3, ["a", "b"], beta=0.5, seed=1).partition(labels)
    >>> sum(len(part) for part in parts.indices)
    100

    Args:
        number_of_partitions: 1 or more.
        unique_labels: the labels whose samples are shared; samples with other labels are left out.
        min_label_examples: how many samples of each label each partition must have.
        beta: parameter of the Dirichlet distribution: the smaller, the more the partitions differ.
        prior_distribution: instead of `beta`: by label, the share of each partition, as in `Partition.distribution` of another data set.
        seed: the same seed gives the same split.
        max_retries: draws per label.

    Raises:
        FedbiomedValueError: a setting is out of its range, or not exactly one of `beta` and `prior_distribution` is given.
    """

    def __init__(
        self,
        number_of_partitions: int,
        unique_labels: Sequence[Hashable],
        min_label_examples: int = 0,
        beta: float | None = None,
        prior_distribution: Mapping[Hashable, Sequence[float] | Array] | None = None,
        *,
        seed: int | None = None,
        max_retries: int = 100,
    ) -> None:
        self.number_of_partitions = _count("number_of_partitions", number_of_partitions, 1)
        self.unique_labels = _distinct(unique_labels)
        self.min_label_examples = _count("min_label_examples", min_label_examples, 0)
        self.max_retries = _count("max_retries", max_retries, 1)
        if (beta is None) == (prior_distribution is None):
            raise FedbiomedValueError("give either beta or prior_distribution, not both and not none of them")
        if beta is not None and not (is_number(beta) and beta > 0):
            raise FedbiomedValueError(f"beta must be a number above 0, not {beta!r:.80}")
        self.beta, self.seed = beta, seed
        self.prior_distribution = None if prior_distribution is None else self._checked_prior(prior_distribution)

    def partition(self, labels: Sequence[Hashable] | Array) -> Partition:
        """Share the samples.

        Args:
            labels: one per sample.

        Raises:
            FedbiomedValueError: a label has no samples, or `min_label_examples` cannot be had: for which label, and what may be done.
        """
        draw = np.random.default_rng(self.seed)
        places = _places(labels, self.unique_labels)
        shared: list[list[Array]] = [[] for _ in range(self.number_of_partitions)]
        distribution: dict[Hashable, Array] = {}
        for label, own in places.items():
            shares, counts = self._counts(label, len(own), draw)
            distribution[label] = shares
            for part, some in zip(shared, np.split(draw.permutation(own), np.cumsum(counts)[:-1]), strict=True):
                part.append(some)
        return Partition(tuple(draw.permutation(np.concatenate(part)) for part in shared), distribution)

    def _counts(self, label: Hashable, samples: int, draw: np.random.Generator) -> tuple[Array, Array]:
        """Shares of one label, and numbers of samples that sum to all."""
        least = self.min_label_examples
        if samples < least * self.number_of_partitions:
            raise FedbiomedValueError(
                f"label {label!r} has {samples} samples, {self.number_of_partitions} partitions need {least} each: lower min_label_examples"
            )
        if self.prior_distribution is not None:
            shares = self.prior_distribution[label]
            counts = whole_numbers(shares, samples)
            if counts.min() < least:
                raise FedbiomedValueError(
                    f"prior_distribution gives partition {int(counts.argmin())} {counts.min()} samples of label {label!r}, "
                    f"min_label_examples is {least}: change one of them"
                )
            return shares, counts
        for _ in range(self.max_retries):
            shares = draw.dirichlet(np.full(self.number_of_partitions, self.beta))
            counts = whole_numbers(shares, samples)
            if counts.min() >= least:
                return shares, counts
        raise FedbiomedValueError(
            f"{self.max_retries} draws gave some partition fewer than {least} samples of label {label!r}: "
            "raise beta or max_retries, or lower min_label_examples"
        )

    def _checked_prior(self, given: Mapping[Hashable, Any]) -> dict[Hashable, Array]:
        checked = {}
        for label in self.unique_labels:
            shares = np.asarray(given.get(label, ()), dtype=np.float64)
            if shares.shape != (self.number_of_partitions,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
                raise FedbiomedValueError(
                    f"prior_distribution must hold {self.number_of_partitions} shares of 0 or more that sum to 1 for label {label!r}; "
                    f"found {shares.tolist()!r:.120}"
                )
            checked[label] = shares / shares.sum()
        return checked


class LabelSkewPartitioner:
    """Gives each partition samples of a few labels only, as in McMahan et al. 2017 (arXiv:1602.05629), section 3.

    Labels are dealt out in turn from a shuffled list, so that each is held by as many partitions as any other, up to one. The samples of a
    label are shared evenly by those who hold it; the first of them take one more where that does not come out even.

    Args:
        number_of_partitions: 1 or more.
        unique_labels: the labels whose samples are shared; samples with other labels are left out.
        labels_per_partition: how many labels each partition holds.
        seed: the same seed gives the same split.

    Raises:
        FedbiomedValueError: a setting is out of its range, or some label would be held by nobody.
    """

    def __init__(
        self, number_of_partitions: int, unique_labels: Sequence[Hashable], labels_per_partition: int = 2, *, seed: int | None = None
    ) -> None:
        self.number_of_partitions = _count("number_of_partitions", number_of_partitions, 1)
        self.unique_labels = _distinct(unique_labels)
        self.labels_per_partition = _count("labels_per_partition", labels_per_partition, 1)
        self.seed = seed
        if labels_per_partition > len(self.unique_labels):
            raise FedbiomedValueError(f"labels_per_partition is {labels_per_partition}, there are {len(self.unique_labels)} labels")
        if number_of_partitions * labels_per_partition < len(self.unique_labels):
            raise FedbiomedValueError(
                f"{number_of_partitions} partitions of {labels_per_partition} labels cannot hold {len(self.unique_labels)} labels: "
                "raise one of the two numbers"
            )

    def partition(self, labels: Sequence[Hashable] | Array) -> Partition:
        """Share the samples.

        Args:
            labels: one per sample.

        Raises:
            FedbiomedValueError: a label has fewer samples than partitions that hold it.
        """
        draw = np.random.default_rng(self.seed)
        places, order = _places(labels, self.unique_labels), draw.permutation(len(self.unique_labels))
        holders: dict[Hashable, list[int]] = {label: [] for label in self.unique_labels}
        for turn in range(self.number_of_partitions * self.labels_per_partition):
            holders[self.unique_labels[order[turn % len(order)]]].append(turn // self.labels_per_partition)
        shared: list[list[Array]] = [[] for _ in range(self.number_of_partitions)]
        distribution: dict[Hashable, Array] = {}
        for label, own in places.items():
            held_by = holders[label]
            if len(own) < len(held_by):
                raise FedbiomedValueError(
                    f"label {label!r} has {len(own)} samples, {len(held_by)} partitions hold it: take fewer partitions"
                )
            distribution[label] = np.bincount(held_by, minlength=self.number_of_partitions) / len(held_by)
            for index, some in zip(held_by, np.array_split(draw.permutation(own), len(held_by)), strict=True):
                shared[index].append(some)
        return Partition(tuple(draw.permutation(np.concatenate(part)) for part in shared), distribution)


def whole_numbers(shares: Array, total: int) -> Array:
    """Numbers that sum to a total, by the method of the largest remainder; of equal remainders the first partition goes first.

    >>> whole_numbers(np.array([0.5, 0.25, 0.25]), 5)
    array([3, 1, 1])

    Args:
        shares: 0 or more, summing to 1.
        total: 0 or more.
    """
    exact = np.asarray(shares) * total
    counts: Array = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _places(labels: Any, wanted: Sequence[Hashable]) -> dict[Hashable, Array]:
    """Indices of the samples of each label."""
    array = np.asarray(labels)
    if array.ndim != 1:
        raise FedbiomedValueError(f"labels must be one per sample; found an array of shape {array.shape}")
    places = {label: np.flatnonzero(array == label) for label in wanted}
    missing = [label for label, found in places.items() if not len(found)]
    if missing:
        raise FedbiomedValueError(f"no sample has the label {missing[0]!r}; the labels are {np.unique(array)[:20].tolist()}")
    return places


def _distinct(labels: Sequence[Hashable]) -> list[Hashable]:
    found = list(labels)
    if not found or len(set(found)) != len(found):
        raise FedbiomedValueError(f"unique_labels must be one or more labels, each once, not {found!r:.120}")
    return found


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FedbiomedValueError(f"{name} must be an integer of {least} or more, not {value!r:.80}")
    return value
