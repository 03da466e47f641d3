"""How the node's commands show things: as JSON for programs, as a table for people."""

import json
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_HIDING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, keep: str = "") -> str:
    r"""Make visible what would steer a terminal or hide text in it (control and direction characters), as `\x1b`, `\u202e`.

    Plans, names and reasons come from others. What a reader approves must be what Python reads.

    Args:
        text: anything.
        keep: characters that stay, line ends for instance.
    """
    return "".join(c if c in keep or unicodedata.category(c) not in _HIDING else ascii(c)[1:-1] for c in text)


class LineFormatter(logging.Formatter):
    """One record, one line (and its trace): a message may quote what others wrote, and must not look like records that are none."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """See `logging.Formatter`."""
        return printable(super().formatMessage(record))


def show_json(value: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(value, indent=2))


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> None:
    """Print the columns of all rows below each other, or the sentence `nothing`."""
    if not rows:
        print(nothing)
        return
    cells = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_cell(item) for item in value)
    return "-" if value in (None, "") else printable(str(value))
