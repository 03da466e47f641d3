"""`fedbiomed researcher` and the parts of `fedbiomed experiment` that need no network, through the command line's parser."""

import argparse
import json

import pytest

from fedbiomed.cli import experiment, researcher
from fedbiomed.common import config
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedConfigError, FedbiomedUserInputError
from fedbiomed.researcher.breakpoints import BreakpointWriter, linked
from fedbiomed.researcher.connect import open_config


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    researcher.add_parser(subparsers)
    experiment.add_parser(subparsers)
    args = parser.parse_args([str(argument) for argument in arguments])
    return int(args.run(args))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "fbm-researcher"
    assert (
        command("researcher", "create", "--dir", root, "--broker", "broker.example.org:1884", "--repository", "https://files.example.org")
        == 0
    )
    return root


def test_create_writes_what_was_told(folder):
    made = config.load(ResearcherConfig, folder, env={})
    assert (made.broker, made.broker_port, made.repository) == ("broker.example.org", 1884, "https://files.example.org")


def test_a_researcher_has_a_key_of_its_own(folder, tmp_path):
    made = config.load(ResearcherConfig, folder, env={})
    key = made.identity.read_text()
    assert made.identity.stat().st_mode & 0o777 == 0o600
    assert open_config(folder, env={}).identity.read_text() == key  # a notebook that starts there takes it
    assert open_config(tmp_path / "new", env={}).identity.read_text() != key  # and makes one with a folder


def test_create_tells_the_id(tmp_path, capsys):
    assert command("researcher", "create", "--dir", tmp_path / "r") == 0
    assert config.load(ResearcherConfig, tmp_path / "r", env={}).id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "part"),
    [(["--broker", "nowhere:x"], "HOST:PORT"), (["--repository", "files"], "URL")],
)
def test_create_refuses_wrong_settings(tmp_path, options, part):
    with pytest.raises(FedbiomedConfigError, match=part):
        command("researcher", "create", "--dir", tmp_path / "r", *options)
    assert not (tmp_path / "r").exists()


def test_create_refuses_a_folder_that_is_taken(folder):
    with pytest.raises(FedbiomedConfigError, match="already"):
        command("researcher", "create", "--dir", folder)


def test_create_says_when_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FedbiomedConfigError, match="cannot make"):
        command("researcher", "create", "--dir", tmp_path / "file" / "r")


def state(folder):
    model = folder.parent / "my_model.py"
    model.write_text("class Plan: pass\n", encoding="utf-8")
    (folder / "random_states.mpk").touch()
    return {
        "training_data": {"node_a": {"dataset_id": "dataset_a"}},
        "training_args": {"epochs": 1},
        "model_args": {},
        "training_plan_path": linked(model, folder, "model_0000.py"),
        "training_plan_class": "Plan",
        "round_current": 1,
        "round_limit": 3,
        "experimentation_folder": folder.parent.name,
        "tags": ["heart"],
        "aggregator": {"class": "FedAverage", "module": "fedbiomed.researcher.aggregators.fedavg", "parameters": {}},
        "node_selection_strategy": {"class": "DefaultStrategy", "module": "m", "parameters": {}, "fds": {}},
        "aggregated_params": {},
        "job": {"job_id": "job_1"},
        "history": [
            [0, "node_a", "dataset_a", "TRAINING", "Loss", "nan", 1, 1],
            [0, "node_a", "dataset_a", "TRAINING", "Loss x", 0.5, 1, 1],
        ],
        "random_states": str(folder / "random_states.mpk"),
    }


@pytest.fixture
def written(folder):
    experiments = folder / "var" / "experiments"
    for name in ("Experiment_0000", "Experiment_0001"):
        (experiments / name).mkdir(parents=True)
    return BreakpointWriter().write(experiments / "Experiment_0001", 0, state)


def test_list_tells_how_far_experiments_are(folder, written, capsys):
    capsys.readouterr()
    assert command("experiment", "list", "--dir", folder, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["experiment"], row["problem"]) for row in rows] == [("Experiment_0000", "no breakpoint"), ("Experiment_0001", "")]
    assert (rows[1]["round_current"], rows[1]["round_limit"], rows[1]["nodes"], rows[1]["tags"]) == (1, 3, 1, ["heart"])
    assert rows[1]["breakpoints"] == ["breakpoint_0000"]
    assert command("experiment", "list", "--dir", folder) == 0
    assert "Experiment_0001" in capsys.readouterr().out


def test_list_goes_on_past_a_damaged_breakpoint(folder, written, capsys):
    capsys.readouterr()
    (written / "breakpoint_0000.json").unlink()
    assert command("experiment", "list", "--dir", folder, "--json") == 0
    assert "breakpoint_0000.json" in json.loads(capsys.readouterr().out)[1]["problem"]


def test_an_empty_list_says_so(folder, capsys):
    assert command("experiment", "list", "--dir", folder) == 0
    assert "no experiments" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["name", "experiment", "breakpoint"])
def test_show_tells_where_an_experiment_stands(folder, written, given, capsys):
    capsys.readouterr()
    named = {"name": "Experiment_0001", "experiment": written.parent, "breakpoint": written}[given]
    assert command("experiment", "show", named, "--dir", folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["breakpoint"] == str(written)
    assert facts["nodes"] == {"node_a": "dataset_a"}
    assert facts["aggregator"] == "FedAverage"
    assert [(row["metric"], row["value"]) for row in facts["metrics"]] == [("TRAINING/Loss", None), ("TRAINING/Loss x", 0.5)]
    assert command("experiment", "show", named, "--dir", folder) == 0
    assert "TRAINING/Loss x" in capsys.readouterr().out


def test_show_says_what_is_not_there(folder, written):
    with pytest.raises(FedbiomedBreakpointError, match="Experiment_0007"):
        command("experiment", "show", "Experiment_0007", "--dir", folder)
    with pytest.raises(FedbiomedBreakpointError, match="no breakpoint"):
        command("experiment", "show", "Experiment_0000", "--dir", folder)
    with pytest.raises(FedbiomedUserInputError, match="--rounds"):
        command("experiment", "resume", "Experiment_0001", "--dir", folder, "--rounds", "0")
