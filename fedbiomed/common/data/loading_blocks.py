"""Blocks of a data loading plan: each says how one thing of a dataset looks on this node.

Blocks are restored from `_BLOCKS`, a closed table: a stored plan names a class, and nothing is imported by a name that stood in a file.
"""

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

from fedbiomed.common.constants import DataLoadingBlockTypes, ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedLoadingBlockError, FedbiomedLoadingBlockValueError

Check = Callable[[Any], bool]
_PACKAGE = "fedbiomed.common.data"
_BLOCK_ID = re.compile(r"serialized_dlb_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class MedicalFolderLoadingBlockTypes(DataLoadingBlockTypes):
    """What of a medical folder may differ between nodes."""

    MODALITIES_TO_FOLDERS = "modalities_to_folders"


class FlambyLoadingBlockTypes(DataLoadingBlockTypes):
    """What of a FLamby dataset may differ between nodes."""

    FLAMBY_DATASET_METADATA = "flamby_dataset_metadata"


class SerializationValidation:
    """Checks serialized blocks and plans field by field.

    A scheme is `{field: (what it must be, in words, and the function that says whether it is)}`; all fields are needed.
    """

    def __init__(self) -> None:
        self._scheme: dict[str, tuple[str, Check]] = {}

    @property
    def validation_scheme(self) -> dict[str, tuple[str, Check]]:
        """The fields that are checked, a copy."""
        return dict(self._scheme)

    def update_validation_scheme(self, new_scheme: Mapping[str, tuple[str, Check]]) -> None:
        """Add fields, or replace their checks."""
        self._scheme |= new_scheme

    def validate(self, metadata: Any, exception_type: type[FedbiomedError] = FedbiomedLoadingBlockValueError) -> None:
        """Check all fields; fields that the scheme does not know are left alone.

        Raises:
            exception_type: not a dict, or a field is missing or wrong.
        """
        code = (ErrorNumbers.FB614 if issubclass(exception_type, FedbiomedLoadingBlockError) else ErrorNumbers.FB615).value
        if not isinstance(metadata, Mapping):
            raise exception_type(f"{code}: expected an object, not {metadata!r:.80}")
        for field, (needed, is_right) in self._scheme.items():
            if field not in metadata:
                raise exception_type(f"{code}: {field!r} is missing; it must be {needed}")
            if not is_right(metadata[field]):
                raise exception_type(f"{code}: {field!r} must be {needed}, not {metadata[field]!r:.80}")


class DataLoadingBlock(ABC):
    """One customisation of a dataset.

    A block has an id of its own, is written by `serialize` and read by `deserialize`, and does its work in `apply`.
    """

    def __init__(self) -> None:
        self._serialization_id = f"serialized_dlb_{uuid.uuid4()}"
        self._serialization_validator = SerializationValidation()
        self._serialization_validator.update_validation_scheme(
            {
                "loading_block_class": (f"{type(self).__name__!r}", lambda value: value == type(self).__name__),
                "loading_block_module": ("a module's name", is_module_name),
                "dlb_id": ("'serialized_dlb_' and a uuid", is_block_id),
            }
        )

    def get_serialization_id(self) -> str:
        """The block's id, `serialized_dlb_<uuid4>`."""
        return self._serialization_id

    def serialize(self) -> dict[str, Any]:
        """The block as JSON values: `loading_block_class`, `loading_block_module`, `dlb_id`, and what the block adds."""
        return {
            "loading_block_class": type(self).__name__,
            "loading_block_module": type(self).__module__,
            "dlb_id": self._serialization_id,
        }

    def deserialize(self, load_from: Mapping[str, Any]) -> Self:
        """Take over what `serialize` gave; returns the block itself, which stays as it was when that is malformed.

        Raises:
            FedbiomedLoadingBlockValueError: a field is missing or wrong.
        """
        self._serialization_validator.validate(load_from)
        self._serialization_id = load_from["dlb_id"]
        return self

    @abstractmethod
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the block is for."""


class MapperBlock(DataLoadingBlock):
    """Looks a value up.

    Attributes:
        map: what stands for what; for `MODALITIES_TO_FOLDERS` a modality's name and the list of the folders' names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.map: dict[str, Any] = {}
        self._serialization_validator.update_validation_scheme({"map": ("an object", _is_text_map)})

    def serialize(self) -> dict[str, Any]:
        """See `DataLoadingBlock`; adds `map`."""
        return {**super().serialize(), "map": dict(self.map)}

    def deserialize(self, load_from: Mapping[str, Any]) -> Self:
        """See `DataLoadingBlock`."""
        super().deserialize(load_from)
        self.map = dict(load_from["map"])
        return self

    def apply(self, key: str) -> Any:
        """What stands for a key.

        Raises:
            FedbiomedLoadingBlockError: the map is no dict, or does not hold the key.
        """
        if not isinstance(self.map, dict) or not self.map:
            raise FedbiomedLoadingBlockError(f"{ErrorNumbers.FB614.value}: the mapper has no map; set `map` to a dict")
        if key not in self.map:
            raise FedbiomedLoadingBlockError(
                f"{ErrorNumbers.FB614.value}: the loading plan does not map {key!r:.80}; it maps {', '.join(map(str, self.map))}"
            )
        return self.map[key]


class FlambyDatasetMetadataBlock(DataLoadingBlock):
    """Says which FLamby dataset, and which of its centers, this node is.

    Attributes:
        metadata: `flamby_dataset_name`, a module of `flamby.datasets`; `flamby_center_id`, an integer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, Any] = {"flamby_dataset_name": None, "flamby_center_id": None}
        self._serialization_validator.update_validation_scheme(
            {
                "flamby_dataset_name": ("the name of a module of flamby.datasets", is_flamby_name),
                "flamby_center_id": ("an integer of 0 or more", is_count),
            }
        )

    def serialize(self) -> dict[str, Any]:
        """See `DataLoadingBlock`; adds `flamby_dataset_name` and `flamby_center_id`."""
        return {**super().serialize(), **self.metadata}

    def deserialize(self, load_from: Mapping[str, Any]) -> Self:
        """See `DataLoadingBlock`."""
        super().deserialize(load_from)
        self.metadata = {key: load_from[key] for key in self.metadata}
        return self

    def apply(self) -> dict[str, Any]:
        """`flamby_dataset_name` and `flamby_center_id`.

        Raises:
            FedbiomedLoadingBlockError: one of them is not set, or wrong.
        """
        name, center = self.metadata.get("flamby_dataset_name"), self.metadata.get("flamby_center_id")
        if not is_flamby_name(name) or not is_count(center):
            raise FedbiomedLoadingBlockError(
                f"{ErrorNumbers.FB614.value}: the block needs flamby_dataset_name, a module of flamby.datasets, and flamby_center_id, an "
                f"integer of 0 or more; found {name!r:.80} and {center!r:.80}"
            )
        return {"flamby_dataset_name": name, "flamby_center_id": center}


_BLOCKS: Mapping[str, type[DataLoadingBlock]] = {block.__name__: block for block in (MapperBlock, FlambyDatasetMetadataBlock)}
_KEYS: tuple[type[DataLoadingBlockTypes], ...] = (MedicalFolderLoadingBlockTypes, FlambyLoadingBlockTypes)


def restored_block(load_from: Any) -> DataLoadingBlock:
    """The block that `serialize` wrote.

    Raises:
        FedbiomedLoadingBlockValueError: it is malformed, or of no class of this package.
    """
    name = load_from.get("loading_block_class") if isinstance(load_from, Mapping) else load_from
    if not isinstance(name, str) or name not in _BLOCKS:
        raise FedbiomedLoadingBlockValueError(
            f"{ErrorNumbers.FB614.value}: no class of loading blocks {name!r:.80}; there are {', '.join(_BLOCKS)}"
        )
    return _BLOCKS[name]().deserialize(load_from)


def key_by_value(value: str) -> DataLoadingBlockTypes | None:
    """The key of a plan that is written so, if there is one."""
    return next((key for family in _KEYS for key in family if key.value == value), None)


def key_values() -> list[str]:
    """How all keys of plans are written."""
    return [str(key.value) for family in _KEYS for key in family]


def is_block_id(value: Any) -> bool:
    """Whether it is an id of a block."""
    return isinstance(value, str) and _BLOCK_ID.fullmatch(value) is not None


def is_module_name(value: Any) -> bool:
    """Whether it names a module of this package; the name is for readers, it is never imported."""
    return isinstance(value, str) and (value == _PACKAGE or value.startswith(f"{_PACKAGE}."))


def is_flamby_name(value: Any) -> bool:
    """Whether it could be the name of a module of `flamby.datasets`."""
    return isinstance(value, str) and re.fullmatch(r"fed_\w+", value, re.ASCII) is not None


def is_count(value: Any) -> bool:
    """Whether it is an integer of 0 or more."""
    return type(value) is int and value >= 0


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
