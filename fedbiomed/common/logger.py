"""`logger`: the project's logger under the name that notebooks know.

Modules of ours use `logging.getLogger(__name__)`; all of them lie below this one. Nothing is installed at import: a command, or a
user who calls `addConsoleHandler`, decides where records go.
"""

import logging
from typing import Any

_FORMAT = "%(asctime)s %(name)s %(levelname)s - %(message)s"


class FedLogger:
    """A thin face over `logging.getLogger("fedbiomed")`, with the handler keys `CONSOLE` and `FILE`.

    Every method of a standard logger (`debug`, `info`, `warning`, `error`, `critical`, ...) is there too.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("fedbiomed")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def setLevel(self, level: int | str, htype: str | None = None) -> None:  # noqa: N802  the name notebooks use
        """Set the level of one handler (`CONSOLE` or `FILE`), or of the logger and all its handlers.

        Args:
            level: number or name, in any case.
            htype: key of the handler; None for all.

        Raises:
            ValueError: an unknown level.
        """
        number = _level(level)
        if htype is None:
            self._logger.setLevel(number)
        for handler in self._logger.handlers:
            if htype in (None, handler.name):
                handler.setLevel(number)

    def addConsoleHandler(self, format: str = _FORMAT, level: int | str = logging.DEBUG) -> None:  # noqa: N802
        """Show records on stderr; a second call changes nothing but says so."""
        self._internalAddHandler("CONSOLE", _prepared(logging.StreamHandler(), format, level))

    def addFileHandler(  # noqa: N802
        self, filename: str = "mylog.log", format: str = _FORMAT, level: int | str = logging.DEBUG
    ) -> None:
        """Append records to a file; a second call changes nothing but says so."""
        self._internalAddHandler("FILE", _prepared(logging.FileHandler(filename, delay=True), format, level))

    def _internalAddHandler(self, key: str, handler: logging.Handler | None) -> None:  # noqa: N802  called so by notebooks
        """Install a handler under a key; None removes the one that is there."""
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

    def log(self, level: int | str, msg: str, *args: Any) -> None:
        """Write one record at a level given by number or name."""
        self._logger.log(_level(level), msg, *args)


def _level(level: int | str) -> int:
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r:.40} is not one of {', '.join(logging.getLevelNamesMapping())}")
    return number


def _prepared(handler: logging.Handler, format: str, level: int | str) -> logging.Handler:
    handler.setFormatter(logging.Formatter(format))
    handler.setLevel(_level(level))
    return handler


logger = FedLogger()
