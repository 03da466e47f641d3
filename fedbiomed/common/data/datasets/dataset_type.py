"""What a kind of dataset must be able to do: be looked at once, when the operator registers it.

A kind is a file in this folder with one class derived from `DatasetType`; the file's name, with `-` for `_`, is what `--type` and
`data_type` say.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fedbiomed.common.data.datasets as family
from fedbiomed.common.constants import DataLoadingBlockTypes
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedPluginError
from fedbiomed.common.plugins import load_member, member_names

_CONTRACT = "dataset_type"
Shape = tuple[int, ...] | dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What others may know of a dataset.

    Args:
        shape: sizes, the number of samples first; or an object of sizes by name, where a sample has several parts.
        dtypes: one name per column, as pandas spells it; empty where there are no columns.
        path: where the data really lie, if not at the path that was given; others do not know it.
    """

    shape: Shape
    dtypes: tuple[str, ...] = ()
    path: Path | None = None


class DatasetType(ABC):
    """One kind of dataset.

    Attributes:
        has_path: whether its data lie at a path that the operator names.
        block_key: what of it a data loading plan may customise; None: nothing.
        parameters: the `dataset_parameters` that it knows; None: any, for the training plan's own use.
        path_parameters: those of them that are paths, which stay on the node.
    """

    has_path: ClassVar[bool] = True
    block_key: ClassVar[DataLoadingBlockTypes | None] = None
    parameters: ClassVar[frozenset[str] | None] = None
    path_parameters: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Look at a dataset, changing nothing.

        Args:
            path: the file or folder; without meaning where `has_path` is False.
            parameters: what the operator said beside the path, `dataset_parameters`.
            plan: the operator's data loading plan; it holds `block_key`.

        Raises:
            FedbiomedDatasetError: it is not there or not of this kind: what was found, what is needed.
            FedbiomedLoadingBlockError, FedbiomedDataLoadingPlanError: the plan does not fit.
        """


def type_names() -> list[str]:
    """The kinds there are, sorted."""
    return [name.replace("_", "-") for name in member_names(family) if name != _CONTRACT]


def load_type(name: str) -> DatasetType:
    """Make the kind of that name.

    Raises:
        FedbiomedPluginError: there is none.
    """
    if name in type_names():
        module = load_member(family, name.replace("-", "_"))
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, DatasetType) and value.__module__ == module.__name__:
                made: DatasetType = value()
                return made
    raise FedbiomedPluginError(f"no dataset type {name!r:.80}; there are {', '.join(type_names())}")
