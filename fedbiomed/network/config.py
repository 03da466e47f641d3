"""Settings of a network process: where it listens and what the repository allows."""

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fedbiomed.common.config import CONFIG_FILE
from fedbiomed.common.exceptions import FedbiomedConfigError
from fedbiomed.common.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What a network process is told at its start.

    Args:
        root: its folder: settings, and in `var` the files and their catalogue.
        host: where to listen; only this machine's loopback in development mode.
        mqtt_port, http_port: 0 for a free one.
        share_disk: hand files over on the disk to components of this machine that see the same disk, instead of sending them.
        storage: where files lie: a name in `fedbiomed.network.storage`.
        max_file_bytes: largest file.
        quota_bytes: all files of one experiment together.
        min_free_bytes: room to leave on the disk.
        max_age_s: files go when nobody has read them for so long (counted in hours).
        token_age_s: how long a component's token is good.
    """

    root: Path
    host: str = "127.0.0.1"
    mqtt_port: int = 1883
    http_port: int = 8844
    share_disk: bool = True
    storage: str = "disk"
    max_file_bytes: int = 16 << 30
    quota_bytes: int = 256 << 30
    min_free_bytes: int = 1 << 30
    max_age_s: float = 30 * 86400.0
    token_age_s: float = 86400.0

    def __post_init__(self) -> None:
        for name in ("mqtt_port", "http_port"):
            if not 0 <= getattr(self, name) < 65536:
                raise FedbiomedConfigError(f"{name} = {getattr(self, name)} must lie between 0 (a free one) and 65535")
        for name in ("max_file_bytes", "quota_bytes", "max_age_s", "token_age_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise FedbiomedConfigError(f"{name} = {getattr(self, name)} must be above 0")
        if self.min_free_bytes < 0:
            raise FedbiomedConfigError(f"min_free_bytes = {self.min_free_bytes} must be 0 or more")

    @property
    def var(self) -> Path:
        """Folder of what the repository keeps."""
        return self.root / "var"


def load_network(root: Path, **chosen: Any) -> NetworkConfig:
    """Read the settings in a folder, if there are any; what was chosen on the command line wins.

    Raises:
        FedbiomedConfigError: a setting is unknown or wrong.
    """
    path = root / CONFIG_FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise FedbiomedConfigError(f"cannot read {path}: {error}") from error
    defaults = {field.name: field.default for field in dataclasses.fields(NetworkConfig) if field.name != "root"}
    for key, value in found.items():
        if key not in defaults:
            raise FedbiomedConfigError(f"unknown setting {key!r:.80} in {path}; known are {', '.join(sorted(defaults))}")
        wanted = (int, float) if isinstance(defaults[key], float) else (type(defaults[key]),)
        if type(value) not in wanted:
            raise FedbiomedConfigError(f"setting {key} in {path} must be {wanted[-1].__name__}, not {value!r:.80}")
    return NetworkConfig(root=root.absolute(), **{**found, **{key: value for key, value in chosen.items() if value is not None}})


def save_network(config: NetworkConfig) -> None:
    """Write the settings to the folder, for an administrator to change."""
    (config.root / CONFIG_FILE).parent.mkdir(parents=True, exist_ok=True)
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "root"}
    write_whole(config.root / CONFIG_FILE, tomli_w.dumps(settings).encode())
