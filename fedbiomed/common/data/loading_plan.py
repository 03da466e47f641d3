"""Data loading plans: how a node's own layout of data becomes the one that training plans expect."""

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from fedbiomed.common.constants import DataLoadingBlockTypes, DatasetTypes, ErrorNumbers
from fedbiomed.common.data.loading_blocks import (
    DataLoadingBlock,
    FlambyDatasetMetadataBlock,
    FlambyLoadingBlockTypes,
    MapperBlock,
    MedicalFolderLoadingBlockTypes,
    SerializationValidation,
    is_block_id,
    key_by_value,
    key_values,
    restored_block,
)
from fedbiomed.common.exceptions import FedbiomedDataLoadingPlanError, FedbiomedDataLoadingPlanValueError

_PLAN_ID = re.compile(r"dlp_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT_FORM = (
    'a plan is the list [plan, blocks] that serialize() gives, or {"name": ..., "modalities_to_folders": {"T1": ["t1_mprage"], ...}}, or '
    '{"name": ..., "flamby_dataset_metadata": {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 0}}'
)


class DataLoadingPlan(dict[DataLoadingBlockTypes, DataLoadingBlock]):
    """Blocks by what they customise.

    Attributes:
        dlp_id: `dlp_<uuid4>`.
        desc: name for people.
        target_dataset_type: the type of datasets that it is for.

    Raises:
        FedbiomedDataLoadingPlanValueError: something else than blocks, or keys that are no `DataLoadingBlockTypes`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.dlp_id = f"dlp_{uuid.uuid4()}"
        self.desc = ""
        self.target_dataset_type = DatasetTypes.NONE
        self.update(*args, **kwargs)

    def __setitem__(self, key: DataLoadingBlockTypes, value: DataLoadingBlock) -> None:
        _require_entry(key, value)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add blocks, as `dict.update` does; all of them or none."""
        blocks = dict(*args, **kwargs)
        for key, value in blocks.items():
            _require_entry(key, value)
        super().update(blocks)

    def setdefault(self, key: DataLoadingBlockTypes, default: DataLoadingBlock | None = None) -> DataLoadingBlock:
        """As `dict.setdefault`."""
        if key not in self:
            self[key] = default  # type: ignore[assignment]  # refused there when it is None
        return self[key]

    def serialize(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The plan and its blocks as JSON values.

        Returns:
            `dlp_id`, `dlp_name`, `target_dataset_type`, `loading_blocks` (block ids by key), `key_paths` (module and class of each key);
            and the blocks, each as `DataLoadingBlock.serialize` gives it.
        """
        plan = {
            "dlp_id": self.dlp_id,
            "dlp_name": self.desc,
            "target_dataset_type": str(self.target_dataset_type),
            "loading_blocks": {str(key.value): block.get_serialization_id() for key, block in self.items()},
            "key_paths": {str(key.value): [type(key).__module__, type(key).__qualname__] for key in self},
        }
        return plan, [block.serialize() for block in self.values()]

    def deserialize(self, serialized_dlp: Mapping[str, Any], serialized_loading_blocks: Sequence[Mapping[str, Any]]) -> Self:
        """Take over what `serialize` gave; returns the plan itself, which stays as it was when that is malformed.

        Raises:
            FedbiomedDataLoadingPlanValueError: a field is missing or wrong, a key is unknown, a block is missing.
            FedbiomedLoadingBlockValueError: a block is malformed or of an unknown class.
        """
        _plan_validation().validate(serialized_dlp, FedbiomedDataLoadingPlanValueError)
        if not isinstance(serialized_loading_blocks, list | tuple):
            raise _malformed(f"the blocks must be a list, not {serialized_loading_blocks!r:.80}")
        restored = {block.get_serialization_id(): block for block in map(restored_block, serialized_loading_blocks)}
        blocks: dict[DataLoadingBlockTypes, DataLoadingBlock] = {}
        for name, block_id in serialized_dlp["loading_blocks"].items():
            key = key_by_value(name)
            if key is None or serialized_dlp["key_paths"].get(name) is None:
                raise _malformed(f"no plan has a key {name!r:.80}, or its key_paths lack it; there are {', '.join(key_values())}")
            if block_id not in restored:
                raise _malformed(f"the block {block_id} of {name!r} is not among the blocks")
            blocks[key] = restored[block_id]
        self.clear()
        super().update(blocks)
        self.dlp_id, self.desc = serialized_dlp["dlp_id"], serialized_dlp["dlp_name"]
        self.target_dataset_type = DatasetTypes(serialized_dlp["target_dataset_type"])
        return self

    def __str__(self) -> str:
        name = f" {self.desc}" if self.desc else ""
        return f"Data Loading Plan{name} id: {self.dlp_id} containing: {', '.join(str(key.value) for key in self) or 'nothing'}"


class DataLoadingPlanMixin:
    """For datasets that a data loading plan can customise."""

    def __init__(self) -> None:
        self._dlp: DataLoadingPlan | None = None

    def set_dlp(self, dlp: DataLoadingPlan) -> None:
        """Attach a plan.

        Raises:
            FedbiomedDataLoadingPlanValueError: it is no plan.
        """
        if not isinstance(dlp, DataLoadingPlan):
            raise _malformed(f"set_dlp() takes a DataLoadingPlan, not a {type(dlp).__name__}")
        self._dlp = dlp

    def clear_dlp(self) -> None:
        """Detach the plan."""
        self._dlp = None

    def apply_dlb(self, default_ret_value: Any, dlb_key: DataLoadingBlockTypes, *args: Any, **kwargs: Any) -> Any:
        """What the plan's block of that key makes of the arguments; without a plan or such a block, the default.

        Raises:
            FedbiomedDataLoadingPlanValueError: the key is no `DataLoadingBlockTypes`.
            FedbiomedLoadingBlockError: the block cannot be applied to these arguments.
        """
        if not isinstance(dlb_key, DataLoadingBlockTypes):
            raise _malformed(f"a key of a plan is one of DataLoadingBlockTypes, not {dlb_key!r:.80}")
        if self._dlp is None or dlb_key not in self._dlp:
            return default_ret_value
        return self._dlp[dlb_key].apply(*args, **kwargs)


def plan_from_json(content: Any) -> DataLoadingPlan:
    """Make a plan of JSON that an operator wrote, or that `serialize` gave.

    Args:
        content: `[plan, blocks]` as `DataLoadingPlan.serialize` gives them; or an object of `name` and one or more of
            `modalities_to_folders` (lists of folder names by modality) and `flamby_dataset_metadata`.

    Raises:
        FedbiomedDataLoadingPlanError: it is neither.
        FedbiomedLoadingBlockError: a block in it is malformed.
    """
    if isinstance(content, list) and len(content) == 2:
        plan = DataLoadingPlan().deserialize(content[0], content[1])
    elif isinstance(content, Mapping) and isinstance(content.get("name"), str) and content.keys() - {"name"} <= _SHORT_BLOCKS.keys():
        plan = DataLoadingPlan({key_by_value(key): _block(key, value) for key, value in content.items() if key != "name"})
        plan.desc = content["name"]
    else:
        raise _malformed(f"found {json.dumps(content):.120}; {_SHORT_FORM}")
    if not plan:
        raise _malformed(f"the plan {plan.desc!r} has no block; {_SHORT_FORM}")
    check_folder_map(plan)
    return plan


def check_folder_map(plan: Mapping[DataLoadingBlockTypes, DataLoadingBlock]) -> None:
    """Refuse a `MODALITIES_TO_FOLDERS` that does not name folders; a name must not lead out of the subject's folder.

    Raises:
        FedbiomedDataLoadingPlanValueError: of which modality, and what was found.
    """
    block = plan.get(MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS)
    if block is None:
        return
    if not isinstance(block, MapperBlock) or not block.map:
        raise _malformed("modalities_to_folders must map at least one modality to a list of folder names")
    for modality, folders in block.map.items():
        if not isinstance(folders, list | tuple) or not folders or not all(map(_is_folder_name, folders)):
            raise _malformed(f"modality {modality!r} must be mapped to a list of folder names, not to {folders!r:.80}")


def _block(key: str, value: Any) -> DataLoadingBlock:
    block = _SHORT_BLOCKS[key]()
    content = {"map": value} if isinstance(block, MapperBlock) else value
    if not isinstance(content, Mapping):
        raise _malformed(f"{key} must be an object, not {value!r:.80}")
    return block.deserialize({**content, **DataLoadingBlock.serialize(block)})


def _is_folder_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not {"/", "\\", "\0"} & set(value)


def _plan_validation() -> SerializationValidation:
    validation = SerializationValidation()
    validation.update_validation_scheme(
        {
            "dlp_id": ("'dlp_' and a uuid", lambda value: isinstance(value, str) and _PLAN_ID.fullmatch(value) is not None),
            "dlp_name": ("a text", lambda value: isinstance(value, str)),
            "target_dataset_type": (f"one of {', '.join(DatasetTypes)}", lambda value: value in list(DatasetTypes)),
            "loading_blocks": ("an object of block ids", lambda value: _is_dict_of(is_block_id, value)),
            "key_paths": (
                "an object of pairs, module and class",
                lambda value: _is_dict_of(_is_pair, value),
            ),
        }
    )
    return validation


def _is_dict_of(is_right: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_right, value.values()))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _require_entry(key: Any, value: Any) -> None:
    if not isinstance(key, DataLoadingBlockTypes) or not isinstance(value, DataLoadingBlock):
        raise _malformed(f"a plan maps DataLoadingBlockTypes to DataLoadingBlock, not {key!r:.80} to a {type(value).__name__}")


def _malformed(reason: str) -> FedbiomedDataLoadingPlanError:
    return FedbiomedDataLoadingPlanValueError(f"{ErrorNumbers.FB615.value}: {reason}")


_SHORT_BLOCKS: Mapping[str, type[DataLoadingBlock]] = {
    str(MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS.value): MapperBlock,
    str(FlambyLoadingBlockTypes.FLAMBY_DATASET_METADATA.value): FlambyDatasetMetadataBlock,
}
