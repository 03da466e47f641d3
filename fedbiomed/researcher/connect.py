"""A researcher's process put together: its settings, its line to the broker and its access to the repository."""

import os
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbiomed.common import config as settings
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.security.identity import made_identity
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.common.transport.transport import FileStore, MessageBus

FOLDER_VARIABLE = "FBM_RESEARCHER_DIR"
DEFAULT_FOLDER = "fbm-researcher"
TENSORBOARD_VARIABLE = "FBM_TENSORBOARD_DIR"
_FLUSH_S = 2.0


@dataclass(frozen=True, slots=True)
class Connection:
    """What a researcher needs to talk to nodes; closed by whoever made it."""

    config: ResearcherConfig
    bus: MessageBus
    files: FileStore
    before_close: list[Callable[[], None]] = field(default_factory=list, compare=False)

    def close(self) -> None:
        """Send what is still queued (at most 2 s), then disconnect; a second call does nothing."""
        while self.before_close:
            self.before_close.pop()()
        if self.bus.is_connected:
            self.bus.flush(_FLUSH_S)
        self.bus.close()
        self.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_config(root: Path | None = None, env: Mapping[str, str] = os.environ) -> ResearcherConfig:
    """Read the settings of the researcher in a folder; a folder that has none becomes a new researcher's, with a key pair of its own.

    Args:
        root: the researcher's folder; None: what `FBM_RESEARCHER_DIR` names, else `fbm-researcher` in the working directory.
        env: variables that win over the file or name it, see `config.load`.

    Raises:
        FedbiomedConfigError: a setting is unknown or wrong.
        FedbiomedCertificateError: the researcher's key cannot be read or made.
    """
    folder = (root or Path(env.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)).absolute()
    if not settings.exists(folder) and not env.get(settings.FILE_VARIABLE):
        settings.save(ResearcherConfig(root=folder, id=f"researcher_{uuid.uuid4()}"))
    loaded = settings.load(ResearcherConfig, folder, env)
    made_identity(loaded.identity)
    return loaded


def tensorboard_folder(config: ResearcherConfig, env: Mapping[str, str] = os.environ) -> Path:
    """Where an experiment begun now writes for TensorBoard: what `FBM_TENSORBOARD_DIR` names, else as configured."""
    return config.root / (env.get(TENSORBOARD_VARIABLE) or config.tensorboard_dir)


def connect(config: ResearcherConfig) -> Connection:
    """Connect to the broker and name the repository.

    The broker keeps nothing for a researcher that is away: several processes may share one id, and a result that was missed is asked
    for again.

    Raises:
        FedbiomedMessagingError: no broker there, or it refused us.
    """
    bus = MqttBus(f"{config.id}.{secrets.token_hex(4)}", config.broker, config.broker_port, persistent=False, username=config.id)
    try:
        bus.connect(config.connect_timeout_s)
    except BaseException:
        bus.close()
        raise
    return Connection(config, bus, HttpFileStore(config.repository, config.id, timeout_s=config.request_timeout_s))
