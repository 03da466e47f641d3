"""Command lines of earlier releases: what they become, and that they work from the launcher and the modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedbiomed.cli.main import parser
from fedbiomed.cli.old_spellings import main, translate
from fedbiomed.common.config import NodeConfig, load
from fedbiomed.demo.processes import Background
from tests.ground.test_config_ini import NODE, written
from tests.support.federation import command
from tests.support.node_cli import told_json, without_settings

ROOT = Path(__file__).resolve().parents[2]
MNIST = ["--tags", "#MNIST,#dataset"]
FORWARDED = [
    ("-a", "add", ["dataset", "add"]),
    ("-l", "list", ["dataset", "list"]),
    ("-d", "delete", ["dataset", "remove"]),
    ("-da", "delete-all", ["dataset", "remove", "--all"]),
    ("-dm", "delete-mnist", ["dataset", "remove", *MNIST]),
    ("-rtp", "register-training-plan", ["plan", "register"]),
    ("-atp", "approve-training-plan", ["plan", "approve"]),
    ("-rjtp", "reject-training-plan", ["plan", "reject"]),
    ("-utp", "update-training-plan", ["plan", "update"]),
    ("-dtp", "delete-training-plan", ["plan", "delete"]),
    ("-ltps", "list-training-plans", ["plan", "list"]),
    ("-vtp", "view-training-plan", ["plan", "view"]),
    ("-s", "start", ["start", "--gpu", "none"]),
    ("-s -g", "start -g", ["start", "--gpu", "auto"]),
    ("-s -gn 1", "start --gpu-num 1", ["start", "--gpu", "1"]),
    ("-s -go", "start --gpu-only", ["start", "--gpu", "auto", "--gpu-only"]),
    ("-adff d.json", "add-dataset-from-file d.json", ["dataset", "add", "--from-json", "d.json"]),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A checkout of an earlier release, with one node."""
    written(tmp_path, NODE, "config_node.ini")
    return tmp_path


@pytest.mark.parametrize(("option", "word", "today"), FORWARDED)
def test_each_command_of_a_node_is_forwarded(here: Path, option: str, word: str, today: list[str]) -> None:
    expected = ["node", *today, "--dir", str(here)]
    assert translate(["node", *option.split()], here, {}).commands == [expected]
    assert translate(["run", "node", *word.split()], here, {}).commands == [expected]
    assert parser().parse_args(expected)  # and there is such a command


def test_mnist_is_added_from_a_path_or_the_usual_one(here: Path) -> None:
    described = ["--name", "MNIST", *MNIST, "--description", "MNIST database", "--dir", str(here)]
    for words, path in ((["-am", "digits"], "digits"), (["--add-mnist"], str(here / "data"))):
        (added,) = translate(["node", *words], here, {}).commands
        assert added == ["node", "dataset", "add", "--type", "default", "--path", path, *described]


def test_words_before_the_command_become_settings(here: Path) -> None:
    words = ["config", "n2.ini", "ip_address", "10.0.0.7", "enable-training-plan-approval", "disable-default-training-plans", "list"]
    forwarded = translate(["run", "node", *words], here, {})
    folder = str(here / "n2")
    assert forwarded.commands == [["node", "create", "--dir", folder], ["node", "dataset", "list", "--dir", folder]]
    assert forwarded.environment == {
        "CONFIG_FILE": None,  # there is no such INI file: a folder of today's kind is made
        "MQTT_BROKER": "10.0.0.7",
        "UPLOADS_IP": "10.0.0.7",
        "ENABLE_TRAINING_PLAN_APPROVAL": "True",
        "ALLOW_DEFAULT_TRAINING_PLANS": "False",
    }
    ini = written(here, NODE, "n2.ini")
    assert translate(["run", "node", *words], here, {}).environment["CONFIG_FILE"] == str(ini)
    assert translate(["node", "-l"], here, {"CONFIG_FILE": "n2.ini"}).commands == [["node", "dataset", "list", "--dir", str(here)]]


def test_a_component_is_made_on_demand_and_at_its_first_use(tmp_path: Path) -> None:
    folder, researcher = str(tmp_path / "fbm-node"), str(tmp_path / "fbm-researcher")
    assert translate(["node", "configuration", "create"], tmp_path, {}).commands == [["node", "create", "--dir", folder]]
    assert translate(["run", "node", "list"], tmp_path, {}).commands[0] == ["node", "create", "--dir", folder]
    for kind in (["researcher"], ["run", "researcher"]):
        assert translate([*kind, "configuration", "create"], tmp_path, {}).commands == [["researcher", "create", "--dir", researcher]]
    forwarded = translate(["run", "researcher", "ip_address", "10.0.0.7", "start"], tmp_path, {})
    assert forwarded.commands == [["researcher", "start", "--dir", researcher]]
    assert forwarded.environment["MQTT_BROKER"] == "10.0.0.7"


def test_the_network_is_forwarded(tmp_path: Path) -> None:
    for words, verb in (([], "start"), (["start"], "start"), (["stop"], "stop")):
        assert translate(["run", "network", *words], tmp_path, {}).commands == [["network", verb]]


@pytest.mark.parametrize(
    "words",
    [
        "run gui start",
        "run certificate-dev-setup",
        "run node certificate generate",
        "node certificate list",
        "researcher certificate list",
        "common certificate-dev-setup",
    ],
)
def test_what_has_no_counterpart_says_so(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "has no counterpart in this release" in lines[0]


@pytest.mark.parametrize(
    "words", ["", "run", "run broker", "node", "node -x", "node configuration", "researcher", "run network restart", "common"]
)
def test_nonsense_is_refused(words: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        translate(words.split(), tmp_path, {})


def test_the_modules_work_as_before(here: Path) -> None:
    written(here, NODE.replace("node_of_old", "node_two"), "config_two.ini")
    env = without_settings() | {"CONFIG_FILE": "config_two.ini", "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-m", "fedbiomed.node.cli", "-l"], capture_output=True, text=True, timeout=60, check=False, cwd=here, env=env
    )
    assert (answer.returncode, answer.stdout[:11]) == (0, "no datasets"), answer.stderr
    assert len(answer.stderr.splitlines()) == 1  # which keys of the INI file are not used
    assert (here / "config_two" / "var" / "node.sqlite").is_file()
    for module, *words in (("researcher", "certificate", "list"), ("common", "certificate-dev-setup")):
        program = [sys.executable, "-m", f"fedbiomed.{module}.cli", *words]
        answer = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False, cwd=here, env=env)
        assert answer.returncode == 2
        assert "has no counterpart" in answer.stderr


def test_questions_are_answered_from_a_file_or_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "patients.csv").write_text("age\n63\n")
    (tmp_path / "plan.py").write_text("class Plan:\n    pass\n")
    monkeypatch.chdir(tmp_path)

    def run(words: str, answers: str) -> tuple[int, str, str]:
        (tmp_path / "answers").write_text(answers)
        with (tmp_path / "answers").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            code = main(["run", "node", *words.split()])
        return code, *capsys.readouterr()

    assert run("add", "1\npatients\nheart\n2019-2024\npatients.csv\n")[0] == 0
    (row,) = told_json("dataset", "list", "--dir", tmp_path / "fbm-node")
    assert (row["name"], row["tags"], row["description"]) == ("patients", ["heart"], "2019-2024")
    assert run("add", "2\n\n\n\n.\n")[0] == 0
    row_of_mnist = told_json("dataset", "list", "--dir", tmp_path / "fbm-node")[1]
    assert (row_of_mnist["name"], row_of_mnist["tags"]) == ("MNIST", ["#MNIST", "#dataset"])
    assert run("delete-mnist", "y\n")[0] == 0
    assert run("register-training-plan", "\n\nplan.py\n")[0] == 0
    assert run("reject-training-plan", "1\nwrites files\n")[1].endswith(" Rejected\n")
    for words, answers in (("delete", "1\nn\n"), ("delete-all", "n\n"), ("delete", "")):
        code, _, errors = run(words, answers)
        assert (code, errors.splitlines()[-1].endswith("nothing was changed")) == (1, True)
    words = [sys.executable, "-m", "fedbiomed.node.cli", "--delete"]
    env = without_settings() | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(words, input="1\ny\n", capture_output=True, text=True, timeout=60, check=False, env=env)
    assert answer.stdout == f"removed {row['dataset_id']}\n", answer.stderr


def test_the_launcher_works_as_before(tmp_path: Path) -> None:
    installed = tmp_path / "environment"
    (installed / "bin").mkdir(parents=True)
    (installed / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (installed / "bin" / "python").chmod(0o755)
    pins = f'echo "$(cat "{ROOT}/envs/constraints.txt" "{ROOT}/pyproject.toml" | cksum) " > "{installed}/installed-plain"'
    subprocess.run(["bash", "-c", pins], check=True)
    env = without_settings() | {"FBM_VENV": str(installed), "PYTHONPATH": str(ROOT)}
    words = [str(ROOT / "scripts" / "fedbiomed_run"), "node", "config", "site.ini", "configuration", "create"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=env)
    assert answer.returncode == 0, answer.stderr
    assert load(NodeConfig, tmp_path / "site", {}).id.startswith("node_")


def test_a_network_is_stopped_from_another_terminal(tmp_path: Path) -> None:
    assert "no network runs in" in command("network", "stop", "--dir", str(tmp_path / "n")).stderr
    where = ["--dir", str(tmp_path / "n")]
    running = Background(["network", "start", *where, "--mqtt-port", "0", "--http-port", "0"], tmp_path / "out.log")
    try:
        running.wait_until_ready()
        again = command("network", "start", *where, "--mqtt-port", "0", "--http-port", "0")
        assert "a network runs in" in again.stderr
        answer = command("network", "stop", *where)
        assert (answer.returncode, answer.stdout.startswith("stopped network process=")) == (0, True), answer.stderr
    finally:
        running.end()
    assert command("network", "stop", *where).returncode == 1


def test_a_researcher_s_notebooks_are_started(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    env = {**os.environ, "PATH": str(tmp_path)}
    refused = command("researcher", "start", cwd=tmp_path, env=env)
    assert "Jupyter is not installed" in refused.stderr
    jupyter = tmp_path / "jupyter-notebook"  # stands for Jupyter: says what it was told
    jupyter.write_text('#!/bin/sh\necho "$1 $FBM_RESEARCHER_DIR"\n')
    jupyter.chmod(0o755)
    answer = command("researcher", "start", cwd=tmp_path, env=env)
    assert answer.stdout.splitlines()[1] == f"--ServerApp.root_dir={tmp_path / 'notebooks'} {tmp_path / 'fbm-researcher'}"
