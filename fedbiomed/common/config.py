"""Settings of a component: read once, checked, then handed down. All defaults stand here.

A component's folder holds `etc/config.toml`, `var/` and `log/`. Environment variables win over the file. Where a folder has an INI file of
earlier releases instead, or the variable `CONFIG_FILE` names one, that is read (see `config_ini`).
"""

import dataclasses
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tomli_w

from fedbiomed.common.config_ini import INI_FILES, parse_bool, read_ini
from fedbiomed.common.constants import ID_PATTERN, ComponentType, HashingAlgorithms
from fedbiomed.common.exceptions import FedbiomedConfigError
from fedbiomed.common.files import write_whole

CONFIG_FILE = Path("etc") / "config.toml"
FILE_VARIABLE = "CONFIG_FILE"
_LEAST_IN_SUM = 2
GPU_SETTING = re.compile(r"auto|none|\d{1,3}")
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
        request_timeout_s: how long one HTTP answer may take.

    Raises:
        FedbiomedConfigError: a setting is out of its range.
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
        if not self.broker.strip():
            raise FedbiomedConfigError("broker is empty; it is the host of the MQTT broker, localhost for instance")
        if not _is_base_url(self.repository):
            raise FedbiomedConfigError(f"repository = {self.repository!r:.120} must be a URL like http://localhost:8844")
        for what in (field.name for field in dataclasses.fields(self) if field.name.endswith("_s")):
            _require_time(what, getattr(self, what))

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
    def identity(self) -> Path:
        """The component's key pair; its user's alone."""
        return self.etc / "identity.key"

    @property
    def label(self) -> str:
        """The name where there is one, else the id."""
        return self.name or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(ComponentConfig):
    """What a node is told at its start.

    Args:
        plan_approval: run only plans that the operator approved.
        allow_default_training_plans: where approval is on, count the plans that came with the release as approved.
        hashing_algorithm: of the plans' sources, a `HashingAlgorithms`.
        minimum_samples: refuse to train on fewer rows than this.
        worker_memory_mb: what the training process may allocate; 0: three quarters of the machine's memory.
        worker_time_limit_s: how long one order may train.
        gpu: `auto` uses one where the researcher asks and one is there, `none` never, a number is that device.
        gpu_only: use a GPU, if one is there, also where the researcher does not ask.
        secure_aggregation, force_secure_aggregation: whether the node can, and whether it trains only with it.
        minimum_nodes_in_sum: with secure aggregation, how many nodes must be in a sum that this node helps to open; 2 or more.
        allow_two_node_sums: agree to secure aggregation between two nodes only, where each learns the other's update from the sum.
        forward_logs: send the node's log records, without data or paths, to researchers who have open orders.

    Raises:
        FedbiomedConfigError: a setting is out of its range, or two of them do not go together.
    """

    plan_approval: bool = True
    allow_default_training_plans: bool = True
    hashing_algorithm: str = HashingAlgorithms.SHA256.value
    minimum_samples: int = 0
    worker_memory_mb: int = 0
    worker_time_limit_s: float = 3600.0
    gpu: str = "auto"
    gpu_only: bool = False
    secure_aggregation: bool = True
    force_secure_aggregation: bool = False
    minimum_nodes_in_sum: int = 2
    allow_two_node_sums: bool = False
    forward_logs: bool = True

    def __post_init__(self) -> None:
        super(NodeConfig, self).__post_init__()  # spelled out: a dataclass with slots is a new class, which a bare super() does not know
        if self.hashing_algorithm not in tuple(HashingAlgorithms):
            raise FedbiomedConfigError(
                f"hashing_algorithm = {self.hashing_algorithm!r:.40} is none of {', '.join(HashingAlgorithms)}; choose one of them"
            )
        if self.minimum_nodes_in_sum < _LEAST_IN_SUM:
            raise FedbiomedConfigError(f"minimum_nodes_in_sum = {self.minimum_nodes_in_sum} must be {_LEAST_IN_SUM} or more")
        if self.force_secure_aggregation and not self.secure_aggregation:
            raise FedbiomedConfigError("force_secure_aggregation goes with secure_aggregation = true: the node could train nothing")
        if not GPU_SETTING.fullmatch(self.gpu):
            raise FedbiomedConfigError(f"gpu = {self.gpu!r:.40} is auto, none or the number of a device")
        for what in ("minimum_samples", "worker_memory_mb"):
            if getattr(self, what) < 0:
                raise FedbiomedConfigError(f"{what} = {getattr(self, what)} must be 0 or more")
        if self.gpu_only and self.gpu == "none":
            raise FedbiomedConfigError("gpu_only goes with gpu = 'auto' or the number of a device, not with 'none'")

    @property
    def database(self) -> Path:
        """The node's sqlite file."""
        return self.var / "node.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResearcherConfig(ComponentConfig):
    """What a researcher's process is told.

    Args:
        answer_timeout_s: how long nodes may take to answer a question (ping, list, search, plan status).
        round_timeout_s: deadline of a round, whatever the nodes report.
        idle_timeout_s: a node of which nothing was heard for so long is left out of the round.
        offline_grace_s: a node whose line was cut is left out after so long, unless it comes back.
        experiments_dir, tensorboard_dir: where experiments and TensorBoard's files go; relative to the component's folder, or absolute.
    """

    answer_timeout_s: float = 5.0
    round_timeout_s: float = 3600.0
    idle_timeout_s: float = 90.0
    offline_grace_s: float = 30.0
    experiments_dir: str = "var/experiments"
    tensorboard_dir: str = "runs"

    @property
    def experiments(self) -> Path:
        """Folder of the experiments' folders."""
        return self.root / self.experiments_dir

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's files."""
        return self.root / self.tensorboard_dir

    @property
    def tmp(self) -> Path:
        """Folder of files that go with the process."""
        return self.var / "tmp"


_ENV = {
    "MQTT_BROKER": "broker",
    "MQTT_BROKER_PORT": "broker_port",
    "UPLOADS_URL": "repository",
    "FBM_FEDERATION": "federation",
    "FBM_REQUEST_TIMEOUT_S": "request_timeout_s",
}
_ENV_OF = {
    NodeConfig: {
        **_ENV,
        "NODE_ID": "id",
        "ENABLE_TRAINING_PLAN_APPROVAL": "plan_approval",
        "ALLOW_DEFAULT_TRAINING_PLANS": "allow_default_training_plans",
        "SECURE_AGGREGATION": "secure_aggregation",
        "FORCE_SECURE_AGGREGATION": "force_secure_aggregation",
    },
    ResearcherConfig: {
        **_ENV,
        "RESEARCHER_ID": "id",
        "FBM_ANSWER_TIMEOUT_S": "answer_timeout_s",
        "FBM_EXPERIMENTS_DIR": "experiments_dir",
        "FBM_TENSORBOARD_DIR": "tensorboard_dir",
    },
}
VARIABLES = frozenset({*_ENV_OF[NodeConfig], *_ENV_OF[ResearcherConfig], "UPLOADS_IP", FILE_VARIABLE})
_COMPONENT_OF = {NodeConfig: ComponentType.NODE, ResearcherConfig: ComponentType.RESEARCHER}
_USUAL_FILES = frozenset({CONFIG_FILE.name, *INI_FILES.values()})


def exists(root: Path) -> bool:
    """Whether a component was created in this folder, by this release or an earlier one."""
    return any((root / CONFIG_FILE.parent / name).is_file() for name in _USUAL_FILES)


def load(config_type: type[Config], root: Path, env: Mapping[str, str] = os.environ) -> Config:
    """Read the settings of the component in a folder; creates nothing.

    Args:
        config_type: `NodeConfig` or `ResearcherConfig`.
        root: the component's folder.
        env: `MQTT_BROKER`, `MQTT_BROKER_PORT`, `UPLOADS_URL` or `UPLOADS_IP`, `FBM_FEDERATION`, `FBM_REQUEST_TIMEOUT_S`, of a node
            `NODE_ID`, `ENABLE_TRAINING_PLAN_APPROVAL`, `ALLOW_DEFAULT_TRAINING_PLANS`, `SECURE_AGGREGATION` and
            `FORCE_SECURE_AGGREGATION`, of a researcher `RESEARCHER_ID`, `FBM_EXPERIMENTS_DIR` and `FBM_TENSORBOARD_DIR` win over the
            file; `CONFIG_FILE` names the file: absolute, or in the folder's `etc`.

    Raises:
        FedbiomedConfigError: no component there, or a setting is unknown or wrong: which one, what was found, what is allowed.
        FedbiomedEnvironError, FedbiomedVersionError: an INI file lacks a key, or is of another version.
    """
    path, folder = _place(config_type, root, env)
    if not path.is_file():
        named = "; the variable CONFIG_FILE names it" if env.get(FILE_VARIABLE) else ""
        raise FedbiomedConfigError(f"no component in {root}: {path} does not exist{named}; create it first")
    if path.suffix == ".ini":
        return build(config_type, folder, read_ini(path, _COMPONENT_OF[config_type], _given(config_type, env)), env)
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FedbiomedConfigError(f"cannot read {path}: {error}") from error
    return build(config_type, folder, settings, env)


def _place(config_type: type[ComponentConfig], root: Path, env: Mapping[str, str]) -> tuple[Path, Path]:
    """The file of settings, and the component's folder.

    Earlier releases kept several components in one folder, told apart by their files. One that is not called as usual gets a folder of
    its own, named like its file, for what it keeps.
    """
    named = env.get(FILE_VARIABLE)
    if named:
        path = root / CONFIG_FILE.parent / named
        home = path.parent.parent if path.parent.name == CONFIG_FILE.parent.name else root
        return path, home if path.name in _USUAL_FILES else home / path.stem
    ini = root / CONFIG_FILE.parent / INI_FILES[_COMPONENT_OF[config_type]]
    return (ini if ini.is_file() and not (root / CONFIG_FILE).is_file() else root / CONFIG_FILE), root


def _given(config_type: type[ComponentConfig], env: Mapping[str, str]) -> frozenset[str]:
    """The settings that the environment gives."""
    found = {setting for variable, setting in _ENV_OF[config_type].items() if env.get(variable)}
    return frozenset(found | ({"repository"} if env.get("UPLOADS_IP") else set()))


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
    """Write a component's settings to its folder, making `etc`, and `var` and `log` for its user's eyes only."""
    config.etc.mkdir(parents=True, exist_ok=True)
    for folder in (config.var, config.log):
        folder.mkdir(mode=0o700, exist_ok=True)
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "root"}
    write_whole(config.root / CONFIG_FILE, tomli_w.dumps(settings).encode(), sync=True)


def broker_address(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`, the port being 1883 when left out; an address of IPv6 stands in brackets, `[::1]:1883`.

    Raises:
        FedbiomedConfigError: not of this form.
    """
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "1883")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not host or (":" in host and not is_bracketed) or not port.isdecimal() or not 0 < int(port) < 65536:
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
            return parse_bool(text)
        return kind(text)
    except ValueError as error:
        raise FedbiomedConfigError(f"environment variable {variable} must be {_spell(kind)}, not {text!r:.80}") from error


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no address, or no port
        return False


def _require_time(what: str, seconds: float) -> None:
    """A grace may be none at all, a wait may not."""
    is_time = 0 < seconds < math.inf or (seconds == 0 and "grace" in what)
    if not is_time:
        raise FedbiomedConfigError(f"{what} = {seconds} must be a number of seconds above 0")


def _spell(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)
