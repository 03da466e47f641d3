"""What a node keeps from one round of a job for the next.

Each training round makes a state with an id of its own; the researcher names the former one in its next order. An optimizer that has a
state of its own (one made of declearn's modules), and an algorithm that keeps something on the node (a personal model), leave it in a file,
which the training process wrote and this side put in its place. It is never sent:

    <folder>/job_id_<job_id>/optim_state_<round>_<state_id>

States are kept for long, because an experiment may go on from an old breakpoint; those with a file, which may be as large as the model,
only for the last rounds of each job.
"""

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedNodeStateManagerError
from fedbiomed.node.store import NodeStore

_KEPT_S = 180 * 86400.0
_KEPT_FILES = 20


def new_state_id() -> str:
    """Draw the id of a state."""
    return f"node_state_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class StateFile:
    """What the training process left for the next round.

    Args:
        kind: of the optimizer whose state is in it; None: of none.
        path: the file, which will be moved.
    """

    kind: str | None
    path: Path


class NodeStates:
    """States in the node's database, and the files that belong to them.

    Args:
        store: the database.
        folder: for the files; made when it is needed.
        now: seconds since 1970.
    """

    def __init__(self, store: NodeStore, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._folder = folder
        self._now = now

    @classmethod
    def of(cls, config: NodeConfig, store: NodeStore) -> Self:
        """Those of a node, in its own folder."""
        return cls(store, config.var / f"node_state_{config.id}")

    def require(self, state_id: str, job_id: str) -> Path | None:
        """Check that a state of this job is there; gives its file, None where it has none.

        Raises:
            FedbiomedNodeStateManagerError: it is not.
        """
        with self._store.transaction() as connection:
            row = connection.execute("SELECT job_id, state_path FROM node_states WHERE state_id = ?", (state_id,)).fetchone()
        if row is None or row["job_id"] != job_id:
            raise FedbiomedNodeStateManagerError(
                f"FB300: this node has no state {state_id} of job {job_id}; it keeps states for {_KEPT_S / 86400:.0f} days, those with "
                f"variables of an optimizer or a personal model for the last {_KEPT_FILES} rounds: go on from a "
                "later breakpoint, or start the experiment anew"
            )
        return None if row["state_path"] is None else self._folder / row["state_path"]

    def last_of(self, job_id: str, round_: int) -> str | None:
        """The state that was made last in a round of a job; None where there is none."""
        with self._store.transaction() as connection:
            row = connection.execute(
                "SELECT state_id FROM node_states WHERE job_id = ? AND round = ? ORDER BY created_at DESC, rowid DESC LIMIT 1",
                (job_id, round_),
            ).fetchone()
        return None if row is None else str(row["state_id"])

    def save(self, state_id: str, job_id: str, round_: int, file: StateFile | None = None) -> None:
        """Keep the state of a training round that ended well.

        Raises:
            FedbiomedNodeStateManagerError: the file cannot be put in its place.
        """
        name = None if file is None else f"job_id_{job_id}/optim_state_{round_}_{state_id}"
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO node_states (state_id, job_id, round, created_at, optimizer_type, state_path) VALUES (?, ?, ?, ?, ?, ?)",
                (state_id, job_id, round_, self._now(), file and file.kind, name),
            )
            if file is not None and name is not None:
                _move(file.path, self._folder / name)
                self._forget(connection, f"{_BEYOND_THE_LAST} AND job_id = ?", _KEPT_FILES, job_id)

    def tidy(self) -> None:
        """Forget states of long ago, and files that belong to none."""
        with self._store.transaction() as connection:
            self._forget(connection, "created_at < ?", self._now() - _KEPT_S)
            self._forget(connection, _BEYOND_THE_LAST, _KEPT_FILES)
            needed = {row["state_path"] for row in connection.execute("SELECT state_path FROM node_states WHERE state_path IS NOT NULL")}
            for path in [path for path in self._folder.glob("*/*") if str(path.relative_to(self._folder)) not in needed]:
                path.unlink(missing_ok=True)
        for folder in self._folder.glob("*"):
            with contextlib.suppress(OSError):  # one that is not empty stays
                folder.rmdir()

    def _forget(self, connection: sqlite3.Connection, which: str, *values: object) -> None:
        for row in connection.execute(f"DELETE FROM node_states WHERE {which} RETURNING state_path", values).fetchall():
            if row["state_path"] is not None:
                (self._folder / row["state_path"]).unlink(missing_ok=True)


_BEYOND_THE_LAST = """state_id IN (
    SELECT state_id FROM (
        SELECT state_id, row_number() OVER (PARTITION BY job_id ORDER BY created_at DESC, rowid DESC) AS place
        FROM node_states WHERE state_path IS NOT NULL
    ) WHERE place > ?)"""


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    except OSError as error:
        raise FedbiomedNodeStateManagerError(f"FB314: the node cannot keep the state of a round on its disk: {error.strerror}") from error
