"""What the node's commands ask at a terminal, and that programs are told what to give instead."""

from pathlib import Path

import pytest

from tests.support.node_cli import refused, told, told_json
from tests.support.terminal import at_terminal

PLAN = "class Plan(TorchTrainingPlan):\n    def training_step(self, data, target):\n        return 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A node with a csv file beside it and two plans."""
    told("create", "--dir", tmp_path / "site")
    (tmp_path / "patients.csv").write_text("age,weight\n63,70.5\n51,\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PLAN.replace("1", f"'{name}'"))
        told("plan", "register", tmp_path / f"{name}.py", "--dir", tmp_path / "site")
    return tmp_path / "site"


def test_a_dataset_is_added_and_removed_by_answers(site: Path, tmp_path: Path) -> None:
    answers = ["nine", "1", "Patients", "heart, 2024", "seen in spring", "patients.csv"]
    session = at_terminal(["node", "dataset", "add", "--dir", site], answers, cwd=tmp_path)
    assert session.returncode == 0, session.screen
    assert "  1)  csv\n" in session.screen
    assert "nine is no number from 1 to" in session.screen
    (row,) = told_json("dataset", "list", "--dir", site)
    assert (row["name"], row["data_type"], row["tags"], row["description"]) == ("Patients", "csv", ["heart", "2024"], "seen in spring")
    session = at_terminal(["node", "dataset", "remove", "--dir", site], ["1", "n"])
    assert session.returncode == 1
    assert session.screen.endswith("fedbiomed: nothing was changed\n")
    session = at_terminal(["node", "dataset", "remove", "--dir", site], ["1", "y"])
    assert session.screen.endswith(f"removed {row['dataset_id']}\n")
    assert told_json("dataset", "list", "--dir", site) == []


def test_plans_are_chosen_from_a_list(site: Path, tmp_path: Path) -> None:
    one, two = (row["training_plan_id"] for row in told_json("plan", "list", "--dir", site))
    session = at_terminal(["node", "plan", "reject", "--dir", site], ["2", "reads too much"])
    assert session.screen.endswith(f"{two} Rejected\n")
    session = at_terminal(["node", "plan", "approve", "--dir", site], ["1"])  # only the rejected one can be approved
    assert session.screen.endswith(f"{two} Approved\n")
    assert "return 'one'" in at_terminal(["node", "plan", "view", "--dir", site], ["1"]).screen
    (tmp_path / "three.py").write_text(PLAN)
    assert at_terminal(["node", "plan", "update", "--dir", site], ["1", str(tmp_path / "three.py")]).returncode == 0
    assert "return 1" in told("plan", "view", one, "--dir", site)
    assert at_terminal(["node", "plan", "delete", "--dir", site, "--yes"], ["2"]).returncode == 0
    (tmp_path / "four.py").write_text(PLAN.replace("1", "4"))
    assert at_terminal(["node", "plan", "register", "--dir", site], ["", "fourth", str(tmp_path / "four.py")]).returncode == 0
    rows = told_json("plan", "list", "--dir", site)
    assert [(row["name"], row["description"]) for row in rows] == [("one", ""), ("four", "fourth")]


def test_no_answer_changes_nothing(site: Path) -> None:
    before = told_json("plan", "list", "--dir", site)
    session = at_terminal(["node", "plan", "delete", before[0]["training_plan_id"], "--dir", site], [])
    assert session.returncode == 1
    assert session.screen.endswith("fedbiomed: no answer came; nothing was changed\n")
    assert told_json("plan", "list", "--dir", site) == before


def test_a_program_is_never_asked(site: Path) -> None:
    session = at_terminal(["node", "plan", "approve", "--json", "--dir", site], ["1"])
    assert "fedbiomed: ID is missing; give it (only on a terminal, and without --json, you are asked)" in session.screen
    for command in ("approve", "reject", "delete", "view", "update", "diff"):
        assert "ID is missing" in refused("plan", command, "--dir", site)
    assert "FILE is missing" in refused("plan", "register", "--dir", site)
    assert "ID is missing" in refused("dataset", "remove", "--dir", site)
    assert "a dataset needs --type, --path, --name, --tags" in refused("dataset", "add", "--dir", site)
    plan_id = told_json("plan", "list", "--dir", site)[0]["training_plan_id"]
    assert "--reason TEXT is missing" in refused("plan", "reject", plan_id, "--dir", site)
    assert "FILE is missing" in refused("plan", "update", plan_id, "--dir", site)


def test_datasets_are_removed_by_tags_and_all_together(site: Path, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    ids = [told("dataset", "add", "--dir", site, "--type", "csv", "--path", table, "--name", tag, "--tags", f"{tag},x") for tag in "abc"]
    assert told("dataset", "remove", "--tags", "x,b", "--dir", site) == f"removed {ids[1]}"
    assert "no dataset with exactly the tags x" in refused("dataset", "remove", "--tags", "x", "--dir", site)
    assert told("dataset", "remove", "--all", "--dir", site).splitlines() == [f"removed {ids[0]}", f"removed {ids[2]}"]
    assert told("dataset", "remove", "--all", "--dir", site) == "no datasets; nothing to remove"
