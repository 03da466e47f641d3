"""Data of a scikit-learn plan: arrays, split into training and test batches."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.arrays import as_numbers, kept_count
from fedbiomed.common.data.np_data_loader import NPDataLoader
from fedbiomed.common.exceptions import FedbiomedSkLearnDataManagerError

_Array = np.ndarray[Any, Any]
_ALLOWED = tuple(inspect.signature(NPDataLoader).parameters)[2:]


class SkLearnDataManager:
    """Holds inputs and targets and makes loaders of them.

    Args:
        inputs: `(n, d)` or `(n,)`.
        target: `(n,)` or `(n, m)`.
        **loader_kwargs: of `NPDataLoader`.

    Raises:
        FedbiomedDataManagerError: they are no tables of numbers.
    """

    def __init__(self, inputs: Any, target: Any, **loader_kwargs: Any) -> None:
        self._inputs = as_numbers(inputs, "dataset")
        self._target = as_numbers(target, "target")
        self._loader_args = dict(loader_kwargs)

    @property
    def dataset(self) -> _Array:
        """The inputs."""
        return self._inputs

    @property
    def target(self) -> _Array:
        """The targets."""
        return self._target

    def extend_loader_args(self, extension: Mapping[str, Any]) -> None:
        """Fill in arguments of the loader that were not given."""
        self._loader_args = {**extension, **self._loader_args}

    def split(self, test_ratio: float, seed: int | None = None) -> tuple[NPDataLoader, NPDataLoader]:
        """Loaders of training and test samples.

        Args:
            test_ratio: share of samples kept for tests, rounded up as scikit-learn does; 0 keeps the order of the samples.
            seed: the same seed gives the same split; None draws from numpy's own generator.

        Returns:
            Training batches; one batch of all test samples. Either may be empty.

        Raises:
            FedbiomedSkLearnDataManagerError: the loader does not know an argument, or lengths differ.
            FedbiomedDataManagerError: the ratio is not from 0 to 1.
        """
        strange = [name for name in self._loader_args if name not in _ALLOWED]
        if strange:
            raise FedbiomedSkLearnDataManagerError(
                f"{ErrorNumbers.FB632.value}: a loader of arrays has no argument {strange[0]!r}; it has {', '.join(_ALLOWED)}"
            )
        train, test = self._indices(test_ratio, seed)
        whole_test = {"batch_size": max(1, len(test))}
        return self._loader(train, self._loader_args), self._loader(test, whole_test)

    def _indices(self, test_ratio: float, seed: int | None) -> tuple[_Array, _Array]:
        from sklearn.model_selection import train_test_split  # heavy, loaded when data are split

        everything = np.arange(len(self._inputs))
        kept = kept_count(len(everything), test_ratio, round_up=True)
        if kept in (0, len(everything)):
            return (everything, everything[:0]) if not kept else (everything[:0], everything)
        train, test = train_test_split(everything, test_size=kept, random_state=seed)
        return train, test

    def _loader(self, chosen: _Array, args: Mapping[str, Any]) -> NPDataLoader:
        if len(self._inputs) != len(self._target):
            raise FedbiomedSkLearnDataManagerError(
                f"{ErrorNumbers.FB632.value}: dataset has {len(self._inputs)} samples, target {len(self._target)}"
            )
        return NPDataLoader(self._inputs[chosen], self._target[chosen], **args)
