"""Settings of a component: read once, checked, then handed down. All defaults stand here.

A component's folder holds `etc/config.toml`, `var/` and `log/`. Environment variables win over the file.
"""

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tomli_w

from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.exceptions import FedbiomedConfigError
from fedbiomed.common.files import write_whole

CONFIG_FILE = Path("etc") / "config.toml"
Config = TypeVar("Config", bound="ComponentConfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentConfig:
    """What every component that connects to a network is told.

    Args:
        root: the component's folder; relative paths of the process never matter.
        id: stable name in the federation, also the MQTT client id.
        name: what users call it.
        federation: components of different federations do not see each other on one broker.
        broker, broker_port: where the MQTT broker listens.
        repository: base URL of the HTTP repository.
        connect_timeout_s: how long the first connection may take.
        request_timeout_s: how long a question (ping, list, search, plan status) or one HTTP answer may take.
    """

    root: Path
    id: str
    name: str = ""
    federation: str = "default"
    broker: str = "localhost"
    broker_port: int = 1883
    repository: str = "http://localhost:8844"
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for what, value in (("id", self.id), ("federation", self.federation)):
            if not ID_PATTERN.fullmatch(value):
                raise FedbiomedConfigError(f"{what} = {value!r:.80} may hold letters, digits, '_', '.' and '-' only")
        if not 0 < self.broker_port < 65536:
            raise FedbiomedConfigError(f"broker_port = {self.broker_port} must lie between 1 and 65535")
        parts = urlsplit(self.repository)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FedbiomedConfigError(f"repository = {self.repository!r:.120} must be a URL like http://localhost:8844")

    @property
    def etc(self) -> Path:
        """Folder of settings."""
        return self.root / "etc"

    @property
    def var(self) -> Path:
        """Folder of what the component keeps."""
        return self.root / "var"

    @property
    def log(self) -> Path:
        """Folder of logs."""
        return self.root / "log"

    @property
    def label(self) -> str:
        """The name where there is one, else the id."""
        return self.name or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(ComponentConfig):
    """What a node is told at its start.

    Args:
        plan_approval: run only plans that the operator approved.
        minimum_samples: refuse to train on fewer rows than this.
        worker_memory_mb: what the training process may allocate; 0: three quarters of the machine's memory.
        worker_time_limit_s: how long one order may train.
        gpu: `auto` uses one where the researcher asks and one is there, `none` never, a number is that device.
        secure_aggregation, force_secure_aggregation: whether the node can, and whether it trains only with it.
        forward_logs: send the node's log records, without data or paths, to researchers who have open orders.
    """

    plan_approval: bool = True
    minimum_samples: int = 0
    worker_memory_mb: int = 0
    worker_time_limit_s: float = 3600.0
    gpu: str = "auto"
    secure_aggregation: bool = True
    force_secure_aggregation: bool = False
    forward_logs: bool = True

    @property
    def database(self) -> Path:
        """The node's sqlite file."""
        return self.var / "node.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResearcherConfig(ComponentConfig):
    """What a researcher's process is told.

    Args:
        round_timeout_s: deadline of a round, whatever the nodes report.
        idle_timeout_s: a node of which nothing was heard for so long is left out of the round.
        offline_grace_s: a node whose line was cut is left out after so long, unless it comes back.
    """

    round_timeout_s: float = 3600.0
    idle_timeout_s: float = 90.0
    offline_grace_s: float = 30.0

    @property
    def experiments(self) -> Path:
        """Folder of the experiments' folders."""
        return self.var / "experiments"

    @property
    def tmp(self) -> Path:
        """Folder of files that go with the process."""
        return self.var / "tmp"


_ENV = {
    "MQTT_BROKER": "broker",
    "MQTT_BROKER_PORT": "broker_port",
    "UPLOADS_URL": "repository",
    "FBM_FEDERATION": "federation",
}
_ENV_OF = {
    NodeConfig: {**_ENV, "NODE_ID": "id", "ENABLE_TRAINING_PLAN_APPROVAL": "plan_approval"},
    ResearcherConfig: {**_ENV, "RESEARCHER_ID": "id"},
}


def exists(root: Path) -> bool:
    """Whether a component was created in this folder."""
    return (root / CONFIG_FILE).is_file()


def load(config_type: type[Config], root: Path, env: Mapping[str, str] = os.environ) -> Config:
    """Read the settings of the component in a folder; creates nothing.

    Args:
        config_type: `NodeConfig` or `ResearcherConfig`.
        root: the component's folder.
        env: `MQTT_BROKER`, `MQTT_BROKER_PORT`, `UPLOADS_URL` or `UPLOADS_IP`, `FBM_FEDERATION`, `NODE_ID` or `RESEARCHER_ID`, and
            `ENABLE_TRAINING_PLAN_APPROVAL` win over the file.

    Raises:
        FedbiomedConfigError: no component there, or a setting is unknown or wrong: which one, what was found, what is allowed.
    """
    path = root / CONFIG_FILE
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FedbiomedConfigError(f"no component in {root}: {path} does not exist; create it first") from error
    except (OSError, ValueError) as error:
        raise FedbiomedConfigError(f"cannot read {path}: {error}") from error
    return build(config_type, root, settings, env)


def build(config_type: type[Config], root: Path, settings: Mapping[str, Any], env: Mapping[str, str]) -> Config:
    """Make a configuration from settings and environment, checking every key and type; see `load`."""
    hints = {name: hint for name, hint in typing.get_type_hints(config_type).items() if name != "root"}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in hints:
            raise FedbiomedConfigError(f"unknown setting {key!r:.80} in {root / CONFIG_FILE}; known are {', '.join(sorted(hints))}")
        values[key] = _checked(key, value, hints[key])
    for variable, key in _ENV_OF[config_type].items():
        if env.get(variable):
            values[key] = _parsed(variable, env[variable], hints[key])
    if env.get("UPLOADS_IP") and not env.get("UPLOADS_URL"):
        values["repository"] = f"http://{env['UPLOADS_IP']}:8844"
    if "repository" in values:
        values["repository"] = values["repository"].rstrip("/").removesuffix("/upload")
    if "id" not in values:
        raise FedbiomedConfigError(f"setting 'id' is missing in {root / CONFIG_FILE}")
    return config_type(root=root.absolute(), **values)


def save(config: ComponentConfig) -> None:
    """Write a component's settings to its folder, making `etc`, `var` and `log`."""
    for folder in (config.etc, config.var, config.log):
        folder.mkdir(parents=True, exist_ok=True)
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "root"}
    write_whole(config.root / CONFIG_FILE, tomli_w.dumps(settings).encode(), sync=True)


def broker_address(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`, the port being 1883 when left out.

    Raises:
        FedbiomedConfigError: not of this form.
    """
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "1883")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise FedbiomedConfigError(f"a broker is given as HOST:PORT, localhost:1883 for instance, not {text!r:.80}")
    return host, int(port)


def _checked(key: str, value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise FedbiomedConfigError(f"setting {key} must be {_spell(kind)}, not {value!r:.80}")
    return value


def _parsed(variable: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return text.strip().lower() in ("true", "1", "t")
        return kind(text)
    except ValueError as error:
        raise FedbiomedConfigError(f"environment variable {variable} must be {_spell(kind)}, not {text!r:.80}") from error


def _spell(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)
