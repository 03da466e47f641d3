"""What a node remembers of its rounds of secure aggregation: records in the node's database, kept updates as files beside it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedbiomed.common.exceptions import FedbiomedNodeStoreError
from fedbiomed.common.files import sync_folder, written_whole
from fedbiomed.common.secagg.ledger import RoundRecord
from fedbiomed.common.secagg.quantise import Quantised
from fedbiomed.common.secagg.terms import Purpose, Weighting
from fedbiomed.node.store import NodeStore

T = TypeVar("T")


class StoredLedger:
    """See `common.secagg.ledger.Ledger`.

    Args:
        store: the node's database.
        folder: for kept updates; made when it is needed.
    """

    def __init__(self, store: NodeStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def record(self, sid: bytes, round_: int) -> RoundRecord | None:
        """The record of a round, None before its first attempt."""
        with self._store.transaction() as connection:
            row = connection.execute("SELECT * FROM secagg_rounds WHERE sid = ? AND round = ?", (sid, round_)).fetchone()
        if row is None:
            return None
        found = dict(row)
        return RoundRecord(**{**found, "has_revealed": bool(found["has_revealed"]), "is_closed": bool(found["is_closed"])})

    def save(self, record: RoundRecord) -> None:
        """Put a record in the place of the round's former one; on the disk when this returns.

        Raises:
            FedbiomedNodeStoreError: it cannot be written.
        """
        values = (record.sid, record.round, record.attempt, record.weight, record.self_seed, record.accepted)
        with self._store.transaction(sync=True) as connection:
            row = "INSERT OR REPLACE INTO secagg_rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            connection.execute(row, (*values, record.has_revealed, record.is_closed, record.bound))

    def keep_values(self, sid: bytes, round_: int, values: Mapping[Purpose, Quantised]) -> None:
        """Keep the quantised update of a round, in the place of any other; each file is there whole or not at all.

        Raises:
            FedbiomedNodeStoreError: it cannot be written.
        """
        self.drop_values(sid, round_)
        place = self._place(sid, round_)
        try:
            place.mkdir(parents=True, mode=0o700)
            for purpose, quantised in values.items():
                with written_whole(place / f"{purpose.value}.npz") as file:
                    weighting = np.array(quantised.weighting.value)
                    np.savez(file, values=quantised.values, clipped=np.float64(quantised.clipped), weighting=weighting)
            sync_folder(place)
        except OSError as error:
            raise FedbiomedNodeStoreError(f"cannot keep an update in {place}: {error.strerror or error}") from error

    def values(self, sid: bytes, round_: int) -> Mapping[Purpose, Quantised]:
        """The quantised update of a round; empty where none is kept.

        Raises:
            FedbiomedNodeStoreError: it cannot be read.
        """
        kept = self._kept(sid, round_, lambda file: Quantised(file["values"], float(file["clipped"]), _weighting(file)))
        return {Purpose(name): quantised for name, quantised in kept.items()}

    def weightings(self, sid: bytes, round_: int) -> set[Weighting]:
        """By what this node counts in the parts of the kept update; the values are not read.

        Raises:
            FedbiomedNodeStoreError: it cannot be read.
        """
        return set(self._kept(sid, round_, _weighting).values())

    def drop_values(self, sid: bytes, round_: int) -> None:
        """Delete the quantised update of a round."""
        shutil.rmtree(self._place(sid, round_), ignore_errors=True)

    def _kept(self, sid: bytes, round_: int, read: Callable[[Any], T]) -> dict[str, T]:
        """Something of each file of the kept update, by its name."""
        found = {}
        for path in sorted(self._place(sid, round_).glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as file:
                    found[path.stem] = read(file)
            except (OSError, ValueError, KeyError) as error:
                raise FedbiomedNodeStoreError(f"cannot read the kept update {path}: {error}") from error
        return found

    def _place(self, sid: bytes, round_: int) -> Path:
        return self._folder / f"{sid.hex()}_{round_}"


def _weighting(file: Any) -> Weighting:
    return Weighting(str(file["weighting"]))
