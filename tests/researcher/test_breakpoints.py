"""The folder of a breakpoint, without an experiment around it."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedVersionError
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher import breakpoints, random_states
from fedbiomed.researcher.breakpoints import BreakpointWriter


def state(folder: Path) -> dict[str, object]:
    plan = breakpoints.linked(folder.parent / "my_model_1.py", folder, "model_0001.py")
    current = breakpoints.linked(folder.parent / "params.mpk", folder)
    again = breakpoints.linked(folder.parent / "params.mpk", folder)
    (folder / "random_states.mpk").write_bytes(b"states")
    return {
        "training_data": {"node_a": {"dataset_id": "dataset_a"}},
        "training_args": {"optimizer_args": {"betas": (0.9, 0.999)}},
        "model_args": {"file": "./params.mpk"},
        "training_plan_path": plan,
        "training_plan_class": "Plan",
        "round_current": 2,
        "round_limit": None,
        "experimentation_folder": "Experiment_0000",
        "tags": None,
        "aggregator": {"class": "A", "module": "m", "parameters": {}},
        "node_selection_strategy": {"class": "S", "module": "m", "parameters": {}, "fds": {}},
        "aggregated_params": {"2": {"params_path": current}, "10": {"params_path": again}},
        "job": {"training_replies": [[{"params_path": again, "msg": ""}]]},
        "history": [],
        "random_states": folder / "random_states.mpk",
    }


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "Experiment_0000"
    folder.mkdir()
    (folder / "my_model_1.py").write_text("class Plan: pass\n", encoding="utf-8")
    (folder / "params.mpk").write_bytes(b"parameters")
    return folder


@pytest.fixture
def written(experiment):
    return BreakpointWriter().write(experiment, 1, state)


def test_it_is_read_as_it_was_written(written):
    assert written.name == "breakpoint_0001"
    assert sorted(path.name for path in written.iterdir()) == [
        "breakpoint_0001.json",
        "model_0001.py",
        "params.mpk",
        "params_01.mpk",
        "random_states.mpk",
    ]
    found = breakpoints.read(written)
    assert found.state["round_current"] == 2
    assert found.state["training_plan_path"] == str(written / "model_0001.py")
    assert found.state["aggregated_params"]["10"] == {"params_path": str(written / "params_01.mpk")}
    assert found.state["job"]["training_replies"][0][0]["params_path"] == str(written / "params_01.mpk")
    assert found.state["model_args"] == {"file": "./params.mpk"}, "only paths of ours are made absolute"
    assert found.state["training_args"] == {"optimizer_args": {"betas": [0.9, 0.999]}}


def test_files_are_linked_not_copied(experiment, written):
    assert (written / "params.mpk").stat().st_ino == (experiment / "params.mpk").stat().st_ino


def test_its_json_holds_no_path_of_this_machine(written, tmp_path):
    assert str(tmp_path) not in (written / "breakpoint_0001.json").read_text(encoding="utf-8")


def test_a_moved_folder_is_read(written, tmp_path):
    moved = tmp_path / "elsewhere" / "under another name"
    moved.parent.mkdir()
    shutil.move(written, moved)
    assert breakpoints.read(moved).state["training_plan_path"] == str(moved / "model_0001.py")


def test_every_missing_file_is_named(written):
    (written / "params.mpk").unlink()
    (written / "random_states.mpk").unlink()
    with pytest.raises(FedbiomedBreakpointError, match=r"params\.mpk is missing; random_states\.mpk is missing"):
        breakpoints.read(written)


@pytest.mark.parametrize("name", ["model_0001.py", "params.mpk", "breakpoint_0001.json", "random_states.mpk"])
def test_a_changed_file_is_named(written, name):
    path = written / name
    content = path.read_bytes().replace(b"2", b"3") if name.endswith("json") else path.read_bytes()[:-1] + b"!"
    path.unlink()  # it is a link: what it is linked to stays as it is
    path.write_bytes(content)
    with pytest.raises(FedbiomedBreakpointError, match="changed") as caught:
        breakpoints.read(written)
    assert name in str(caught.value)


def rewritten(folder: Path, **changes: object) -> None:
    """The JSON with other values, as somebody would write it who knows how to."""
    path = folder / "breakpoint_0001.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    content = {key: value for key, value in content.items() if value is not ...}
    del content["checksum"]
    content["checksum"] = breakpoints._checksum(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_file_outside_of_the_folder_is_refused(written):
    rewritten(written, files={"../params.mpk": {"sha256": "0" * 64, "size": 10}})
    with pytest.raises(FedbiomedBreakpointError, match="not the name of a file"):
        breakpoints.read(written)


@pytest.mark.parametrize("changes", [{"job": ...}, {"round_current": "2"}, {"round_current": True}, {"files": []}])
def test_a_missing_or_wrong_key_is_named(written, changes):
    rewritten(written, **changes)
    with pytest.raises(FedbiomedBreakpointError, match=next(iter(changes))):
        breakpoints.read(written)


def test_another_version_is_refused(written):
    rewritten(written, breakpoint_version="2")
    with pytest.raises(FedbiomedVersionError, match="'2'"):
        breakpoints.read(written)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_json_that_is_none_is_refused(written, content):
    (written / "breakpoint_0001.json").write_bytes(content)
    with pytest.raises(FedbiomedError, match="breakpoint_0001"):
        breakpoints.read(written)


def test_the_json_missing_or_twice(written):
    shutil.copy(written / "breakpoint_0001.json", written / "breakpoint_0002.json")
    with pytest.raises(FedbiomedBreakpointError, match="2 found"):
        breakpoints.read(written)
    for path in written.glob("*.json"):
        path.unlink()
    with pytest.raises(FedbiomedBreakpointError, match=r"breakpoint_0001\.json"):
        breakpoints.read(written)


def test_writing_again_takes_the_place(experiment, written):
    (experiment / "params.mpk").unlink()
    (experiment / "params.mpk").write_bytes(b"others")
    assert BreakpointWriter().write(experiment, 1, state) == written
    assert (written / "params.mpk").read_bytes() == b"others"
    assert [path.name for path in experiment.iterdir() if path.is_dir()] == ["breakpoint_0001"]


def test_nothing_is_left_when_it_cannot_be_written(experiment, written):
    before = (written / "breakpoint_0001.json").read_bytes()

    def fail(folder: Path) -> dict[str, object]:
        (folder / "part").write_bytes(b"part")
        raise OSError(28, "No space left on device")

    with pytest.raises(FedbiomedBreakpointError, match="No space left"):
        BreakpointWriter().write(experiment, 1, fail)
    with pytest.raises(FedbiomedBreakpointError, match="JSON"):
        BreakpointWriter().write(experiment, 1, lambda folder: {**state(folder), "aggregator": {"parameters": {1, 2}}})
    assert [path.name for path in experiment.iterdir() if path.is_dir()] == ["breakpoint_0001"]
    assert (written / "breakpoint_0001.json").read_bytes() == before


def test_what_a_killed_process_left_is_no_breakpoint_and_goes_with_the_next(experiment):
    left = experiment / ".breakpoint_0001.abc.part"
    left.mkdir()
    (left / "params.mpk").write_bytes(b"half")
    assert breakpoints.of_experiment(experiment) == []
    BreakpointWriter().write(experiment, 1, state)
    assert not left.exists()


def test_the_newest_is_of_the_highest_experiment_that_has_one(tmp_path):
    for name in ("Experiment_0002", "Experiment_0010", "Experiment_0011", "mine"):
        (tmp_path / name).mkdir()
    for path in (
        "Experiment_0002/breakpoint_0009",
        "Experiment_0010/breakpoint_0002",
        "Experiment_0010/breakpoint_0010",
        "mine/breakpoint_0000",
    ):
        (tmp_path / path).mkdir()
    (tmp_path / "a file 12").touch()
    assert breakpoints.newest(tmp_path) == tmp_path / "Experiment_0010" / "breakpoint_0010"


def test_experiments_without_a_number_come_last_and_by_their_use(tmp_path):
    for index, name in enumerate(("older", "newer", "none")):
        (tmp_path / name).mkdir()
        if name != "none":
            (tmp_path / name / "breakpoint_0000").mkdir()
        os.utime(tmp_path / name, (index, index))
    assert breakpoints.newest(tmp_path) == tmp_path / "newer" / "breakpoint_0000"
    with pytest.raises(FedbiomedBreakpointError, match="no experiment in"):
        breakpoints.newest(tmp_path / "nowhere")


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_random_states_come_back(tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    np.random.normal()  # leaves a second value in store
    random_states.save(tmp_path / "states.mpk")
    first, second = [*draws(), np.random.normal()], draws()
    random_states.restore(tmp_path / "states.mpk")
    assert [*draws(), np.random.normal()] == first
    assert draws() == second


def test_random_states_that_are_none_are_refused(tmp_path):
    for content in ({"python": (3, (1, 2), None)}, {"numpy": ()}, [], {"python": random.getstate(), "numpy": ("MT19937", 1)}):
        Serializer.dump(content, tmp_path / "states.mpk")
        with pytest.raises(FedbiomedBreakpointError, match="random"):
            random_states.restore(tmp_path / "states.mpk")
