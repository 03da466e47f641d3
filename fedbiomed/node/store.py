"""The node's database: one sqlite file for datasets, loading plans, training plans, orders and node states.

The daemon and the operator's commands open it at the same time, so it is in WAL mode and every change is one short transaction.
`synchronous=NORMAL`: what a power cut takes from the order table is asked for again by the researcher.
"""

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbiomed.common.exceptions import FedbiomedNodeStoreError

_BUSY_S = 10.0
_LEAST_BYTES = 64 << 10

# One entry per schema version, oldest first; the file remembers how many it has seen. Never edit an entry, add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE datasets (
            dataset_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            data_type TEXT NOT NULL,
            tags TEXT NOT NULL,
            description TEXT NOT NULL,
            shape TEXT NOT NULL,
            path TEXT NOT NULL,
            dtypes TEXT NOT NULL,
            dataset_parameters TEXT NOT NULL
        )""",
        """CREATE TABLE plans (
            training_plan_id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            description TEXT NOT NULL,
            hash TEXT NOT NULL UNIQUE,
            algorithm TEXT NOT NULL,
            grammar TEXT NOT NULL,
            class_name TEXT NOT NULL,
            source BLOB NOT NULL,
            training_plan_path TEXT,
            training_plan_type TEXT NOT NULL,
            training_plan_status TEXT NOT NULL,
            researcher_id TEXT,
            date_created REAL NOT NULL,
            date_modified REAL NOT NULL,
            date_registered REAL NOT NULL,
            date_last_action REAL NOT NULL,
            notes TEXT
        )""",
        """CREATE TABLE orders (
            request_id TEXT PRIMARY KEY,
            researcher_id TEXT NOT NULL,
            job_id TEXT NOT NULL,
            round INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            expires_at REAL NOT NULL,
            state TEXT NOT NULL,
            payload BLOB NOT NULL,
            reply BLOB,
            received_at REAL NOT NULL,
            changed_at REAL NOT NULL,
            message TEXT NOT NULL DEFAULT ''
        )""",
        "CREATE INDEX orders_by_state ON orders (state, received_at)",
        """CREATE TABLE node_states (
            state_id TEXT PRIMARY KEY,
            job_id TEXT NOT NULL,
            round INTEGER NOT NULL,
            created_at REAL NOT NULL,
            optimizer_type TEXT,
            state_path TEXT
        )""",
        "CREATE INDEX node_states_by_job ON node_states (job_id, created_at)",
    ),
    (
        """CREATE TABLE loading_plans (
            dlp_id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            content TEXT NOT NULL
        )""",
        "ALTER TABLE datasets ADD COLUMN dlp_id TEXT",
    ),
    (
        """CREATE TABLE peers (
            peer_id TEXT PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            is_trusted INTEGER NOT NULL,
            pinned_at REAL NOT NULL,
            refused_fingerprint TEXT,
            refused_at REAL
        )""",
        """CREATE TABLE secagg_rounds (
            sid BLOB NOT NULL,
            round INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            weight INTEGER NOT NULL,
            self_seed BLOB,
            accepted BLOB,
            has_revealed INTEGER NOT NULL,
            is_closed INTEGER NOT NULL,
            PRIMARY KEY (sid, round)
        )""",
    ),
    (
        """CREATE TABLE privacy_spent (
            request_id TEXT PRIMARY KEY,
            dataset_id TEXT NOT NULL,
            job_id TEXT NOT NULL,
            round INTEGER NOT NULL,
            sample_rate REAL NOT NULL,
            noise_multiplier REAL NOT NULL,
            steps INTEGER NOT NULL,
            spent_at REAL NOT NULL
        )""",
        "CREATE INDEX privacy_spent_by_dataset ON privacy_spent (dataset_id, job_id)",
        """CREATE TABLE privacy_budgets (
            dataset_id TEXT PRIMARY KEY,
            epsilon REAL NOT NULL,
            delta REAL NOT NULL
        )""",
    ),
    (
        """CREATE TABLE secagg_sessions (
            sid BLOB PRIMARY KEY,
            job_id TEXT NOT NULL,
            content BLOB NOT NULL,
            created_at REAL NOT NULL
        )""",
        "ALTER TABLE secagg_rounds ADD COLUMN bound BLOB NOT NULL DEFAULT x''",
    ),
)


class NodeStore:
    """One connection to the node's database; may be used by several threads of a process.

    Args:
        path: the sqlite file, made when it is not there; its folder must exist.

    Raises:
        FedbiomedNodeStoreError: it cannot be opened, is no database, or was written by a newer release.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        with self._translated():
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        with contextlib.suppress(OSError):  # it holds keys; the log beside it is made with the same mode
            path.chmod(0o600)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @contextlib.contextmanager
    def transaction(self, *, sync: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the database for one change: committed when the block ends well, undone when it raises.

        Rows come as `sqlite3.Row`. A transaction inside another one joins it. Other threads and processes wait for its end.

        Args:
            sync: also wait until the disk holds the change (some milliseconds): for what a power cut must not take.

        Raises:
            FedbiomedNodeStoreError: the database is locked for too long, the disk is full, a constraint is broken.
        """
        with self._lock, self._translated():
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self._connection
                self._connection.execute("COMMIT")
                if sync:
                    self._sync_log()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    @property
    def schema_version(self) -> int:
        """How many migrations the file has seen."""
        with self._lock, self._translated():
            return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _sync_log(self) -> None:
        """Wait until the disk holds the write-ahead log, where each commit is first."""
        log = self._path.with_name(f"{self._path.name}-wal")
        try:
            with log.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise FedbiomedNodeStoreError(f"cannot write {log} to the disk: {error.strerror or error}") from error

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        with self._translated():
            if self._connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
        if self.schema_version != len(MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        with self.transaction() as connection:
            version = self.schema_version  # again: another process may have been faster
            if version > len(MIGRATIONS):
                raise FedbiomedNodeStoreError(
                    f"{self._path} has schema version {version}, this release knows up to {len(MIGRATIONS)}: install the newer release"
                )
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = "; its disk is full, make room on it" if _is_full(self._path.parent) else ""
            raise FedbiomedNodeStoreError(f"cannot use the node's database {self._path}: {error}{remedy}") from error


def _is_full(folder: Path) -> bool:
    """Whether a disk has no room even for what sqlite needs to read; sqlite itself calls that an I/O error."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    return False
