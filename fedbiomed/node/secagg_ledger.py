"""What a node remembers of its rounds of secure aggregation: records in the node's database, kept updates as files beside it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedbiomed.common.exceptions import FedbiomedNodeStoreError
from fedbiomed.common.files import sync_folder, written_whole
from fedbiomed.common.secagg.ledger import Kept, RoundRecord
from fedbiomed.common.secagg.quantise import Quantised
from fedbiomed.common.secagg.terms import Purpose, Weighting
from fedbiomed.node.store import NodeStore


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

    def keep_values(self, sid: bytes, round_: int, values: Mapping[Purpose, Kept]) -> None:
        """Keep the quantised update of a round, in the place of any other; each file is there whole or not at all.

        Raises:
            FedbiomedNodeStoreError: it cannot be written.
            FedbiomedSecureAggregationError: it cannot be quantised.
        """
        self.drop_values(sid, round_)
        place = self._place(sid, round_)
        try:
            place.mkdir(parents=True, mode=0o700)
            for purpose, quantised in values.items():
                with written_whole(place / f"{purpose.value}.{quantised.weighting.value}.npz") as file:
                    np.savez(file, values=quantised.values, clipped=np.float64(quantised.clipped))
            sync_folder(place)
        except OSError as error:
            raise FedbiomedNodeStoreError(f"cannot keep an update in {place}: {error.strerror or error}") from error

    def values(self, sid: bytes, round_: int) -> Mapping[Purpose, Quantised]:
        """The quantised update of a round; empty where none is kept.

        Raises:
            FedbiomedNodeStoreError: it cannot be read.
        """
        found = {}
        for path in self._files(sid, round_):
            purpose, weighting = _told(path)
            try:
                with np.load(path, allow_pickle=False) as kept:
                    found[purpose] = Quantised(kept["values"], float(kept["clipped"]), weighting)
            except (OSError, ValueError, KeyError) as error:
                raise FedbiomedNodeStoreError(f"cannot read the kept update {path}: {error}") from error
        return found

    def weightings(self, sid: bytes, round_: int) -> set[Weighting]:
        """By what this node counts in the parts of the kept update: told by the files' names.

        Raises:
            FedbiomedNodeStoreError: a file has another name.
        """
        return {_told(path)[1] for path in self._files(sid, round_)}

    def drop_values(self, sid: bytes, round_: int) -> None:
        """Delete the quantised update of a round."""
        shutil.rmtree(self._place(sid, round_), ignore_errors=True)

    def _files(self, sid: bytes, round_: int) -> list[Path]:
        return sorted(self._place(sid, round_).glob("*.npz"))

    def _place(self, sid: bytes, round_: int) -> Path:
        return self._folder / f"{sid.hex()}_{round_}"


def _told(path: Path) -> tuple[Purpose, Weighting]:
    """What the name of a kept file tells."""
    try:
        purpose, weighting = path.stem.split(".")
        return Purpose(purpose), Weighting(weighting)
    except ValueError as error:
        raise FedbiomedNodeStoreError(f"cannot read the kept update {path}: {error}") from error
