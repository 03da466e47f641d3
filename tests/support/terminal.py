"""Run a command at a real (pseudo-)terminal, as a person does."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.node_cli import without_settings

_END_OF_INPUT = b"\x04"


@dataclass(frozen=True)
class Session:
    """What was seen on the screen, and the exit code."""

    screen: str
    returncode: int


def at_terminal(arguments: Sequence[str | Path], answers: Sequence[str], cwd: Path | None = None) -> Session:
    """Type some lines, then the end of input (Ctrl-D), to `fedbiomed ARGUMENTS`.

    The terminal keeps the lines until they are asked for, so all are typed at once.
    """
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "fedbiomed", *map(str, arguments)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=without_settings()) as process:
            os.close(theirs)
            os.write(ours, "".join(f"{answer}\n" for answer in answers).encode() + _END_OF_INPUT)
            screen = _until_closed(ours)
            return Session(screen.decode().replace("\r\n", "\n"), process.wait(30))
    finally:
        os.close(ours)


def _until_closed(handle: int) -> bytes:
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal says that the other side has gone
        while part := os.read(handle, 4096):
            seen += part
    return seen
