"""`logger`: the project's logger under the name that notebooks know.

Modules of ours use `logging.getLogger(__name__)`; all of them lie below this one. Nothing is installed at import: a command, or a
user who calls `addConsoleHandler`, decides where records go.
"""

import json
import logging
from typing import Any, ClassVar, Protocol

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedLoggerError

_FORMAT = "%(asctime)s %(name)s %(levelname)s - %(message)s"


class Publisher(Protocol):
    """What can send a message, a `MessageBus` for instance."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Send, or queue; returns at once and never raises."""


class FedLogger:
    """A thin face over `logging.getLogger("fedbiomed")`, with the handler keys `CONSOLE`, `FILE` and `MQTT`. There is one: `logger`.

    Every method of a standard logger (`debug`, `info`, `warning`, `error`, `critical`, ...) is there too.

    Raises:
        FedbiomedLoggerError: an unknown level, or something that is no handler.
    """

    _one: ClassVar["FedLogger | None"] = None
    _logger: logging.Logger

    def __new__(cls) -> "FedLogger":
        if cls._one is None:
            cls._one = super().__new__(cls)
            cls._one._logger = logging.getLogger("fedbiomed")
        return cls._one

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def setLevel(self, level: int | str, htype: str | None = None) -> None:  # noqa: N802  the name notebooks use
        """Set the level of one handler (`CONSOLE`, `FILE` or `MQTT`), or of the logger and all its handlers.

        Args:
            level: number or name, in any case.
            htype: key of the handler; None for all. One that is not installed only gets a warning into the log.
        """
        number = _level(level)
        chosen = [handler for handler in self._logger.handlers if htype in (None, handler.name)]
        if htype is None:
            self._logger.setLevel(number)
        elif not chosen:
            self._logger.warning("no handler %s is installed; its level was not set", htype)
        for handler in chosen:
            handler.setLevel(number)

    def addConsoleHandler(self, format: str = _FORMAT, level: int | str = logging.DEBUG) -> None:  # noqa: N802
        """Show records from this level on, on stderr; a second call changes nothing but says so."""
        self._internalAddHandler("CONSOLE", _prepared(logging.StreamHandler(), format, level))

    def addFileHandler(  # noqa: N802
        self, filename: str = "mylog.log", format: str = _FORMAT, level: int | str = logging.DEBUG
    ) -> None:
        """Append records to a file; a second call changes nothing but says so."""
        self._internalAddHandler("FILE", _prepared(logging.FileHandler(filename, delay=True), format, level))

    def addMqttHandler(  # noqa: N802
        self, mqtt: Publisher, node_id: str, topic: str = "general/logger", level: int | str = logging.INFO
    ) -> None:
        """Send records over a message bus, each as JSON `{asctime, node_id, name, level, message}`; a second call only says so.

        Args:
            mqtt: the bus.
            node_id: who speaks.
            topic: where to.
            level: from which level on.
        """
        handler = _BusHandler(mqtt, node_id, topic)
        handler.setLevel(_level(level))
        self._internalAddHandler("MQTT", handler)

    def delMqttHandler(self) -> None:  # noqa: N802
        """End what `addMqttHandler` began; without one nothing happens."""
        self._internalAddHandler("MQTT", None)

    def _internalAddHandler(self, key: str, handler: logging.Handler | None) -> None:  # noqa: N802  called so by notebooks
        """Install a handler under a key; None removes the one that is there.

        The logger itself lets through what the handler is to show.
        """
        if handler is not None and not isinstance(handler, logging.Handler):
            raise FedbiomedLoggerError(f"{ErrorNumbers.FB602.value}: a handler is a logging.Handler or None, not {handler!r:.80}")
        present = [known for known in self._logger.handlers if known.name == key]
        if handler is None:
            for known in present:
                self._logger.removeHandler(known)
                known.close()
        elif present:
            self._logger.warning("a handler %s is installed already", key)
        else:
            handler.set_name(key)
            self._logger.addHandler(handler)
            self._logger.setLevel(min(handler.level or logging.DEBUG, self._logger.getEffectiveLevel()))

    def log(self, level: int | str, msg: str, *args: Any) -> None:
        """Write one record at a level given by number or name."""
        self._logger.log(_level(level), msg, *args)


class _BusHandler(logging.Handler):
    def __init__(self, bus: Publisher, node_id: str, topic: str) -> None:
        super().__init__()
        self._bus, self._node_id, self._topic = bus, node_id, topic
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        told = {
            "asctime": logging.Formatter().formatTime(record),
            "node_id": self._node_id,
            "name": record.name,
            "level": record.levelname,
            "message": record.getMessage(),
        }
        self._bus.publish(self._topic, json.dumps(told).encode())


def _level(level: int | str) -> int:
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else None
    if number is None:
        raise FedbiomedLoggerError(
            f"{ErrorNumbers.FB602.value}: log level {level!r:.40} is no number and not one of {', '.join(logging.getLevelNamesMapping())}"
        )
    return number


def _prepared(handler: logging.Handler, format: str, level: int | str) -> logging.Handler:
    handler.setFormatter(logging.Formatter(format))
    handler.setLevel(_level(level))
    return handler


logger = FedLogger()
