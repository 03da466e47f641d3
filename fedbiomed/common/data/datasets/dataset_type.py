"""What a kind of dataset must be able to do: be looked at once, when the operator registers it.

A kind is a file in this folder with one class derived from `DatasetType`; the file's name is what `--type` and `data_type` say.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedbiomed.common.data.datasets as family
from fedbiomed.common.exceptions import FedbiomedPluginError
from fedbiomed.common.plugins import load_member, member_names

_CONTRACT = "dataset_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What others may know of a dataset.

    Args:
        shape: sizes, the number of samples first.
        dtypes: one name per column, as pandas spells it; empty where there are no columns.
    """

    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = ()


class DatasetType(ABC):
    """One kind of dataset."""

    @abstractmethod
    def describe(self, path: Path, parameters: Mapping[str, Any]) -> Description:
        """Look at a dataset, changing nothing.

        Args:
            path: the file or folder.
            parameters: what the operator said beside the path, `dataset_parameters`.

        Raises:
            FedbiomedDatasetError: it is not there or not of this kind: what was found, what is needed.
        """


def type_names() -> list[str]:
    """The kinds there are, sorted."""
    return [name for name in member_names(family) if name != _CONTRACT]


def load_type(name: str) -> DatasetType:
    """Make the kind of that name.

    Raises:
        FedbiomedPluginError: there is none.
    """
    if name in type_names():
        module = load_member(family, name)
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, DatasetType) and value.__module__ == module.__name__:
                made: DatasetType = value()
                return made
    raise FedbiomedPluginError(f"no dataset type {name!r:.80}; there are {', '.join(type_names())}")
