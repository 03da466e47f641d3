"""`fedbiomed experiment`, as its user runs it, with a network and a node in processes of their own."""

import json
from pathlib import Path

import pytest

from fedbiomed.researcher.experiment import Experiment
from tests.support.federation import TAGS, command, running
from tests.support.plans import LinePlan

ARGS = {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a researcher who ran one round of three, while the federation runs on."""
    with running(tmp_path_factory.mktemp("cli"), nodes=1) as started:
        experiment = Experiment(
            tags=TAGS, training_plan_class=LinePlan, training_args=ARGS, round_limit=3, save_breakpoints=True, requests=started.requests
        )
        experiment.run(rounds=1)
        yield started.root / "researcher"


def show(folder: Path) -> dict[str, object]:
    answer = command("experiment", "show", "Experiment_0000", "--dir", str(folder), "--json")
    assert answer.returncode == 0, answer.stderr
    facts: dict[str, object] = json.loads(answer.stdout)
    return facts


def test_resume_runs_to_the_limit_and_past_it_when_told(folder):
    breakpoint_folder = folder / "var" / "experiments" / "Experiment_0000" / "breakpoint_0000"
    answer = command("experiment", "resume", str(breakpoint_folder))  # whose researcher it is, the folder tells
    assert answer.returncode == 0, answer.stderr
    assert "rounds run: 2, in all: 3" in answer.stdout
    assert answer.stdout.count("\n") == 1
    assert "round 3 of 3: 1 of 1 nodes" in answer.stderr
    assert (show(folder)["round_current"], show(folder)["round_limit"]) == (3, 3)
    answer = command("experiment", "resume", "Experiment_0000", "--dir", str(folder), "--rounds", "1")
    assert "rounds run: 1, in all: 4" in answer.stdout
    assert show(folder)["round_limit"] == 4


def test_a_wrong_folder_is_one_line_on_stderr(folder):
    answer = command("experiment", "resume", "nowhere", "--dir", str(folder))
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("fedbiomed: there is no experiment or breakpoint nowhere")
    assert len(answer.stderr.strip().splitlines()) == 1
