"""Which plans may run: what counts as the same source, who decides, and that nothing else gets through."""

import re
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbiomed.common.exceptions import FedbiomedTrainingPlanSecurityManagerError
from fedbiomed.node.approval import PlanRegistry, listing
from fedbiomed.node.plan_source import class_name, plan_hash
from fedbiomed.node.store import NodeStore

PLAN = b'''import torch

class Plan(TorchTrainingPlan):
    """A plan."""

    def training_step(self, data, target):
        return self.model()(data).sum()
'''


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    with NodeStore(tmp_path / "node.sqlite") as opened:
        yield opened


@pytest.fixture
def plans(store: NodeStore) -> PlanRegistry:
    """A registry whose clock goes on by one second at each look."""
    seconds = count(1_700_000_000)
    return PlanRegistry(store, approval_required=True, clock=lambda: float(next(seconds)))


@pytest.mark.parametrize(
    "same",
    [
        PLAN.replace(b"\n\n", b"\n\n\n"),
        PLAN.replace(b"import torch", b"# said by nobody\nimport torch  # or here"),
        PLAN.replace(b"(data, ", b"(data,  ").replace(b"(self, ", b"(self,"),
        PLAN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAN,
        PLAN + b"\n\n",
        PLAN.replace(b"A plan.", b"Another text."),
        PLAN.replace(b'    """A plan."""\n', b""),
        PLAN.replace(b"import torch", b"'A file.'\nimport torch").replace(b"        return", b"        'A step.'\n        return"),
    ],
    ids=["blank lines", "comments", "spaces", "line ends", "byte order mark", "end", "docstring", "no docstring", "more docstrings"],
)
def test_comments_docstrings_and_white_space_do_not_count(plans: PlanRegistry, same: bytes) -> None:
    row = plans.register(PLAN)
    assert same != PLAN
    assert plans.check(same).training_plan_id == row["training_plan_id"]
    assert plans.require_approved(same) == PLAN  # the bytes that the operator saw, not those that came


@pytest.mark.parametrize(
    "other",
    [
        PLAN.replace(b"sum()", b"sun()"),
        PLAN.replace(b"        return", b"        x = 'A plan.'\n        return"),
        PLAN.replace(b"Plan(", b"Plam("),
        PLAN.replace(b"import torch", b"import torch, os"),
        PLAN + b"x = 1\n",
    ],
    ids=["name", "text", "class", "import", "more"],
)
def test_every_other_byte_counts(plans: PlanRegistry, other: bytes) -> None:
    plans.register(PLAN)
    assert plans.check(other).status == "Not Registered"
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="not registered on this node: ask for it with"):
        plans.require_approved(other)


@given(st.integers(min_value=0, max_value=len(PLAN) - 1), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_refused_or_only_white_space_comment_or_docstring(position: int, change: int) -> None:
    first = PLAN.index(b'"""')
    if first <= position < PLAN.index(b'"""', first + 3) + 3:
        return
    edited = PLAN[:position] + bytes([PLAN[position] ^ change]) + PLAN[position + 1 :]
    try:
        is_same = plan_hash(edited) == plan_hash(PLAN)
    except FedbiomedTrainingPlanSecurityManagerError:
        return
    if is_same:  # then one of the two bytes is white space (or a comment's beginning where nothing follows)
        assert bytes([PLAN[position]]).isspace() or bytes([edited[position]]).isspace()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"def (", "is not Python"),
        (b"x = '\x00'", "is not Python"),
        (b"\xff = 1", "is not Python"),
        (b"x = " + b"(" * 5000, "is not Python"),
        (b"x = " + b"-" * 20000 + b"1", "is not Python .*: too deeply nested"),
        (b"# -*- coding: latin-1 -*-\nclass A: pass", "written in iso-8859-1; save it as UTF-8"),
        (b"# coding: utf-7\nclass A: pass", "written in utf-7"),
        (b"#" * (256 << 10) + b"\n", "at most 262144"),
        (b"x = 1\n", "defines no class"),
    ],
    ids=["syntax", "null", "bytes", "nested", "deep", "latin", "utf-7", "large", "no class"],
)
def test_what_is_no_plan_is_refused(plans: PlanRegistry, source: bytes, reason: str) -> None:
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=reason):
        plans.request(source, "", "researcher_x")
    assert plans.all() == []


def test_the_plan_is_the_last_class() -> None:
    assert class_name(b"class Net: pass\nclass Plan(Base):\n    class Inner: pass\n") == "Plan"


def test_a_requested_plan_waits_is_approved_and_rejected(plans: PlanRegistry) -> None:
    row = plans.request(PLAN, "please", "researcher_x")
    assert (row["training_plan_status"], row["training_plan_type"], row["researcher_id"]) == ("Pending", "requested", "researcher_x")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="waits for the decision"):
        plans.require_approved(PLAN)
    assert plans.approve(row["training_plan_id"])["training_plan_status"] == "Approved"
    assert plans.require_approved(PLAN) == PLAN
    assert plans.reject(row["training_plan_id"], "reads too much")["notes"] == "reads too much"
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="rejected the training plan: reads too much"):
        plans.require_approved(PLAN)
    assert plans.request(PLAN, "again", "researcher_y")["training_plan_status"] == "Rejected"
    assert plans.approve(row["training_plan_id"])["notes"] is None


def test_a_rejection_needs_a_reason(plans: PlanRegistry) -> None:
    row = plans.register(PLAN)
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="for a reason"):
        plans.reject(row["training_plan_id"], "  ")
    assert plans.all() == [row]


def test_a_row_has_the_keys_that_tools_expect(plans: PlanRegistry, tmp_path: Path) -> None:
    path = tmp_path / "mnist.txt"
    path.write_bytes(PLAN)
    row = plans.register(path, description="digits")
    assert list(row) == [
        *("name", "description", "hash", "training_plan_path", "training_plan_id", "training_plan_type", "training_plan_status"),
        *("algorithm", "researcher_id", "date_created", "date_modified", "date_registered", "date_last_action", "notes"),
    ]
    assert (row["name"], row["training_plan_path"], row["algorithm"]) == ("mnist", str(path), "SHA256")
    assert (row["training_plan_type"], row["training_plan_status"]) == ("registered", "Approved")
    assert re.fullmatch(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d\.\d{6}", row["date_created"])
    assert row.keys() - listing(row).keys() == {"hash", "training_plan_path", "date_created", "date_modified"}


def test_name_and_source_are_unique(plans: PlanRegistry) -> None:
    plans.register(PLAN, "one")
    with pytest.raises(
        FedbiomedTrainingPlanSecurityManagerError, match=r"with this source is here already: training_plan_.* \(one, Approved\)"
    ):
        plans.register(PLAN + b"# comment\n", "two")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="with this name 'one' is here already"):
        plans.register(PLAN + b"x = 1\n", "one")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="name of a training plan is empty"):
        plans.register(PLAN + b"x = 1\n", " ")
    assert len(plans.all()) == 1


def test_what_was_approved_is_kept_when_the_file_changes(plans: PlanRegistry, tmp_path: Path) -> None:
    path = tmp_path / "plan.py"
    path.write_bytes(PLAN)
    row = plans.register(path)
    path.write_bytes(PLAN.replace(b"sum()", b"prod()"))
    assert plans.view(row["training_plan_id"]) == PLAN.decode()
    assert plans.check(path.read_bytes()).status == "Not Registered"
    path.unlink()
    assert plans.require_approved(PLAN) == PLAN


def test_an_update_replaces_the_source_and_keeps_the_decision(plans: PlanRegistry, tmp_path: Path) -> None:
    row = plans.register(PLAN, "one")
    other = plans.register(PLAN + b"x = 1\n", "two")
    path = tmp_path / "new.py"
    path.write_bytes(PLAN + b"x = 1\n")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="with this source is here already"):
        plans.update(row["training_plan_id"], path)
    plans.delete(other["training_plan_id"])
    plans.reject(row["training_plan_id"], "no")
    after = plans.update(row["training_plan_id"], path)
    assert (after["name"], after["training_plan_status"]) == ("one", "Rejected")
    assert after["date_modified"] > after["date_created"]
    assert plans.check(PLAN).status == "Not Registered"
    assert plans.check(PLAN + b"x = 1\n").status == "Rejected"
    path.write_bytes(PLAN + b"x = 1  # the same\n")
    assert plans.update(row["training_plan_id"], path)["hash"] == after["hash"]
    assert "# the same" in plans.view(row["training_plan_id"])


def test_a_request_gets_a_name_even_when_the_first_choice_is_taken(plans: PlanRegistry, tmp_path: Path) -> None:
    row = plans.request(PLAN, "", "researcher_x")
    path = tmp_path / "new.py"
    path.write_bytes(PLAN + b"x = 1\n")
    plans.update(row["training_plan_id"], path)
    again = plans.request(PLAN, "", "researcher_x")
    assert again["name"].startswith(row["name"])
    assert again["name"] != row["name"]


def test_a_deleted_plan_is_not_registered(plans: PlanRegistry) -> None:
    row = plans.register(PLAN)
    assert plans.delete(row["training_plan_id"]) == row
    assert plans.check(PLAN).status == "Not Registered"


def test_unknown_ids_and_files_are_told(plans: PlanRegistry, tmp_path: Path) -> None:
    for ask in (plans.get, plans.approve, plans.delete, plans.view, plans.diff):
        with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="has no training plan 'training_plan_x'"):
            ask("training_plan_x")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=r"cannot read the training plan .*: No such file"):
        plans.register(tmp_path / "nowhere.py")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=r"cannot read the training plan .*: Is a directory"):
        plans.register(tmp_path)


def test_the_difference_is_to_what_was_approved_last(plans: PlanRegistry) -> None:
    first = plans.register(PLAN, "first")
    assert plans.diff(first["training_plan_id"]).startswith("--- no approved plan of this class\n+++ first (Approved)\n")
    assert plans.diff(first["training_plan_id"]).count("\n+") == PLAN.count(b"\n") + 1  # each line, and the head
    plans.register(PLAN.replace(b"sum()", b"mean()"), "second")
    wanted = plans.request(PLAN.replace(b"sum()", b"prod()"), "", "researcher_x")
    lines = plans.diff(wanted["training_plan_id"]).splitlines()
    assert lines[0] == "--- second (Approved)"
    assert [line for line in lines[2:] if line[0] in "+-"] == [
        "-        return self.model()(data).mean()",
        "+        return self.model()(data).prod()",
    ]


def test_without_approval_everything_runs_but_what_was_rejected(store: NodeStore) -> None:
    plans = PlanRegistry(store, approval_required=False)
    assert plans.require_approved(PLAN) == PLAN
    assert plans.check(PLAN).msg == "this node runs training plans without approval"
    row = plans.register(PLAN)
    plans.reject(row["training_plan_id"], "no")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="rejected"):
        plans.require_approved(PLAN)


def test_a_decision_of_another_process_is_seen(plans: PlanRegistry, store: NodeStore) -> None:
    row = plans.request(PLAN, "", "researcher_x")
    PlanRegistry(store, approval_required=True).approve(row["training_plan_id"])
    assert plans.require_approved(PLAN) == PLAN


def test_a_researcher_cannot_fill_the_list(plans: PlanRegistry) -> None:
    for number in range(100):
        plans.request(PLAN + b"x = %d\n" % number, "", "researcher_x")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="100 training plans wait"):
        plans.request(PLAN, "", "researcher_x")
    assert len(plans.all()) == 100


def test_hashes_of_another_python_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    with NodeStore(path) as store:
        PlanRegistry(store, approval_required=True).register(PLAN)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE plans SET hash = 'old', grammar = 'ast 3.0'")
    connection.execute(
        "INSERT INTO plans SELECT 'training_plan_2', 'py2', '', 'older', algorithm, grammar, 'C', ?, NULL, 'requested', 'Approved',"
        " NULL, 0, 0, 0, 0, NULL FROM plans",
        (b"print 'class of another time'",),
    )
    connection.commit()
    connection.close()
    with NodeStore(path) as store:
        plans = PlanRegistry(store, approval_required=True)
        assert plans.require_approved(PLAN) == PLAN
        assert plans.get("training_plan_2")["hash"] == "older"


@pytest.mark.parametrize(
    ("algorithm", "digits"),
    [
        *(("SHA256", 64), ("SHA384", 96), ("SHA512", 128), ("SHA3_256", 64), ("SHA3_384", 96), ("SHA3_512", 128)),
        *(("BLAKE2B", 128), ("BLAKE2S", 64)),
    ],
)
def test_hashes_are_made_anew_when_the_algorithm_changes(store: NodeStore, plans: PlanRegistry, algorithm: str, digits: int) -> None:
    before = plans.register(PLAN)
    plans.reject(before["training_plan_id"], "no")
    changed = PlanRegistry(store, approval_required=True, algorithm=algorithm)
    after = changed.get(before["training_plan_id"])
    assert (after["algorithm"], len(after["hash"]), after["training_plan_status"]) == (algorithm, digits, "Rejected")
    assert changed.check(PLAN).training_plan_id == before["training_plan_id"]
    assert changed.check(PLAN).status == plans.check(PLAN).status  # a process that has the old setting still finds it
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="with this source is here already"):
        plans.register(PLAN, "again")


def test_a_file_is_registered_once(plans: PlanRegistry, tmp_path: Path) -> None:
    path, other = tmp_path / "plan.py", tmp_path / "other.py"
    path.write_bytes(PLAN)
    row = plans.register(path)
    path.write_bytes(PLAN + b"x = 1\n")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=r"with this path .*plan.py is here already"):
        plans.register(path, "again")
    other.write_bytes(PLAN + b"x = 2\n")
    second = plans.register(other)
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=r"with this path .*plan.py is here already"):
        plans.update(second["training_plan_id"], path)
    assert plans.update(row["training_plan_id"], path)["training_plan_path"] == str(path)
