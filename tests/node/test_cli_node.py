"""`fedbiomed node ...` as an operator or a program uses it: real processes, what they print, and that a refusal changes nothing."""

import fcntl
import json
import logging
import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedbiomed.cli.main import main
from fedbiomed.cli.node_output import LineFormatter, printable
from tests.conftest import Addresses
from tests.ground.test_config_ini import NODE, written
from tests.support.federation import command
from tests.support.node_cli import node, refused, told, told_json, without_settings

PLAN = "class Plan(TorchTrainingPlan):\n    def training_step(self, data, target):\n        return 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A new node's folder."""
    told("create", "--dir", tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a node that has one dataset, and with files beside it; for tests that change nothing."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "headless.csv").write_text("63,70.5\n51,60\n")
    (folder / "loop").symlink_to("loop")
    told("create", "--dir", folder / "site")
    table = write_table(folder)
    told("dataset", "add", "--dir", folder / "site", "--type", "csv", "--path", table, "--name", "first", "--tags", "taken,too")
    return folder


def write_table(folder: Path) -> Path:
    path = folder / "patients.csv"
    path.write_text("age,weight\n63,70.5\n51,\n")
    return path


def settings(site: Path) -> dict[str, object]:
    return tomllib.loads((site / "etc" / "config.toml").read_text())


def test_create_writes_what_it_was_told(tmp_path: Path) -> None:
    site = tmp_path / "a" / "site"
    made = told_json(
        *("create", "--dir", site, "--name", "Hospital A", "--broker", "mq.example.org:1884"),
        *("--repository", "https://files.example.org/", "--no-plan-approval"),
    )
    assert made == {
        "id": made["id"],
        "name": "Hospital A",
        "dir": str(site),
        "federation": "default",
        "broker": "mq.example.org:1884",
        "repository": "https://files.example.org",
        "plan_approval": False,
    }
    assert made["id"].startswith("node_")
    found = settings(site)
    assert (found["id"], found["broker"], found["broker_port"]) == (made["id"], "mq.example.org", 1884)
    assert {path.name for path in site.iterdir()} == {"etc", "var", "log"}
    assert {oct((site / name).stat().st_mode & 0o777) for name in ("var", "log")} == {"0o700"}


def test_create_has_safe_defaults_and_a_default_folder(tmp_path: Path) -> None:
    answer = node("create", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = settings(tmp_path / "fbm-node")
    assert answer.stdout == f"created node={found['id']} dir={tmp_path / 'fbm-node'}\n"
    assert (found["plan_approval"], found["broker"], found["broker_port"]) == (True, "localhost", 1883)


def test_create_refuses_a_folder_that_is_taken(site: Path) -> None:
    before = settings(site)
    assert "holds a component already" in refused("create", "--dir", site)
    assert settings(site) == before


def test_create_takes_its_id_from_the_environment(tmp_path: Path) -> None:
    told("create", "--dir", tmp_path / "site", NODE_ID="node_of_mine")
    assert settings(tmp_path / "site")["id"] == "node_of_mine"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--broker", "host:port"), "a broker is given as HOST:PORT"),
        (("--repository", "ftp://x"), "must be a URL like http://localhost:8844"),
    ],
)
def test_create_refuses_wrong_settings(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in refused("create", "--dir", tmp_path / "site", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_create_refuses_a_place_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot make the folder" in refused("create", "--dir", tmp_path / "file" / "site")


def test_a_folder_of_an_earlier_release_is_a_node(tmp_path: Path) -> None:
    written(tmp_path, NODE, "config_node.ini")
    answer = command("node", "status", "--dir", str(tmp_path), "--json", env=without_settings())
    facts = json.loads(answer.stdout)
    assert (facts["id"], facts["broker"], facts["dir"]) == ("node_of_old", "mq.example.org:1884", str(tmp_path))
    assert answer.stderr.count("not used by this release") == len(answer.stderr.splitlines()) == 1
    (tmp_path / "plan.py").write_text(PLAN)
    plan = json.loads(node("plan", "register", tmp_path / "plan.py", "--dir", tmp_path, "--json").stdout)
    assert plan["algorithm"] == "SHA3_256"
    assert "holds a component already" in refused("create", "--dir", tmp_path)


def test_commands_without_a_node_say_to_create_one(tmp_path: Path) -> None:
    for words in (("status",), ("dataset", "list"), ("plan", "list"), ("start",)):
        assert "create it first" in refused(*words, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_datasets_are_added_listed_and_removed(site: Path, table: Path) -> None:
    dataset_id = told("dataset", "add", "--dir", site, "--type", "csv", "--path", table, "--name", "Patients", "--tags", "heart,2024")
    assert dataset_id.startswith("dataset_")
    assert told_json("dataset", "list", "--dir", site) == [
        {
            "name": "Patients",
            "data_type": "csv",
            "tags": ["heart", "2024"],
            "description": "",
            "shape": [2, 2],
            "path": str(table),
            "dataset_id": dataset_id,
            "dtypes": ["int64", "float64"],
            "dataset_parameters": {},
        }
    ]
    assert dataset_id in told("dataset", "list", "--dir", site)
    assert told("dataset", "remove", dataset_id, "--dir", site) == f"removed {dataset_id}"
    assert told("dataset", "list", "--dir", site).startswith("no datasets")
    assert table.exists()


def test_a_dataset_is_added_from_a_file(site: Path, table: Path, tmp_path: Path) -> None:
    (site / "inside.csv").write_text("a\n1\n")
    for number, path in enumerate((str(table), "inside.csv", "$DATA_OF_TEST/patients.csv")):
        description = {"path": path, "data_type": "csv", "description": "d", "tags": f"x, t{number}", "name": "n"}
        file = tmp_path / "dataset.json"
        file.write_text(json.dumps(description | {"dataset_parameters": {"k": number}}))
        told("dataset", "add", "--dir", site, "--from-json", file, DATA_OF_TEST=str(tmp_path))
    rows = told_json("dataset", "list", "--dir", site)
    assert [(row["path"], row["tags"], row["dataset_parameters"]) for row in rows] == [
        (str(table), ["x", "t0"], {"k": 0}),
        (str(site / "inside.csv"), ["x", "t1"], {"k": 1}),
        (str(table), ["x", "t2"], {"k": 2}),
    ]


ADD = {"--type": "csv", "--path": "patients.csv", "--name": "n", "--tags": "t"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--path": "nowhere.csv"}, "nowhere.csv is not there"),
        ({"--path": "headless.csv"}, "has no header"),
        ({"--path": "."}, "is a folder; a csv dataset is one file"),
        ({"--type": "default"}, "is a file; a dataset of this type is a folder"),
        ({"--type": "dicom"}, "no dataset type 'dicom'; there are csv, default"),
        ({"--path": "loop"}, "is no path that can be used: Symlink loop"),
        ({"--path": "~nobody_of_this_name/x"}, "this machine has no such user"),
        ({"--path": "x" * 300}, "is no path that can be used"),
        ({"--path": "M\udcfcller.csv"}, "'M\\udcfcller.csv' is not UTF-8"),
        ({"--name": "\udcfc"}, "is not UTF-8"),
        ({"--tags": "taken"}, "FB322: tags taken conflict"),
        ({"--tags": " , "}, "has 1 to 32 tags"),
        ({"--name": None}, "a dataset needs --name"),
        ({"--from-json": "x.json"}, "--from-json holds everything: leave out --type, --path, --name, --tags"),
    ],
)
def test_a_wrong_dataset_is_refused_and_changes_nothing(filled: Path, change: dict[str, str | None], reason: str) -> None:
    options = [part for key, value in (ADD | change).items() if value is not None for part in (key, value)]
    assert reason in refused("dataset", "add", "--dir", filled / "site", *options, cwd=filled)
    assert [row["name"] for row in told_json("dataset", "list", "--dir", filled / "site")] == ["first"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold one JSON object, not list"),
        ('{"path": "x"}', "missing ['data_type', 'name', 'tags']"),
        (
            '{"path": "x", "data_type": "csv", "name": "n", "tags": [1], "description": "d"}',
            "tags must be a text (comma-sep",
        ),
        ('{"path": "x", "data_type": "csv", "name": "n", "tags": "a", "colour": 1}', "unknown ['colour']"),
        ('{"path": "$UNSET_HERE/x", "data_type": "csv", "name": "n", "tags": "a"}', "UNSET_HERE, which is not set"),
        ('{"path": "x", "data_type": "csv", "name": "n", "tags": "a"}', "/site/x is not there"),
        ('{"path": "a\\u0000b", "data_type": "csv", "name": "n", "tags": "a"}', "is no path that can be used: embedded null byte"),
        ('{"path": "inside.csv", "data_type": "csv", "name": "\\ud800", "tags": "a"}', "the name of a dataset is a text"),
        ('{"path": "inside.csv", "data_type": "csv", "name": "n", "tags": "\\ud800"}', "tags are a list of texts"),
        (
            '{"path": "x", "data_type": "csv", "name": "n", "tags": "a", "dataset_parameters": {"k": "\\ud800"}}',
            "dataset_parameters is an object of JSON values",
        ),
    ],
)
def test_a_wrong_description_file_is_refused(filled: Path, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "d.json").write_text(content)
    assert reason in refused("dataset", "add", "--dir", filled / "site", "--from-json", tmp_path / "d.json")


def test_missing_files_and_ids_are_told(site: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "No such file" in refused("dataset", "add", "--dir", site, "--from-json", nowhere)
    assert "FB313" in refused("dataset", "remove", "dataset_x", "--dir", site)
    assert "No such file" in refused("plan", "register", nowhere, "--dir", site)
    assert "has no training plan 'x'" in refused("plan", "approve", "x", "--dir", site)
    assert "has no training plan 'x'" in refused("plan", "reject", "x", "--reason", "r", "--dir", site)


def test_plans_are_registered_shown_decided_and_deleted(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.py"
    file.write_text(PLAN)
    plan_id, status = told("plan", "register", file, "--dir", site, "--name", "first", "--description", "one").split()
    assert status == "Approved"
    (row,) = told_json("plan", "list", "--dir", site)
    assert list(row) == [
        *("name", "description", "training_plan_id", "training_plan_type", "training_plan_status", "algorithm", "researcher_id"),
        *("date_registered", "date_last_action", "notes"),
    ]
    assert (row["training_plan_id"], row["name"], row["description"]) == (plan_id, "first", "one")
    assert told("plan", "reject", plan_id, "--reason", "writes files", "--dir", site) == f"{plan_id} Rejected"
    assert "writes files" in told("plan", "list", "--dir", site)
    assert told("plan", "approve", plan_id, "--dir", site) == f"{plan_id} Approved"
    assert node("plan", "view", plan_id, "--dir", site).stdout == PLAN
    other = tmp_path / "other.py"
    other.write_text(PLAN.replace("1", "2"))
    second = told_json("plan", "register", other, "--dir", site)
    assert second["name"] == "other"
    assert "-        return 1\n+        return 2" in told("plan", "diff", second["training_plan_id"], "--dir", site)
    file.write_text(PLAN.replace("1", "3"))
    assert told("plan", "update", plan_id, file, "--dir", site) == f"{plan_id} Approved"
    assert "return 3" in told("plan", "view", plan_id, "--dir", site)
    assert told("plan", "delete", plan_id, "--dir", site) == f"deleted {plan_id}"
    assert [row["name"] for row in told_json("plan", "list", "--dir", site)] == ["other"]


def test_a_wrong_plan_is_refused_and_changes_nothing(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.py"
    nested = "class A:\n def f(self, x):\n  if x == 0: pass\n" + "  elif x: pass\n" * 600  # it can be parsed, but not dumped
    for text, reason in (("def (", "is not Python"), ("x = 1", "defines no class"), (nested, "too deeply nested")):
        file.write_text(text)
        assert reason in refused("plan", "register", file, "--dir", site)
    assert told_json("plan", "list", "--dir", site) == []


def test_a_plan_cannot_hide_text_from_its_reader(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.py"
    file.write_text(PLAN + "x = '\x1b[2K\u202e'\n", encoding="utf-8")
    plan_id = told("plan", "register", file, "--dir", site, "--name", "a\x1b[31m").split()[0]
    assert told("plan", "view", plan_id, "--dir", site).endswith(r"x = '\x1b[2K\u202e'")
    assert r"a\x1b[31m" in told("plan", "list", "--dir", site)


def test_a_record_of_the_log_is_one_line() -> None:
    record = logging.makeLogRecord({"msg": "cancelled: %s", "args": ("x\n2026-01-01 INFO all is well\x1b[2J",)})
    assert LineFormatter("%(message)s").format(record) == "cancelled: x\\n2026-01-01 INFO all is well\\x1b[2J"


def test_text_stays_readable() -> None:
    assert printable("Größe 10 µm\n\tça", "\n\t") == "Größe 10 µm\n\tça"
    assert printable("a\rb\nc\u200b") == r"a\rb\nc\u200b"


def test_status_and_jobs(site: Path, table: Path) -> None:
    told("dataset", "add", "--dir", site, "--type", "csv", "--path", table, "--name", "n", "--tags", "t")
    assert told("jobs", "--dir", site).startswith("no jobs")
    assert told_json("jobs", "--dir", site) == []
    connection = sqlite3.connect(site / "var" / "node.sqlite")
    connection.execute("INSERT INTO orders VALUES ('q1', 'researcher_x', 'job_1', 3, 0, 30.0, 'running', x'00', NULL, 10.0, 20.0, 'm')")
    connection.commit()
    connection.close()
    (job,) = told_json("jobs", "--dir", site)
    assert job == {
        "request_id": "q1",
        "researcher_id": "researcher_x",
        "job_id": "job_1",
        "round": 3,
        "attempt": 0,
        "state": "running",
        "message": "m",
        "received_at": 10.0,
        "changed_at": 20.0,
        "expires_at": 30.0,
    }
    assert "running  3      0        job_1" in told("jobs", "--dir", site)
    facts = told_json("status", "--dir", site)
    assert (facts["id"], facts["datasets"], facts["plans"], facts["jobs"]) == (settings(site)["id"], 1, {}, {"running": 1})
    assert facts["running"] is False
    with (site / "var" / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the daemon does
        text = told("status", "--dir", site)
    assert re.search(r"^running +yes$", text, re.MULTILINE)
    assert re.search(r"^jobs +1 running$", text, re.MULTILINE)


def test_the_doctor_names_what_is_wrong(site: Path, table: Path) -> None:
    told("dataset", "add", "--dir", site, "--type", "csv", "--path", table, "--name", "n", "--tags", "t")
    table.unlink()
    answer = node("doctor", "--dir", site, "--json", MQTT_BROKER="127.0.0.1", MQTT_BROKER_PORT="1", UPLOADS_URL="http://127.0.0.1:1")
    found = {finding["check"]: finding["ok"] for finding in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert [check for check, ok in found.items() if not ok] == ["datasets", "broker", "login", "repository", "clock"]
    assert set(found) >= {"folder", "disk", "database", "plans", "libraries", "torch"}
    assert answer.stderr == f"fedbiomed: 5 of {len(found)} checks failed: datasets, broker, login, repository, clock\n"


def test_the_doctor_makes_no_database(site: Path) -> None:
    for file in (site / "var").glob("node.sqlite*"):
        file.unlink()
    answer = node("doctor", "--dir", site, "--json", MQTT_BROKER="127.0.0.1", MQTT_BROKER_PORT="1", UPLOADS_URL="http://127.0.0.1:1")
    found = {finding["check"]: finding for finding in json.loads(answer.stdout)}
    assert not found["database"]["ok"]
    assert "restore it from a backup" in found["database"]["remedy"]
    assert list((site / "var").iterdir()) == []


def test_the_doctor_is_content_with_a_healthy_node(site: Path, network: Addresses) -> None:
    host, port = network.mqtt_address
    lines = told("doctor", "--dir", site, MQTT_BROKER=host, MQTT_BROKER_PORT=str(port), UPLOADS_URL=network.http_url).splitlines()
    assert len(lines) == 11
    assert all(line.startswith("ok ") for line in lines)


def test_a_wrong_command_line_is_one_line(site: Path) -> None:
    for words in (("dataset", "bogus"), ("create", "--broker"), ("dataset", "budget", "x", "--epsilon", "a\x1b[31m"), ()):
        answer = node(*words)
        assert answer.returncode == 2
        assert len(answer.stderr.splitlines()) == 1
        assert answer.stderr.startswith("fedbiomed: ")
        assert "\x1b" not in answer.stderr


def test_an_error_is_one_line_whatever_it_quotes(site: Path) -> None:
    assert refused("plan", "view", "a\x1b[2J\nb", "--dir", site)
    assert "'a\\x1bb'" in refused("dataset", "remove", "a\x1bb", "--dir", site)


def test_a_terminal_that_has_no_umlauts_shows_their_numbers(tmp_path: Path) -> None:
    told("create", "--dir", tmp_path / "s", "--name", "Klinikum Süd")
    command = [sys.executable, "-m", "fedbiomed", "node", "status", "--dir", str(tmp_path / "s")]
    answer = subprocess.run(command, capture_output=True, env=without_settings() | {"PYTHONIOENCODING": "ascii"}, timeout=30, check=True)
    assert b"Klinikum S\\xfcd" in answer.stdout


def test_start_refuses_a_device_that_is_none(site: Path) -> None:
    assert "--gpu is auto, none or the number of a device" in refused("start", "--dir", site, "--gpu", "fast")


@pytest.mark.parametrize(
    "command",
    [
        "create",
        *("dataset add", "dataset list", "dataset remove"),
        *("plan list", "plan register", "plan approve", "plan reject", "plan view", "plan diff", "plan update", "plan delete"),
        *("start", "status", "jobs", "doctor"),
    ],
)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["node", *command.split(), "--help"])
    text = capsys.readouterr().out
    assert f"example:\n  fedbiomed node {command} " in text
    assert "--dir DIR" in text
