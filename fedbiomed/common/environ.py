"""`Environ`: a component's settings under the names that notebooks know; nothing of ours reads them there.

A component's settings are its configuration (`common/config.py`). The objects here are a view of it for users: `environ["TMP_DIR"]`.
What is assigned counts for this process: it goes into the variable from which settings are read, and so holds for every connection or
experiment made afterwards. A process is one component, so it has one such object, and `Environ()` gives it.

Nothing happens at import: settings are read, and folders made, when a key is first asked for.
"""

import os
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.config import CONFIG_FILE, ComponentConfig
from fedbiomed.common.constants import CONFIG_VERSION, ComponentType, ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedEnvironError

_in_process: list["Environ"] = []  # the one of this process; filled by the module of the side that is imported


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Args:
        read: its value by the component's configuration.
        is_folder: the value is a folder, which is made.
        variable: of the process, through which an assigned value reaches what is made afterwards; None: it changes this view only.
    """

    read: Callable[[Any], Any]
    is_folder: bool = False
    variable: str | None = None


class _OneInProcess(ABCMeta):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return current(*args, **kwargs) if cls is Environ else super().__call__(*args, **kwargs)


class Environ(MutableMapping[str, Any], metaclass=_OneInProcess):
    """`environ["TMP_DIR"]` and so on; folders that it names exist when they are read. `Environ()` gives the one of this process.

    Args:
        component: which side it is.
        open_config: reads the component's configuration.
        keys: what there is.
        variables: of the process; where assigned values go.

    Raises:
        FedbiomedEnvironError: an unknown key; a value that cannot be assigned; `Environ()` before a side's `environ` was imported.
    """

    def __init__(
        self,
        component: ComponentType,
        open_config: Callable[[], ComponentConfig],
        keys: Mapping[str, Key],
        variables: MutableMapping[str, str] = os.environ,
    ) -> None:
        self.component = component
        self._open, self._keys, self._variables = open_config, keys, variables
        self._config: ComponentConfig | None = None
        self._assigned: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        found = self._known(key)
        value = found.read(self._settings()) if key not in self._assigned else self._assigned[key]
        if found.is_folder:
            _make(value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        found = self._known(key)
        checked = _checked(key, value, found.read(self._settings()))
        if found.variable is None:
            self._assigned[key] = checked
            return
        before = self._variables.get(found.variable)
        self._variables[found.variable] = str(checked)
        try:
            self._config = self._open()
        except FedbiomedConfigError as error:
            if before is None:
                del self._variables[found.variable]
            else:
                self._variables[found.variable] = before
            raise FedbiomedEnvironError(_text(f"environ[{key!r}] = {value!r:.120} is not allowed: {error}")) from error

    def __delitem__(self, key: str) -> None:
        raise FedbiomedEnvironError(_text(f"environ[{key!r:.80}] cannot be removed; assign another value"))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._keys)})"

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def _known(self, key: str) -> Key:
        if key not in self._keys:
            raise FedbiomedEnvironError(_text(f"environ has no {key!r:.80}; it has {', '.join(self._keys)}"))
        return self._keys[key]

    def _settings(self) -> ComponentConfig:
        if self._config is None:
            if self in _in_process[1:]:
                raise FedbiomedEnvironError(_text(f"this process is a {_in_process[0].component.lower()} already; use one of its own"))
            config = self._open()
            for key in self._keys.values():
                if key.is_folder:
                    _make(key.read(config))
            self._config = config
        return self._config


def current() -> Environ:
    """The environ of this process.

    Raises:
        FedbiomedEnvironError: no side's was imported yet.
    """
    if not _in_process:
        raise FedbiomedEnvironError(_text("this process is no component yet; import environ from fedbiomed.researcher.environ first"))
    return _in_process[0]


def claim(made: Environ) -> Environ:
    """Make an object the one of this process; where there is one already that one stays, and this one refuses to be used."""
    _in_process.append(made)
    return made


def component_in_process() -> ComponentType | None:
    """Which side this process is on, None as long as no side's `environ` was imported."""
    return _in_process[0].component if _in_process else None


def shared_keys(component: ComponentType, id_variable: str, root_variable: str) -> dict[str, Key]:
    """The keys that both sides have."""
    return {
        "COMPONENT_TYPE": Key(lambda config: component),
        "ROOT_DIR": Key(lambda config: str(config.root), variable=root_variable),
        "CONFIG_DIR": Key(lambda config: str(config.etc), is_folder=True),
        "CONFIG_FILE": Key(lambda config: str(config.root / CONFIG_FILE)),
        "CONFIG_FILE_VERSION": Key(lambda config: CONFIG_VERSION),
        "VAR_DIR": Key(lambda config: str(config.var), is_folder=True),
        "CACHE_DIR": Key(lambda config: str(config.var / "cache"), is_folder=True),
        "TMP_DIR": Key(lambda config: str(config.var / "tmp"), is_folder=True),
        "CERT_DIR": Key(lambda config: str(config.etc / "certs"), is_folder=True),
        "MESSAGES_QUEUE_DIR": Key(lambda config: str(config.var / f"queue_messages_{config.id}")),
        "ID": Key(lambda config: config.id, variable=id_variable),
        "MQTT_BROKER": Key(lambda config: config.broker, variable="MQTT_BROKER"),
        "MQTT_BROKER_PORT": Key(lambda config: config.broker_port, variable="MQTT_BROKER_PORT"),
        "UPLOADS_URL": Key(lambda config: config.repository, variable="UPLOADS_URL"),
        **_former_keys(),
    }


def _former_keys() -> dict[str, Key]:
    """Settings of an external program for secure aggregation that is not used any more; scripts may still read them."""
    return {
        "MPSPDZ_IP": Key(lambda config: "localhost"),
        "MPSPDZ_PORT": Key(lambda config: 14000),
        "MPSPDZ_CERTIFICATE_KEY": Key(lambda config: str(config.etc / "certs" / f"cert_{config.id}" / "MPSPDZ_certificate.key")),
        "MPSPDZ_CERTIFICATE_PEM": Key(lambda config: str(config.etc / "certs" / f"cert_{config.id}" / "MPSPDZ_certificate.pem")),
        "DEFAULT_BIPRIMES_DIR": Key(lambda config: str(config.var / "default_biprimes")),
        "ALLOW_DEFAULT_BIPRIMES": Key(lambda config: True),
        "PORT_INCREMENT_FILE": Key(lambda config: str(config.etc / "port_increment")),
    }


def _checked(key: str, value: Any, present: Any) -> Any:
    given = str(value) if isinstance(value, Path) else value
    if isinstance(present, float) and type(given) is int:
        given = float(given)
    if type(given) is not type(present):
        raise FedbiomedEnvironError(
            _text(f"environ[{key!r}] must be {type(present).__name__}, {present!r:.80} for instance, not {value!r:.80}")
        )
    return given


def _make(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedbiomedEnvironError(_text(f"cannot make the folder {folder}: {error.strerror}")) from error


def _text(reason: str) -> str:
    return f"{ErrorNumbers.FB600.value}: {reason}"
