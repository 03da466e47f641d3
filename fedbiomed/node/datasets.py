"""The node's datasets: what the operator registered, and what others may know of it."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import DatasetTypes
from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description, load_type
from fedbiomed.common.data.loading_plan import DataLoadingPlan, check_folder_map
from fedbiomed.common.exceptions import (
    FedbiomedDataLoadingPlanError,
    FedbiomedDatasetError,
    FedbiomedDatasetManagerError,
    FedbiomedLoadingBlockError,
    FedbiomedPluginError,
)
from fedbiomed.common.messages.message import is_json
from fedbiomed.node.loading_plans import LoadingPlanStore
from fedbiomed.node.store import NodeStore

_COLUMNS = ("name", "data_type", "tags", "description", "shape", "path", "dataset_id", "dtypes", "dataset_parameters")
# What of `dataset_parameters` tells where data lie, whatever the type.
_PRIVATE_PARAMETERS = frozenset({"tabular_file"})
_JSON_COLUMNS = ("tags", "shape", "dtypes", "dataset_parameters")
# Limits that let a dataset's description always fit into one message.
_MAX_NAME, _MAX_DESCRIPTION, _MAX_TAG, _MAX_TAGS, _MAX_PARAMETERS = 200, 4000, 100, 32, 16_000


class DatasetRegistry:
    """Registers, finds and forgets datasets; the data itself is never touched.

    A dataset is a dict of `name, data_type, tags, description, shape, path, dataset_id, dtypes, dataset_parameters`, and `dlp_id` where it
    has a loading plan. `path` is None for a type whose data lie at no path of the operator's.

    Args:
        store: the node's database; changes made by other processes are seen at once.
    """

    def __init__(self, store: NodeStore) -> None:
        self._store = store
        self._plans = LoadingPlanStore(store)

    def add(
        self,
        *,
        name: str,
        data_type: str,
        tags: Sequence[str],
        path: Path | None = None,
        description: str = "",
        dataset_parameters: Mapping[str, Any] | None = None,
        loading_plan: DataLoadingPlan | None = None,
    ) -> dict[str, Any]:
        """Look at a dataset and register it.

        Args:
            name: for people.
            data_type: a file of `common/data/datasets`: `csv`, `default`, `medical-folder` ...
            tags: by which researchers search; of two datasets none may bear all tags of the other.
            path: the file or folder; kept as an absolute path. None for a type that has none.
            description: for people.
            dataset_parameters: handed to the training plan's dataset; JSON values.
            loading_plan: how this node's data become what training plans expect; kept with the dataset.

        Returns:
            The new row, with its `dataset_id`.

        Raises:
            FedbiomedDatasetManagerError: FB322: an argument is wrong, the data is not there or not of this type, tags conflict, the
                loading plan does not fit. Nothing is changed then.
        """
        row: dict[str, Any] = {
            "name": _text("name", name, _MAX_NAME),
            "data_type": data_type,
            "tags": _checked_tags(tags),
            "description": _text("description", description, _MAX_DESCRIPTION, may_be_empty=True),
            "path": None,
            "dataset_id": f"dataset_{uuid.uuid4()}",
            "dataset_parameters": _checked_parameters(dataset_parameters),
        }
        try:
            kind = load_type(data_type)
            row["dataset_parameters"] = _absolute(row["dataset_parameters"], kind)
            plan = _checked_plan(loading_plan, kind, data_type)
            found, place = _described(kind, path, row["dataset_parameters"], plan)
        except (FedbiomedDatasetError, FedbiomedPluginError, FedbiomedLoadingBlockError, FedbiomedDataLoadingPlanError) as error:
            raise FedbiomedDatasetManagerError(f"FB322: cannot register {name!r}: {error}") from error
        shape = found.shape if isinstance(found.shape, dict) else list(found.shape)
        row |= {"shape": shape, "dtypes": list(found.dtypes), "path": None if place is None else str(place)}
        row = {column: row[column] for column in _COLUMNS}
        with self._store.transaction():
            if plan is not None:
                row["dlp_id"] = self._plans.add(plan)
            self._insert(row)
        return row

    def all(self) -> list[dict[str, Any]]:
        """Every dataset, in the order of registration."""
        with self._store.transaction() as connection:
            return [_row(found) for found in connection.execute("SELECT * FROM datasets ORDER BY rowid")]

    def search(self, tags: Iterable[str]) -> list[dict[str, Any]]:
        """Datasets that bear all of these tags; no tag asks for all of them."""
        wanted = set(tags)
        return [row for row in self.all() if wanted <= set(row["tags"])]

    def get(self, dataset_id: str) -> dict[str, Any]:
        """One dataset, whose data is there.

        Raises:
            FedbiomedDatasetManagerError: FB313: no such id, or the file is gone; the text names no path, for it may go to a researcher.
        """
        row = self._find(dataset_id)
        places = [row["path"], *(row["dataset_parameters"].get(name) for name in sorted(_PRIVATE_PARAMETERS))]
        if not all(_is_there(Path(place)) for place in places if isinstance(place, str)):
            raise FedbiomedDatasetManagerError(
                f"FB313: the data of dataset {row['name']!r} ({dataset_id}) is not where it was registered; "
                "the node's operator must put it back or register it anew"
            )
        return row

    def loading_plan(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """The loading plan of a dataset as `DataLoadingPlan.serialize` gives it, if it has one."""
        return self._plans.get(row["dlp_id"]) if "dlp_id" in row else None

    def remove(self, dataset_id: str) -> dict[str, Any]:
        """Forget a dataset, and its loading plan if no other uses it; the data stays where it is.

        Returns:
            The row that was removed.

        Raises:
            FedbiomedDatasetManagerError: FB313: no such id.
        """
        with self._store.transaction() as connection:
            row = self._find(dataset_id)
            connection.execute("DELETE FROM datasets WHERE dataset_id = ?", (dataset_id,))
            self._plans.forget_unused()
        return row

    def _find(self, dataset_id: str) -> dict[str, Any]:
        with self._store.transaction() as connection:
            found = connection.execute("SELECT * FROM datasets WHERE dataset_id = ?", (dataset_id,)).fetchone()
        if found is None:
            raise FedbiomedDatasetManagerError(
                f"FB313: this node has no dataset {dataset_id!r:.120}; search for datasets to see what it has"
            )
        return _row(found)

    def _insert(self, row: Mapping[str, Any]) -> None:
        with self._store.transaction() as connection:
            for other in self.all():
                _refuse_conflict(row["tags"], other)
            values = {column: json.dumps(row[column]) if column in _JSON_COLUMNS else row[column] for column in _COLUMNS}
            # The table does not take NULL for a path; rows before loading plans were kept have none.
            stored = {**values, "path": row["path"] or "", "dlp_id": row.get("dlp_id")}
            marks = ", ".join("?" for _ in stored)
            connection.execute(f"INSERT INTO datasets ({', '.join(stored)}) VALUES ({marks})", list(stored.values()))


def public_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a researcher may know of a dataset: everything but where it, or the table beside it, lies."""
    known = {column: row[column] for column in (*_COLUMNS, "dlp_id") if column != "path" and column in row}
    parameters = {name: value for name, value in row["dataset_parameters"].items() if name not in _PRIVATE_PARAMETERS}
    return known | {"dataset_parameters": parameters}


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    row = {column: json.loads(found[column]) if column in _JSON_COLUMNS else found[column] for column in _COLUMNS}
    row["path"] = found["path"] or None
    return row if found["dlp_id"] is None else row | {"dlp_id": found["dlp_id"]}


def _described(
    kind: DatasetType, path: Path | None, parameters: Mapping[str, Any], plan: DataLoadingPlan | None
) -> tuple[Description, Path | None]:
    if not kind.has_path:
        if path is not None:
            raise FedbiomedDatasetError("a dataset of this type has no path; leave it out")
        return kind.describe(Path(), parameters, plan), None
    if path is None:
        raise FedbiomedDatasetError("a dataset of this type needs a path")
    place = _resolved(path)
    found = kind.describe(place, parameters, plan)
    return found, found.path or place


def _resolved(path: Path) -> Path:
    try:
        place = path.expanduser().resolve()
        place.exists()  # for what the system says of a name that can be none
        str(place).encode()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a link to itself, too long, not UTF-8
        raise FedbiomedDatasetError(f"{str(path)!r:.200} is no path that can be used: {error!s:.200}") from error
    return place


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a folder above may not be read
        return False


def _absolute(parameters: Mapping[str, Any], kind: DatasetType) -> dict[str, Any]:
    strange = set() if kind.parameters is None else parameters.keys() - kind.parameters
    if strange:
        known = ", ".join(sorted(kind.parameters or ())) or "none"
        raise FedbiomedDatasetError(f"a dataset of this type has no parameter {min(strange)!r:.80}; it has {known}")
    paths = {name: value for name, value in parameters.items() if name in kind.path_parameters and isinstance(value, str)}
    return {**parameters, **{name: str(_resolved(Path(value))) for name, value in paths.items()}}


def _checked_plan(plan: DataLoadingPlan | None, kind: DatasetType, data_type: str) -> DataLoadingPlan | None:
    """A copy of a plan that says what type it is for."""
    if plan is None:
        return None
    if kind.block_key is None:
        raise FedbiomedDatasetError(f"a dataset of type {data_type} takes no loading plan; leave it out")
    if set(plan) != {kind.block_key}:
        found = ", ".join(str(key.value) for key in plan) or "nothing"
        raise FedbiomedDatasetError(f"the loading plan of a {data_type} dataset holds {kind.block_key.value}; this one holds {found}")
    if plan.target_dataset_type not in (DatasetTypes.NONE, data_type):
        raise FedbiomedDatasetError(f"the loading plan is for datasets of type {plan.target_dataset_type}, not {data_type}")
    check_folder_map(plan)
    copy = DataLoadingPlan().deserialize(*plan.serialize())
    copy.target_dataset_type = DatasetTypes(data_type) if data_type in list(DatasetTypes) else DatasetTypes.NONE
    return copy


def _text(what: str, value: str, limit: int, *, may_be_empty: bool = False) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if (not text and not may_be_empty) or not _is_text(value) or len(text) > limit:
        raise FedbiomedDatasetManagerError(
            f"FB322: the {what} of a dataset is a text of {0 if may_be_empty else 1} to {limit} characters, not {value!r:.80}"
        )
    return text


def _is_text(value: object) -> bool:
    """Whether it can be written as UTF-8: JSON can spell halves of characters."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_tags(tags: Sequence[str]) -> list[str]:
    if isinstance(tags, str) or not all(_is_text(tag) for tag in tags):
        raise FedbiomedDatasetManagerError(f"FB322: tags are a list of texts, not {tags!r:.80}")
    found = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if not 0 < len(found) <= _MAX_TAGS or any(len(tag) > _MAX_TAG for tag in found):
        raise FedbiomedDatasetManagerError(
            f"FB322: a dataset has 1 to {_MAX_TAGS} tags of at most {_MAX_TAG} characters by which researchers find it, not {found!r:.120}"
        )
    return found


def _checked_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {} if parameters is None else parameters
    if not isinstance(found, Mapping) or not is_json(found) or not _is_short_json(found):
        raise FedbiomedDatasetManagerError(
            f"FB322: dataset_parameters is an object of JSON values of at most {_MAX_PARAMETERS} characters, not {found!r:.80}"
        )
    return dict(found)


def _is_short_json(value: Mapping[str, Any]) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return len(json.dumps(value, allow_nan=False)) <= _MAX_PARAMETERS
    except ValueError:
        return False


def _refuse_conflict(tags: Sequence[str], other: Mapping[str, Any]) -> None:
    mine, theirs = set(tags), set(other["tags"])
    if mine <= theirs or theirs <= mine:
        raise FedbiomedDatasetManagerError(
            f"FB322: tags {', '.join(tags)} conflict with {', '.join(other['tags'])} of dataset {other['name']!r} ({other['dataset_id']}): "
            "of two datasets none may bear all tags of the other; choose other tags"
        )
