"""What an operator's commands show beside datasets and plans: whether the node runs, its jobs, and how many there are of each thing."""

from pathlib import Path
from typing import Any

from fedbiomed.node.store import NodeStore

LOCK_FILE = "node.lock"
_LOCKS = Path("/proc/locks")
_JOB_COLUMNS = (
    *("request_id", "researcher_id", "job_id", "round", "attempt", "state", "message"),
    *("received_at", "changed_at", "expires_at"),
)


def jobs(store: NodeStore) -> list[dict[str, Any]]:
    """Training orders, the newest last: who asked, for which round, how far it has come; times in seconds since 1970."""
    with store.transaction() as connection:
        rows = connection.execute(f"SELECT {', '.join(_JOB_COLUMNS)} FROM orders ORDER BY received_at, rowid").fetchall()
    return [dict(row) for row in rows]


def counts(store: NodeStore) -> dict[str, Any]:
    """Number of `datasets`, of `plans` by status and of `jobs` by state."""
    with store.transaction() as connection:
        datasets = connection.execute("SELECT count(*) FROM datasets").fetchone()[0]
        plans = connection.execute("SELECT training_plan_status, count(*) FROM plans GROUP BY 1 ORDER BY 1").fetchall()
        orders = connection.execute("SELECT state, count(*) FROM orders GROUP BY 1 ORDER BY 1").fetchall()
    return {"datasets": datasets, "plans": {row[0]: row[1] for row in plans}, "jobs": {row[0]: row[1] for row in orders}}


def is_running(var: Path) -> bool | None:
    """Whether a process holds the lock of the node whose `var` this is; None where the system does not tell (other than Linux).

    The lock is only looked at: to take it, even for a moment, could turn away a node that is just starting.
    """
    try:
        inode = str((var / LOCK_FILE).stat().st_ino)
        fields = [line.split() for line in _LOCKS.read_text(encoding="ascii").splitlines()]
    except FileNotFoundError:
        return None if not _LOCKS.exists() else False
    return any(line[1] == "FLOCK" and line[-3].rpartition(":")[2] == inode for line in fields)


def is_sound(store: NodeStore) -> bool:
    """Whether sqlite finds no damage in the file."""
    with store.transaction() as connection:
        return [row[0] for row in connection.execute("PRAGMA quick_check")] == ["ok"]
