"""The node's datasets: what the operator registered, and what others may know of it."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.data.datasets.dataset_type import load_type
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetManagerError, FedbiomedPluginError
from fedbiomed.common.messages.message import is_json
from fedbiomed.node.store import NodeStore

_COLUMNS = ("name", "data_type", "tags", "description", "shape", "path", "dataset_id", "dtypes", "dataset_parameters")
_JSON_COLUMNS = ("tags", "shape", "dtypes", "dataset_parameters")
# Limits that let a dataset's description always fit into one message.
_MAX_NAME, _MAX_DESCRIPTION, _MAX_TAG, _MAX_TAGS, _MAX_PARAMETERS = 200, 4000, 100, 32, 16_000


class DatasetRegistry:
    """Registers, finds and forgets datasets; the data itself is never touched.

    A dataset is a dict of `name, data_type, tags, description, shape, path, dataset_id, dtypes, dataset_parameters`.

    Args:
        store: the node's database; changes made by other processes are seen at once.
    """

    def __init__(self, store: NodeStore) -> None:
        self._store = store

    def add(
        self,
        *,
        name: str,
        data_type: str,
        tags: Sequence[str],
        path: Path,
        description: str = "",
        dataset_parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Look at a dataset and register it.

        Args:
            name: for people.
            data_type: a file of `common/data/datasets`: `csv`, `default`.
            tags: by which researchers search; of two datasets none may bear all tags of the other.
            path: the file or folder; kept as an absolute path.
            description: for people.
            dataset_parameters: handed to the training plan beside the data; JSON values.

        Returns:
            The new row, with its `dataset_id`.

        Raises:
            FedbiomedDatasetManagerError: FB322: an argument is wrong, the data is not there or not of this type, tags conflict. Nothing
                is changed then.
        """
        row: dict[str, Any] = {
            "name": _text("name", name, _MAX_NAME),
            "data_type": data_type,
            "tags": _checked_tags(tags),
            "description": _text("description", description, _MAX_DESCRIPTION, may_be_empty=True),
            "path": str(path.expanduser().resolve()),
            "dataset_id": f"dataset_{uuid.uuid4()}",
            "dataset_parameters": _checked_parameters(dataset_parameters),
        }
        try:
            found = load_type(data_type).describe(Path(row["path"]), row["dataset_parameters"])
        except (FedbiomedDatasetError, FedbiomedPluginError) as error:
            raise FedbiomedDatasetManagerError(f"FB322: cannot register {name!r}: {error}") from error
        row |= {"shape": list(found.shape), "dtypes": list(found.dtypes)}
        row = {column: row[column] for column in _COLUMNS}
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
        if not Path(row["path"]).exists():
            raise FedbiomedDatasetManagerError(
                f"FB313: the data of dataset {row['name']!r} ({dataset_id}) is not where it was registered; "
                "the node's operator must put it back or register it anew"
            )
        return row

    def remove(self, dataset_id: str) -> dict[str, Any]:
        """Forget a dataset; the data stays where it is.

        Returns:
            The row that was removed.

        Raises:
            FedbiomedDatasetManagerError: FB313: no such id.
        """
        with self._store.transaction() as connection:
            row = self._find(dataset_id)
            connection.execute("DELETE FROM datasets WHERE dataset_id = ?", (dataset_id,))
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
            values = [json.dumps(row[column]) if column in _JSON_COLUMNS else row[column] for column in _COLUMNS]
            marks = ", ".join("?" for _ in _COLUMNS)
            connection.execute(f"INSERT INTO datasets ({', '.join(_COLUMNS)}) VALUES ({marks})", values)


def public_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a researcher may know of a dataset: everything but where it lies."""
    return {column: row[column] for column in _COLUMNS if column != "path"}


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    return {column: json.loads(found[column]) if column in _JSON_COLUMNS else found[column] for column in _COLUMNS}


def _text(what: str, value: str, limit: int, *, may_be_empty: bool = False) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if (not text and not may_be_empty) or not isinstance(value, str) or len(text) > limit:
        raise FedbiomedDatasetManagerError(
            f"FB322: the {what} of a dataset is a text of {0 if may_be_empty else 1} to {limit} characters, not {value!r:.80}"
        )
    return text


def _checked_tags(tags: Sequence[str]) -> list[str]:
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
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
