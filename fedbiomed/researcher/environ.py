"""`environ`: the researcher's settings under the names that notebooks know. A read-only view; nothing of ours reads it.

Nothing happens at import: the settings are read, and the folders made, when a key is first asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.config import CONFIG_FILE, ResearcherConfig
from fedbiomed.common.constants import ComponentType
from fedbiomed.common.exceptions import FedbiomedEnvironError
from fedbiomed.researcher.connect import open_config, tensorboard_folder

_KEYS: Mapping[str, Callable[[ResearcherConfig], Any]] = {
    "COMPONENT_TYPE": lambda config: ComponentType.RESEARCHER,
    "ROOT_DIR": lambda config: str(config.root),
    "CONFIG_DIR": lambda config: str(config.etc),
    "CONFIG_FILE": lambda config: str(config.root / CONFIG_FILE),
    "VAR_DIR": lambda config: str(config.var),
    "CACHE_DIR": lambda config: str(config.var / "cache"),
    "TMP_DIR": lambda config: str(config.tmp),
    "EXPERIMENTS_DIR": lambda config: str(config.experiments),
    "TENSORBOARD_RESULTS_DIR": lambda config: str(tensorboard_folder(config)),
    "ID": lambda config: config.id,
    "RESEARCHER_ID": lambda config: config.id,
    "MQTT_BROKER": lambda config: config.broker,
    "MQTT_BROKER_PORT": lambda config: config.broker_port,
    "UPLOADS_URL": lambda config: config.repository,
    "TIMEOUT": lambda config: config.request_timeout_s,
}
_FOLDERS = ("CONFIG_DIR", "VAR_DIR", "CACHE_DIR", "TMP_DIR", "EXPERIMENTS_DIR", "TENSORBOARD_RESULTS_DIR")


class Environ(Mapping[str, Any]):
    """`environ["TMP_DIR"]` and so on; the folders that it names exist."""

    def __init__(self, config: Callable[[], ResearcherConfig] = open_config) -> None:
        self._open = config
        self._config: ResearcherConfig | None = None

    def __getitem__(self, key: str) -> Any:
        if key not in _KEYS:
            raise FedbiomedEnvironError(f"environ has no {key!r:.80}; it has {', '.join(_KEYS)}")
        return _KEYS[key](self._settings())

    def __setitem__(self, key: str, value: object) -> None:
        raise FedbiomedEnvironError(
            f"environ[{key!r:.80}] cannot be set: change the researcher's {CONFIG_FILE}, or set a variable of the process before"
        )

    def __contains__(self, key: object) -> bool:
        return key in _KEYS

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def _settings(self) -> ResearcherConfig:
        if self._config is None:
            config = self._open()
            for name in _FOLDERS:
                _made(_KEYS[name](config))
            self._config = config
        return self._config


def _made(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedbiomedEnvironError(f"cannot make the folder {folder}: {error.strerror}") from error


environ = Environ()
