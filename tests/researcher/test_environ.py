"""The settings under the names that notebooks know: what is read, what assigning does, and that a process is one component."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedbiomed.common.constants import ComponentType
from fedbiomed.common.environ import Environ
from fedbiomed.common.exceptions import FedbiomedEnvironError
from fedbiomed.researcher import connect
from fedbiomed.researcher.environ import ResearcherEnviron, environ

SHARED = {
    *("COMPONENT_TYPE", "ROOT_DIR", "CONFIG_DIR", "VAR_DIR", "CACHE_DIR", "TMP_DIR", "CERT_DIR", "CONFIG_FILE", "CONFIG_FILE_VERSION"),
    *("MQTT_BROKER", "MQTT_BROKER_PORT", "UPLOADS_URL", "TIMEOUT", "ID", "MESSAGES_QUEUE_DIR", "DB_PATH", "MPSPDZ_IP", "MPSPDZ_PORT"),
    *("MPSPDZ_CERTIFICATE_KEY", "MPSPDZ_CERTIFICATE_PEM", "DEFAULT_BIPRIMES_DIR", "ALLOW_DEFAULT_BIPRIMES", "PORT_INCREMENT_FILE"),
}
RESEARCHER = SHARED | {"RESEARCHER_ID", "TENSORBOARD_RESULTS_DIR", "EXPERIMENTS_DIR"}
NODE = SHARED | {
    *("NODE_ID", "DEFAULT_TRAINING_PLANS_DIR", "TRAINING_PLANS_DIR", "ALLOW_DEFAULT_TRAINING_PLANS", "TRAINING_PLAN_APPROVAL"),
    *("HASHING_ALGORITHM", "SECURE_AGGREGATION", "FORCE_SECURE_AGGREGATION", "EDITOR"),
}


def made(root: Path, **variables: str) -> tuple[ResearcherEnviron, dict[str, str]]:
    """An environ over variables of its own."""
    env = {connect.FOLDER_VARIABLE: str(root), **variables}
    return ResearcherEnviron(lambda: connect.open_config(env=env), env), env


def test_it_names_the_settings_and_makes_the_folders(tmp_path: Path) -> None:
    mine, _ = made(tmp_path / "r", MQTT_BROKER_PORT="1999")
    assert set(mine) == RESEARCHER
    assert "TMP_DIR" in mine
    assert not (tmp_path / "r").exists()  # nothing before the first look
    assert (mine["MQTT_BROKER_PORT"], mine["TIMEOUT"]) == (1999, 5)
    assert mine["COMPONENT_TYPE"] is ComponentType.RESEARCHER
    assert mine["ID"] == mine["RESEARCHER_ID"] == connect.open_config(tmp_path / "r").id
    assert Path(mine["ROOT_DIR"]) == tmp_path / "r"
    assert mine["TMP_DIR"] == str(tmp_path / "r" / "var" / "tmp")
    assert mine["CONFIG_FILE_VERSION"] == "1"
    for key in ("CONFIG_DIR", "VAR_DIR", "CACHE_DIR", "TMP_DIR", "CERT_DIR", "EXPERIMENTS_DIR", "TENSORBOARD_RESULTS_DIR"):
        assert Path(mine[key]).is_dir()
    assert len(dict(mine)) == len(mine) == len(RESEARCHER)


def test_what_is_assigned_counts_for_what_is_made_afterwards(tmp_path: Path) -> None:
    mine, env = made(tmp_path / "r")
    mine["MQTT_BROKER"] = "broker.example"
    mine["MQTT_BROKER_PORT"] = 1884
    mine["UPLOADS_URL"] = "http://files.example:8844/upload/"
    mine["TIMEOUT"] = 3
    mine["TENSORBOARD_RESULTS_DIR"] = str(tmp_path / "boards")
    mine["EXPERIMENTS_DIR"] = tmp_path / "experiments"
    config = connect.open_config(env=env)
    assert (config.broker, config.broker_port, config.repository) == ("broker.example", 1884, "http://files.example:8844")
    assert (config.answer_timeout_s, mine["TIMEOUT"]) == (3.0, 3.0)
    assert (config.tensorboard, config.experiments) == (tmp_path / "boards", tmp_path / "experiments")
    assert mine["TENSORBOARD_RESULTS_DIR"] == str(tmp_path / "boards")
    assert (tmp_path / "boards").is_dir()
    mine["ROOT_DIR"] = str(tmp_path / "other")
    assert mine["VAR_DIR"] == str(tmp_path / "other" / "var")
    assert connect.open_config(env=env).root == tmp_path / "other"


def test_what_only_notebooks_read_is_kept_here(tmp_path: Path) -> None:
    mine, env = made(tmp_path / "r")
    before = dict(env)
    mine["TMP_DIR"] = str(tmp_path / "elsewhere")
    assert mine["TMP_DIR"] == str(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert env == before


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("TMP_DIR", None, "TMP_DIR"),
        ("TMP_DIR", 1, "str"),
        ("NOTHING", "x", "NOTHING"),
        ("MQTT_BROKER_PORT", "1883", "int"),
        ("MQTT_BROKER_PORT", 0, "65535"),
        ("UPLOADS_URL", "nowhere", "http"),
        ("RESEARCHER_ID", "not an id", "letters"),
        ("ALLOW_DEFAULT_BIPRIMES", 1, "bool"),
    ],
)
def test_a_value_that_is_refused_changes_nothing(tmp_path: Path, key: str, value: object, part: str) -> None:
    mine, env = made(tmp_path / "r")
    before, variables = dict(mine), dict(env)
    with pytest.raises(FedbiomedEnvironError, match=part) as caught:
        mine[key] = value
    assert "\n" not in str(caught.value)
    assert (dict(mine), env) == (before, variables)


def test_an_unknown_key_and_removing_one(tmp_path: Path) -> None:
    mine, _ = made(tmp_path / "r")
    with pytest.raises(FedbiomedEnvironError, match="NOTHING"):
        mine["NOTHING"]
    with pytest.raises(FedbiomedEnvironError, match="cannot be removed"):
        del mine["TMP_DIR"]


def test_it_says_where_it_cannot_make_folders(tmp_path: Path) -> None:
    mine, _ = made(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(FedbiomedEnvironError, match="runs"):
        mine["TMP_DIR"]


def test_it_is_the_one_of_this_process() -> None:
    assert Environ() is environ


def in_new_process(code: str, folder: Path) -> str:
    """What a script prints that runs in a folder of its own."""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_a_node_cannot_be_imported_into_a_researcher(tmp_path: Path) -> None:
    code = """
from fedbiomed.common.exceptions import FedbiomedEnvironError
from fedbiomed.common.environ import Environ
from fedbiomed.researcher.environ import environ
try:
    from fedbiomed.node.environ import environ as other
except FedbiomedEnvironError as error:
    print(error)
assert Environ() is environ
"""
    assert "this process is a researcher already" in in_new_process(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_researcher_cannot_be_used_in_a_node(tmp_path: Path) -> None:
    code = """
import json
from fedbiomed.common.environ import Environ
from fedbiomed.common.exceptions import FedbiomedEnvironError
try:
    Environ()
except FedbiomedEnvironError as error:
    assert "no component yet" in str(error)
from fedbiomed.node.environ import environ
from fedbiomed.researcher.environ import environ as other
assert Environ() is environ
try:
    other["TMP_DIR"]
except FedbiomedEnvironError as error:
    assert "a node already" in str(error), error
values = dict(environ)
assert values["NODE_ID"] == values["ID"] and values["ID"].startswith("node_")
environ["TRAINING_PLAN_APPROVAL"] = False
assert environ["TRAINING_PLAN_APPROVAL"] is False
print(json.dumps(sorted(values)))
"""
    assert set(json.loads(in_new_process(code, tmp_path))) == NODE
    assert [path.name for path in tmp_path.iterdir()] == ["fbm-node"]


def test_the_working_directory_is_the_default(tmp_path: Path) -> None:
    code = "from fedbiomed.researcher.environ import environ; print(environ['ROOT_DIR'])"
    assert in_new_process(code, tmp_path) == str(tmp_path / "fbm-researcher")
