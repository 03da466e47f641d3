"""INI files of earlier releases: each key where it belongs, what is left out said once, and gaps named."""

import logging
from pathlib import Path

import pytest

from fedbiomed.common import config
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedEnvironError, FedbiomedVersionError
from fedbiomed.researcher.connect import open_config

NODE = """[default]
id = node_of_old
component = NODE
uploads_url = http://files.example.org:8844/upload/
version = 1

[mqtt]
broker_ip = mq.example.org
port = 1884
keep_alive = 60

[mpspdz]
private_key = certs/cert_node_of_old/MPSPDZ_certificate.key
mpspdz_port = 14001

[security]
hashing_algorithm = SHA3_256
allow_default_training_plans = 0
training_plan_approval = T
secure_aggregation = true
force_secure_aggregation = False
"""
RESEARCHER = NODE.partition("[security]")[0].replace("NODE", "RESEARCHER").replace("node_of_old", "researcher_of_old")


def written(root: Path, text: str, name: str) -> Path:
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc" / name).write_text(text, encoding="utf-8")
    return root / "etc" / name


@pytest.fixture
def site(tmp_path: Path) -> Path:
    written(tmp_path, NODE, "config_node.ini")
    return tmp_path


def test_each_key_of_a_node_is_mapped(site: Path) -> None:
    assert config.exists(site)
    assert config.load(NodeConfig, site, {}) == NodeConfig(
        root=site,
        id="node_of_old",
        broker="mq.example.org",
        broker_port=1884,
        repository="http://files.example.org:8844",
        hashing_algorithm="SHA3_256",
        allow_default_training_plans=False,
        plan_approval=True,
        secure_aggregation=True,
        force_secure_aggregation=False,
    )
    assert [path.name for path in site.iterdir()] == ["etc"]


def test_a_researcher_s_file_is_read_by_notebooks_too(tmp_path: Path) -> None:
    written(tmp_path, RESEARCHER, "config_researcher.ini")
    found = open_config(tmp_path, env={})
    assert (found.id, found.broker, found.root) == ("researcher_of_old", "mq.example.org", tmp_path)
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["config_researcher.ini", "identity.key"]


def test_what_is_not_used_is_told_in_one_line(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(site, NODE + "colour = blue\n", "config_node.ini")
    with caplog.at_level(logging.WARNING):
        config.load(NodeConfig, site, {})
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "not used by this release: mqtt.keep_alive, mpspdz.private_key, mpspdz.mpspdz_port, security.colour"
    )


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *(("default", key) for key in ("id", "component", "uploads_url", "version")),
        *(("mqtt", key) for key in ("broker_ip", "port")),
        *(("security", key) for key in ("hashing_algorithm", "training_plan_approval", "secure_aggregation", "force_secure_aggregation")),
        ("security", "allow_default_training_plans"),
    ],
)
def test_a_missing_key_is_named(site: Path, section: str, key: str) -> None:
    lines = [line for line in NODE.splitlines(keepends=True) if not line.startswith(f"{key} ")]
    written(site, "".join(lines), "config_node.ini")
    with pytest.raises(FedbiomedEnvironError, match=rf"config_node.ini has no key '{key}' in section \[{section}\]"):
        config.load(NodeConfig, site, {})


def test_the_environment_wins_and_fills_gaps(site: Path) -> None:
    written(site, "[default]\ncomponent = NODE\nversion = 1\n", "config_node.ini")
    env = {
        "NODE_ID": "node_x",
        "MQTT_BROKER": "10.0.0.1",
        "MQTT_BROKER_PORT": "1999",
        "UPLOADS_IP": "10.0.0.2",
        "ALLOW_DEFAULT_TRAINING_PLANS": "T",
        "ENABLE_TRAINING_PLAN_APPROVAL": "1",
        "SECURE_AGGREGATION": "0",
        "FORCE_SECURE_AGGREGATION": "f",
    }
    with pytest.raises(FedbiomedEnvironError, match="'hashing_algorithm'"):
        config.load(NodeConfig, site, env)
    written(site, "[default]\ncomponent = NODE\nversion = 1\n[security]\nhashing_algorithm = BLAKE2B\n", "config_node.ini")
    found = config.load(NodeConfig, site, env)
    assert (found.id, found.broker, found.broker_port, found.repository) == ("node_x", "10.0.0.1", 1999, "http://10.0.0.2:8844")
    assert (found.allow_default_training_plans, found.plan_approval, found.secure_aggregation) == (True, True, False)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("port = 1884", "port = many", "mqtt.port in .* must be int, not 'many'"),
        ("approval = T", "approval = yes", "security.training_plan_approval in .* must be bool, not 'yes'"),
        ("SHA3_256", "MD5", "hashing_algorithm = 'MD5' is none of SHA256, SHA384"),
        ("component = NODE", "component = RESEARCHER", "is the file of a 'RESEARCHER', a NODE is asked for"),
        ("[mqtt]", "mqtt", "cannot read .*config_node.ini"),
    ],
)
def test_a_wrong_value_is_named(site: Path, old: str, new: str, part: str) -> None:
    written(site, NODE.replace(old, new), "config_node.ini")
    with pytest.raises(FedbiomedConfigError, match=part):
        config.load(NodeConfig, site, {})


def test_another_version_is_refused(site: Path) -> None:
    written(site, NODE.replace("version = 1", "version = 2"), "config_node.ini")
    with pytest.raises(FedbiomedVersionError, match="has version '2', this release reads 1"):
        config.load(NodeConfig, site, {})


def test_a_variable_names_the_file(site: Path) -> None:
    path = written(site, NODE.replace("node_of_old", "node_two"), "config_two.ini")
    by_name, by_path = (
        config.load(NodeConfig, where, {"CONFIG_FILE": str(name)}) for where, name in ((site, path.name), (Path("x"), path))
    )
    assert by_name == by_path
    assert (by_name.id, by_name.root) == ("node_two", site / "config_two")  # beside the other node's, not among its files
    assert config.load(NodeConfig, Path("x"), {"CONFIG_FILE": str(site / "etc" / "config_node.ini")}).root == site
    with pytest.raises(FedbiomedConfigError, match=r"config_three\.ini does not exist; the variable CONFIG_FILE names it"):
        config.load(NodeConfig, site, {"CONFIG_FILE": "config_three.ini"})
    with pytest.raises(FedbiomedConfigError, match="is the file of a 'NODE'"):
        open_config(site, env={"CONFIG_FILE": "config_two.ini"})


def test_our_own_file_goes_first(site: Path) -> None:
    config.save(NodeConfig(root=site, id="node_of_today"))
    assert config.load(NodeConfig, site, {}).id == "node_of_today"


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "t", "T"])
def test_words_for_true(site: Path, text: str) -> None:
    assert config.load(NodeConfig, site, {"FORCE_SECURE_AGGREGATION": text}).force_secure_aggregation is True


def test_a_doubtful_word_is_refused_in_the_environment_too(site: Path) -> None:
    with pytest.raises(FedbiomedConfigError, match="ENABLE_TRAINING_PLAN_APPROVAL must be bool, not 'yes'"):
        config.load(NodeConfig, site, {"ENABLE_TRAINING_PLAN_APPROVAL": "yes"})
