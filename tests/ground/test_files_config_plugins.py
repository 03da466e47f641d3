"""Files written whole, settings read once, family members found by name, and the logger."""

import dataclasses
import io
import logging
import os
from pathlib import Path

import pytest

from fedbiomed.common import config, files, plugins
from fedbiomed.common import messages as family
from fedbiomed.common.config import NodeConfig, ResearcherConfig
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedLoggerError, FedbiomedPluginError
from fedbiomed.common.logger import FedLogger
from fedbiomed.common.messages.message import Message
from fedbiomed.common.messages.presence import Presence


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_whole(path, b"one", sync=True)
    with pytest.raises(TypeError), files.written_whole(path) as file:
        file.writelines([b"half of tw", "o"])  # type: ignore[list-item]  # a str among bytes: fails after the first half
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_shares_the_file_and_never_overwrites(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    files.link_or_copy(source, target)
    assert target.stat().st_ino == source.stat().st_ino
    with pytest.raises(FileExistsError):
        files.link_or_copy(source, target)


def test_a_copy_stands_in_for_a_link_across_disks(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to copy to")
    source, target = tmp_path / "a", other / f"fbm-test-{os.getpid()}"
    source.write_bytes(b"x" * 3_000_000)
    try:
        files.link_or_copy(source, target)
        assert files.sha256_of_file(target) == files.sha256_of_file(source)
    finally:
        target.unlink()


def test_settings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = NodeConfig(root=tmp_path / "n", id="node_1", broker_port=1884, plan_approval=False, gpu="none")
    config.save(saved)
    assert config.load(NodeConfig, tmp_path / "n", {}) == saved
    assert config.exists(tmp_path / "n")
    assert not config.exists(tmp_path)
    assert saved.label == "node_1"
    assert dataclasses.replace(saved, name="a").label == "a"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config.save(NodeConfig(root=tmp_path, id="node_1"))
    env = {
        "MQTT_BROKER": "10.0.0.1",
        "MQTT_BROKER_PORT": "1999",
        "UPLOADS_URL": "http://files:8844/upload/",
        "ENABLE_TRAINING_PLAN_APPROVAL": "False",
    }
    loaded = config.load(NodeConfig, tmp_path, env)
    assert (loaded.broker, loaded.broker_port, loaded.repository, loaded.plan_approval) == ("10.0.0.1", 1999, "http://files:8844", False)
    assert config.load(NodeConfig, tmp_path, {"UPLOADS_IP": "files"}).repository == "http://files:8844"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("id = 'a'\ncolour = 1", "unknown setting 'colour'"),
        ("id = 'a'\nbroker_port = '1883'", "broker_port must be int"),
        ("id = 'a'\nbroker_port = 0", "between 1 and 65535"),
        ("id = 'a/b'", "may hold letters"),
        ("id = 'a'\nrepository = 'files'", "must be a URL"),
        ("id = 'a'\nrepository = 'http://[x'", "must be a URL"),
        ("id = 'a'\nrepository = 'http://x:99999'", "must be a URL"),
        ("id = 'a'\nbroker = ' '", "broker is empty"),
        ("id = 'a'\nconnect_timeout_s = nan", "above 0"),
        ("id = 'a'\nrequest_timeout_s = -1", "above 0"),
        ("", "'id' is missing"),
        ("id = ", "cannot read"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / config.CONFIG_FILE
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FedbiomedConfigError, match=part):
        config.load(ResearcherConfig, tmp_path, {})


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("gpu = 'banana'", "auto, none or the number"),
        ("minimum_samples = -1", "0 or more"),
        ("worker_memory_mb = -1", "0 or more"),
        ("worker_time_limit_s = inf", "above 0"),
    ],
)
def test_a_bad_setting_of_a_node_is_named(tmp_path: Path, setting: str, part: str) -> None:
    path = tmp_path / config.CONFIG_FILE
    path.parent.mkdir()
    path.write_text(f"id = 'a'\n{setting}", encoding="utf-8")
    with pytest.raises(FedbiomedConfigError, match=part):
        config.load(NodeConfig, tmp_path, {})


def test_a_folder_without_component_is_named(tmp_path: Path) -> None:
    with pytest.raises(FedbiomedConfigError, match="no component in"):
        config.load(ResearcherConfig, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_bad_environment_variable_is_named(tmp_path: Path) -> None:
    config.save(NodeConfig(root=tmp_path, id="node_1"))
    with pytest.raises(FedbiomedConfigError, match="MQTT_BROKER_PORT must be int"):
        config.load(NodeConfig, tmp_path, {"MQTT_BROKER_PORT": "many"})


@pytest.mark.parametrize("text", ["", ":1883", "host:", "host:x", "host:70000", "::1", "[]:1"])
def test_a_broker_address_is_checked(text: str) -> None:
    with pytest.raises(FedbiomedConfigError, match="HOST:PORT"):
        config.broker_address(text)


def test_a_broker_address_may_leave_out_the_port() -> None:
    assert config.broker_address("host") == ("host", 1883)
    assert config.broker_address("host:99") == ("host", 99)
    assert config.broker_address("[::1]:99") == ("::1", 99)


def test_members_are_found_by_file_name() -> None:
    assert "presence" in plugins.member_names(family)
    assert plugins.load_class(family, "fedbiomed.common.messages.presence", "Presence", Message) is Presence


@pytest.mark.parametrize("name", ["nothing", "../config", "os", "presence.Presence", "", "__init__"])
def test_a_name_that_is_no_file_is_refused(name: str) -> None:
    with pytest.raises(FedbiomedPluginError, match="has no"):
        plugins.load_member(family, name)


def test_a_class_of_another_kind_is_refused() -> None:
    with pytest.raises(FedbiomedPluginError, match="no Message called 'dataclass'"):
        plugins.load_class(family, "presence", "dataclass", Message)


def test_the_logger_adds_levels_and_handlers(tmp_path: Path) -> None:
    logger = FedLogger()
    stream = io.StringIO()
    logger._internalAddHandler("CONSOLE", logging.StreamHandler(stream))
    logger.addFileHandler(str(tmp_path / "a.log"), level="info")
    try:
        logger.setLevel("debug")
        logger.setLevel("ERROR", "CONSOLE")
        logger.addConsoleHandler()
        logger.log("warning", "to the file")
        logger.error("to both")
        with pytest.raises(FedbiomedLoggerError, match="log level"):
            logger.setLevel("loud")
    finally:
        logger._internalAddHandler("CONSOLE", None)
        logger._internalAddHandler("FILE", None)
        logger.setLevel(logging.NOTSET)
    assert stream.getvalue() == "to both\n"
    assert "to the file" in (tmp_path / "a.log").read_text(encoding="utf-8")
