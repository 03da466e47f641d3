"""What the repository knows of its files: owner, readers, experiment, size and, when they are whole, hash."""

import json
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedbiomed.network.refusal import disk_full

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, experiment TEXT NOT NULL, readers TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL, used_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_experiment ON files (experiment, size);
CREATE INDEX IF NOT EXISTS files_by_age ON files (used_at);
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file.

    Args:
        experiment: empty: of none.
        readers: ids of components, or `*` for everyone.
        size: bytes, as announced.
        sha256: of the whole file; empty while it has not come whole.
        used_at: when it was announced, or a part of it last came or was read (seconds since 1970; to the hour).
    """

    key: str
    owner: str
    experiment: str
    readers: tuple[str, ...]
    size: int
    sha256: str = ""
    used_at: float

    @property
    def is_complete(self) -> bool:
        """Whether it has come whole."""
        return bool(self.sha256)

    def may_read(self, component: str) -> bool:
        """Whether a component may fetch it."""
        return component == self.owner or "*" in self.readers or component in self.readers


class Catalogue:
    """The table of files, on disk; may be used by several threads.

    Args:
        path: the sqlite file.

    Every method raises Refusal (507) when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            path.chmod(0o600)  # it holds what tokens are signed with; the log beside it is made with the same mode
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error):
            self._database.close()
            raise

    def secret(self) -> str:
        """What tokens are signed with; drawn once, kept with the catalogue."""
        self._run("INSERT OR IGNORE INTO secrets VALUES ('tokens', ?)", secrets.token_hex(32))
        return str(self._run("SELECT value FROM secrets WHERE name = 'tokens'")[0][0])

    def add(self, entry: Entry) -> None:
        """Note a file."""
        values = (entry.key, entry.owner, entry.experiment, json.dumps(entry.readers), entry.size, entry.sha256, entry.used_at)
        self._run("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def find(self, key: str) -> Entry | None:
        """The file under a key, if there is one."""
        rows = self._run("SELECT key, owner, experiment, readers, size, sha256, used_at FROM files WHERE key = ?", key)
        return _entry(rows[0]) if rows else None

    def complete(self, key: str, sha256: str) -> bool:
        """Note that a file has come whole; False when it was forgotten meanwhile."""
        return bool(self._run("UPDATE files SET sha256 = ? WHERE key = ? RETURNING 1", sha256, key))

    def touch(self, key: str, moment: float) -> None:
        """Note when a file was read."""
        self._run("UPDATE files SET used_at = ? WHERE key = ?", moment, key)

    def remove(self, key: str) -> None:
        """Forget a file."""
        self._run("DELETE FROM files WHERE key = ?", key)

    def keys_of(self, owner: str, experiment: str) -> list[str]:
        """What a component stored for an experiment."""
        return [row[0] for row in self._run("SELECT key FROM files WHERE owner = ? AND experiment = ?", owner, experiment)]

    def keys_before(self, moment: float, *, incomplete_before: float) -> list[str]:
        """Files that were not used since a moment, and those not even announced since another (seconds since 1970)."""
        statement = "SELECT key FROM files WHERE used_at < ? OR (sha256 = '' AND used_at < ?)"
        return [row[0] for row in self._run(statement, moment, incomplete_before)]

    def bytes_of(self, owner: str, experiment: str) -> int:
        """What an experiment's files take, announced ones included; of no experiment: a component's own."""
        statement = "SELECT COALESCE(SUM(size), 0) FROM files WHERE experiment = ? AND (experiment != '' OR owner = ?)"
        return int(self._run(statement, experiment, owner)[0][0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, statement: str, *values: Any) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise disk_full() from error
            raise


def _entry(row: Sequence[Any]) -> Entry:
    key, owner, experiment, readers, size, sha256, used_at = row
    return Entry(key=key, owner=owner, experiment=experiment, readers=tuple(json.loads(readers)), size=size, sha256=sha256, used_at=used_at)
