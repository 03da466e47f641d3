"""What a node answers: to each question one reply (or the parts of a long list), whatever goes wrong."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbiomed.common.constants import MAX_MESSAGE_BYTES
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.approval import PlanApproveReply, PlanApproveRequest, PlanStatusReply, PlanStatusRequest
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.handlers import Handlers
from fedbiomed.node.store import NodeStore

PLAN = b"class Plan(TorchTrainingPlan):\n    pass\n"


class Desk:
    """A node's handlers with real registries, and a researcher's side of the file store."""

    def __init__(self, root: Path, store: NodeStore, *, approval_required: bool = True) -> None:
        self.spool = root / "spool"
        self.spool.mkdir()
        self.root, self.store = root, store
        self.datasets = DatasetRegistry(store)
        self.plans = PlanRegistry(store, approval_required=approval_required)
        shared = MemoryFiles()
        self.files = MemoryFileStore(shared, "researcher_x")
        self.handlers = Handlers("node_a", "Site A", self.datasets, self.plans, files=MemoryFileStore(shared, "node_a"), spool=self.spool)

    def ask(self, kind: type[Request], **fields: object) -> list[Reply]:
        """The replies to a request, each checked to fit a message."""
        now = time.time()
        request = kind(request_id="q1", researcher_id="researcher_x", issued_at=now, expires_at=now + 9, **fields)
        replies = self.handlers.handle(request)
        assert all((reply.request_id, reply.researcher_id, reply.node_id) == ("q1", "researcher_x", "node_a") for reply in replies)
        assert all(decode(encode(reply)) == reply for reply in replies)
        assert not self.spool.exists() or list(self.spool.iterdir()) == []
        return replies

    def put(self, source: bytes) -> FileRef:
        """A plan in the store."""
        path = self.root / "sent.py"
        path.write_bytes(source)
        return self.files.put(path)

    def add(self, name: str, *tags: str, columns: int = 2, description: str = "") -> dict[str, object]:
        """A registered table."""
        path = self.root / f"{name}.csv"
        path.write_text(",".join(f"c{i}" for i in range(columns)) + "\n" + ",".join("1" * columns) + "\n")
        return self.datasets.add(name=name, data_type="csv", tags=tags, path=path, description=description)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with NodeStore(tmp_path / "node.sqlite") as store:
        yield Desk(tmp_path, store)


def one(replies: list[Reply], kind: type) -> object:
    """The only reply."""
    assert [type(reply) for reply in replies] == [kind], replies
    return replies[0]


def test_a_ping_is_answered(desk: Desk) -> None:
    reply = one(desk.ask(PingRequest), PingReply)
    assert isinstance(reply, PingReply)
    assert reply.node_name == "Site A"


def test_datasets_are_listed_and_searched_without_their_paths(desk: Desk) -> None:
    row = desk.add("heart", "a", "b")
    desk.add("lung", "c")
    listed = one(desk.ask(ListRequest), DatasetsReply)
    found = one(desk.ask(SearchRequest, tags=("b",)), DatasetsReply)
    assert isinstance(listed, DatasetsReply)
    assert isinstance(found, DatasetsReply)
    assert [database["name"] for database in listed.databases] == ["heart", "lung"]
    assert list(listed.databases[0]) == ["name", "data_type", "tags", "description", "shape", "dataset_id", "dataset_parameters"]
    assert found.databases == ({key: value for key, value in row.items() if key != "path"},)
    assert (found.count, found.part, found.parts) == (1, 0, 1)


def test_a_search_that_finds_nothing_is_answered(desk: Desk) -> None:
    reply = one(desk.ask(SearchRequest, tags=("nothing",)), DatasetsReply)
    assert isinstance(reply, DatasetsReply)
    assert (reply.databases, reply.count, reply.parts) == ((), 0, 1)


def test_a_long_list_comes_in_parts_that_fit(desk: Desk) -> None:
    for number in range(30):
        desk.add(f"table{number}", f"t{number}", description="ü" * 2000)  # 12 000 bytes each as JSON
    replies = desk.ask(ListRequest)
    assert all(isinstance(reply, DatasetsReply) for reply in replies)
    parts = [reply for reply in replies if isinstance(reply, DatasetsReply)]
    assert len(parts) > 1
    assert [(part.part, part.parts, part.count) for part in parts] == [(i, len(parts), 30) for i in range(len(parts))]
    assert [database["name"] for part in parts for database in part.databases] == [f"table{number}" for number in range(30)]
    assert max(len(encode(part)) for part in parts) <= MAX_MESSAGE_BYTES


def test_a_very_wide_table_can_be_found(desk: Desk) -> None:
    desk.add("genes", "g", columns=9000)
    reply = one(desk.ask(SearchRequest, tags=("g",)), DatasetsReply)
    assert isinstance(reply, DatasetsReply)
    assert (reply.databases[0]["shape"], reply.databases[0]["dtypes"]) == ([1, 9000], [])


def status(desk: Desk, source: bytes) -> PlanStatusReply:
    reply = one(desk.ask(PlanStatusRequest, job_id="job_1", plan=desk.put(source)), PlanStatusReply)
    assert isinstance(reply, PlanStatusReply)
    assert (reply.job_id, reply.approval_obligation) == ("job_1", True)
    return reply


def approve(desk: Desk, source: bytes) -> PlanApproveReply:
    reply = one(desk.ask(PlanApproveRequest, description="please", plan=desk.put(source)), PlanApproveReply)
    assert isinstance(reply, PlanApproveReply)
    return reply


def test_a_plan_is_asked_for_approved_and_seen_so(desk: Desk) -> None:
    before = status(desk, PLAN)
    assert (before.success, before.status) == (True, "Not Registered")
    assert "training_plan_approve" in before.msg
    asked = approve(desk, PLAN)
    assert (asked.success, asked.status) == (True, "Pending")
    (row,) = desk.plans.all()
    assert (row["description"], row["researcher_id"]) == ("please", "researcher_x")
    desk.plans.approve(row["training_plan_id"])
    assert status(desk, PLAN + b"# comment\n").status == "Approved"
    assert approve(desk, PLAN).status == "Approved"
    desk.plans.reject(row["training_plan_id"], "too curious")
    assert "too curious" in status(desk, PLAN).msg


def test_a_source_that_is_no_plan_is_answered(desk: Desk) -> None:
    assert (status(desk, b"def (").status, status(desk, b"def (").success) == ("Error", False)
    refused = approve(desk, b"x = 1\n")
    assert (refused.status, refused.success) == ("Error", False)
    assert "defines no class" in refused.msg
    assert desk.plans.all() == []


def test_a_plan_that_cannot_be_fetched_is_answered(desk: Desk) -> None:
    for ref, reason in (
        (FileRef(key="0" * 32, sha256="0" * 64, size=10), ""),
        (FileRef(key="0" * 32, sha256="0" * 64, size=1 << 30), "at most 262144 are read"),
    ):
        reply = one(desk.ask(PlanStatusRequest, job_id="job_1", plan=ref), PlanStatusReply)
        assert isinstance(reply, PlanStatusReply)
        assert (reply.success, reply.status) == (False, "Error")
        assert reason in reply.msg


def test_an_internal_error_gives_away_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    reference = desk.put(PLAN)
    desk.spool.rename(desk.root / "elsewhere")  # the spool is gone: an error that names a path
    fetched = one(desk.ask(PlanStatusRequest, job_id="job_1", plan=reference), ErrorReply)
    desk.store.close()
    listed = one(desk.ask(ListRequest), ErrorReply)
    for reply in (fetched, listed):
        assert isinstance(reply, ErrorReply)
        assert (reply.errnum, reply.msg) == ("FB300", "internal error, see the log of this node")
    assert str(desk.spool) in caplog.text
    assert "closed database" in caplog.text


def test_a_question_that_nobody_answers_here_is_refused(desk: Desk) -> None:
    reply = one(desk.ask(Request), ErrorReply)
    assert isinstance(reply, ErrorReply)
    assert reply.errnum == "FB601"
    assert set(desk.handlers.request_types) == {PingRequest, ListRequest, SearchRequest, PlanStatusRequest, PlanApproveRequest}
