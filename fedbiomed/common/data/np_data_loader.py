"""Batches from arrays, for scikit-learn plans."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.arrays import as_numbers
from fedbiomed.common.exceptions import FedbiomedSkLearnDataManagerError

_Array = np.ndarray[Any, Any]


class NPDataLoader:
    """Batches of inputs and targets; each iteration goes over all samples once.

    Args:
        dataset: `(n, d)`, or `(n,)`, which becomes a column.
        target: `(n, ...)`; `(n,)` becomes a column.
        batch_size: samples per batch; the last one may have less.
        shuffle: in another order each time.
        random_seed: of that order; None draws from numpy's own generator, which a plan's `random_seed` seeds.
        drop_last: leave a last batch of less samples out.

    Raises:
        FedbiomedSkLearnDataManagerError: inputs and targets differ in length, inputs have more than 2 dimensions, or a wrong argument.
        FedbiomedDataManagerError: they hold something that is not a number.
    """

    def __init__(  # noqa: PLR0917  the names and order that users know
        self,
        dataset: Any,
        target: Any,
        batch_size: int = 1,
        shuffle: bool = False,  # by position in the public signature
        random_seed: int | None = None,
        drop_last: bool = False,  # by position in the public signature
    ) -> None:
        self.dataset = _column(as_numbers(dataset, "dataset"))
        self.target = _column(as_numbers(target, "target"))
        if self.dataset.ndim != 2:
            raise _refused(f"inputs of shape {self.dataset.shape} have more than 2 dimensions; reshape them to (n, features)")
        if len(self.dataset) != len(self.target):
            raise _refused(f"dataset has {len(self.dataset)} samples, target {len(self.target)}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise _refused(f"batch_size must be an integer of 1 or more, not {batch_size!r:.80}")
        if not isinstance(shuffle, bool) or not isinstance(drop_last, bool):
            raise _refused(f"shuffle and drop_last must be True or False, not {shuffle!r:.80} and {drop_last!r:.80}")
        if random_seed is not None and (isinstance(random_seed, bool) or not isinstance(random_seed, int) or random_seed < 0):
            raise _refused(f"random_seed must be None or an integer of 0 or more, not {random_seed!r:.80}")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self._generator = None if random_seed is None else np.random.default_rng(random_seed)

    def __len__(self) -> int:
        """Number of batches."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last else whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[_Array, _Array]]:
        order = self._order()
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.dataset[chosen], self.target[chosen]

    def _order(self) -> _Array:
        count = len(self.dataset)
        if not self.shuffle:
            return np.arange(count)
        return np.random.permutation(count) if self._generator is None else self._generator.permutation(count)


def _column(array: _Array) -> _Array:
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _refused(reason: str) -> FedbiomedSkLearnDataManagerError:
    return FedbiomedSkLearnDataManagerError(f"{ErrorNumbers.FB632.value}: {reason}")
