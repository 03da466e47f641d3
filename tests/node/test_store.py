"""The node's database: what is committed stays, what fails leaves no trace, several threads and processes share it."""

import shlex
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbiomed.common.exceptions import FedbiomedNodeStoreError
from fedbiomed.node.store import MIGRATIONS, NodeStore
from tests.support.node_cli import without_settings

ROW = "INSERT INTO node_states (state_id, job_id, round, created_at) VALUES (?, 'job', 0, 0.0)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    with NodeStore(tmp_path / "node.sqlite") as opened:
        yield opened


def states(store: NodeStore) -> list[str]:
    with store.transaction() as connection:
        return [row["state_id"] for row in connection.execute("SELECT state_id FROM node_states ORDER BY rowid")]


def test_a_change_is_there_after_opening_again(tmp_path: Path) -> None:
    with NodeStore(tmp_path / "a") as store, store.transaction() as connection:
        connection.execute(ROW, ("s1",))
    with NodeStore(tmp_path / "a") as again:
        assert states(again) == ["s1"]
        assert again.schema_version == len(MIGRATIONS)


def test_it_is_in_wal_mode(store: NodeStore) -> None:
    with store.transaction() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 1


def write(store: NodeStore, *state_ids: str, then: type[Exception] | None = None) -> None:
    with store.transaction() as connection:
        for state_id in state_ids:
            connection.execute(ROW, (state_id,))
        if then is not None:
            raise then


def test_a_block_that_raises_is_undone(store: NodeStore) -> None:
    with pytest.raises(KeyError):
        write(store, "s1", then=KeyError)
    assert states(store) == []


def test_an_inner_transaction_is_undone_with_the_outer_one(store: NodeStore) -> None:
    def nested() -> None:
        with store.transaction():
            write(store, "s1")
            raise KeyError

    with pytest.raises(KeyError):
        nested()
    assert states(store) == []


def test_a_broken_constraint_is_told_and_undone(store: NodeStore) -> None:
    with pytest.raises(FedbiomedNodeStoreError, match="UNIQUE"):
        write(store, "s1", "s1")
    assert states(store) == []


def test_threads_take_turns(store: NodeStore) -> None:
    def write_many(name: str) -> None:
        for number in range(20):
            write(store, f"{name}{number}")

    threads = [threading.Thread(target=write_many, args=(name,), name=f"writer {name}") for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(states(store)) == 80


def test_processes_that_open_a_new_file_at_once_all_write(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fedbiomed.node.store import NodeStore\n"
        f"store = NodeStore(Path(sys.argv[1]))\n"
        f"for number in range(20):\n"
        f"    with store.transaction() as connection:\n"
        f'        connection.execute("{ROW}", (sys.argv[2] + str(number),))\n'
        "store.close()"
    )
    path = tmp_path / "node.sqlite"
    processes = [subprocess.Popen([sys.executable, "-c", code, path, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    for process in processes:
        _, said = process.communicate(timeout=25)
        assert process.returncode == 0, said
    with NodeStore(path) as store:
        assert len(states(store)) == 80


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    NodeStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(FedbiomedNodeStoreError, match=r"schema version 99, this release knows up to \d+: install the newer release"):
        NodeStore(path)


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    sqlite3.connect(path).close()  # version 0: an empty file
    with NodeStore(path) as store:
        assert states(store) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    path.write_text("no database, " * 1000)
    with pytest.raises(FedbiomedNodeStoreError, match="not a database"):
        NodeStore(path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FedbiomedNodeStoreError, match="unable to open"):
        NodeStore(tmp_path / "nowhere" / "node.sqlite")


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "a")
    store.close()
    store.close()
    with pytest.raises(FedbiomedNodeStoreError, match="closed"), store.transaction():
        pass


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """On a disk of its own, in a mount namespace of its own, that is: only where the system gives one."""
    fedbiomed = f"{shlex.quote(sys.executable)} -m fedbiomed"
    script = (
        f"mount -t tmpfs -o size=300k tmpfs {tmp_path} && cd {tmp_path} || exit 77\n{fedbiomed} node create --dir n || exit 1\n"
        f"head -c 400000 /dev/zero > fill 2> /dev/null\n{fedbiomed} node dataset list --dir n\n"
        f"{fedbiomed} network start --dir net --mqtt-port 0 --http-port 0"
    )
    env = without_settings() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False, env=env)
    if answer.returncode == 77 or "unshare" in answer.stderr:
        pytest.skip(answer.stderr)
    node_said, network_said = answer.stderr.splitlines()
    assert node_said.endswith("its disk is full, make room on it")
    assert "cannot write the folder" in network_said
    assert "No space left on device" in network_said
