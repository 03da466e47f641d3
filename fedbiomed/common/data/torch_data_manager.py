"""Data of a torch plan: a dataset, split into training and test batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, random_split

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.arrays import kept_count
from fedbiomed.common.exceptions import FedbiomedTorchDataManagerError

# Arguments of a loader that say which samples come when; a test loader gives all at once.
_ORDERING = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last")


class TorchDataManager:
    """Holds a dataset and makes loaders of it.

    Args:
        dataset: with `__len__` and `__getitem__`.
        **loader_kwargs: of torch's `DataLoader`.

    Raises:
        FedbiomedTorchDataManagerError: it is no such dataset.
    """

    def __init__(self, dataset: Any, **loader_kwargs: Any) -> None:
        if not isinstance(dataset, Dataset) or not hasattr(dataset, "__len__"):
            raise _refused(f"a torch plan needs a torch Dataset with a length, or arrays with a target; not a {type(dataset).__name__}")
        self._dataset: Dataset[Any] = dataset
        self._count = len(dataset)
        self._loader_args = dict(loader_kwargs)

    @property
    def dataset(self) -> Dataset[Any]:
        """The whole dataset."""
        return self._dataset

    def extend_loader_args(self, extension: Mapping[str, Any]) -> None:
        """Fill in arguments of the loader that were not given."""
        self._loader_args = {**extension, **self._loader_args}

    def split(self, test_ratio: float, seed: int | None = None) -> tuple[DataLoader[Any] | None, DataLoader[Any] | None]:
        """Loaders of training and test samples.

        Args:
            test_ratio: share of samples kept for tests, rounded down; 0 keeps the order of the samples.
            seed: the same seed gives the same split; None draws from torch's own generator.

        Returns:
            Training batches; one batch of all test samples. None for what has no samples.

        Raises:
            FedbiomedTorchDataManagerError: the loader refuses an argument.
            FedbiomedDataManagerError: the ratio is not from 0 to 1.
        """
        kept = kept_count(self._count, test_ratio, round_up=False)
        reading = {name: value for name, value in self._loader_args.items() if name not in _ORDERING}
        if not kept:
            return _loader(self._dataset, self._count, self._loader_args), None
        whole_test = {**reading, "batch_size": kept}
        if kept == self._count:
            return None, _loader(self._dataset, kept, whole_test)
        generator = torch.default_generator if seed is None else torch.Generator().manual_seed(seed)
        train, test = random_split(self._dataset, [self._count - kept, kept], generator=generator)
        return _loader(train, self._count - kept, self._loader_args), _loader(test, kept, whole_test)


def _loader(samples: Dataset[Any], count: int, args: Mapping[str, Any]) -> DataLoader[Any] | None:
    if not count:
        return None
    try:
        return DataLoader(samples, **args)
    except (TypeError, ValueError) as error:
        raise _refused(f"torch's DataLoader refuses the arguments {sorted(args)}: {error}") from error


def _refused(reason: str) -> FedbiomedTorchDataManagerError:
    return FedbiomedTorchDataManagerError(f"{ErrorNumbers.FB632.value}: {reason}")
