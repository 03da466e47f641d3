"""Run `fedbiomed node ...` as an operator does."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.cli.main import main
from fedbiomed.common.config import VARIABLES


def without_settings() -> dict[str, str]:
    """The environment of this process, without what would win over a node's settings."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def here(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `fedbiomed ARGUMENTS` does, prints and ends with, in this process: a start of Python costs more than most commands.

    Tests of whole processes use `tests.support.federation.command` and `tests.support.terminal`.
    """
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with (
        _environment(without_settings() | environment),
        contextlib.chdir(cwd or Path.cwd()),
        _no_input(),
        _logging_left_alone(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(words)
        except SystemExit as ended:  # argparse, of a wrong option
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def node(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `fedbiomed node ARGUMENTS` does, prints and ends with."""
    return here("node", *arguments, cwd=cwd, **environment)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _logging_left_alone() -> Iterator[None]:
    """A command that starts a node lets the package log to the node's file."""
    ours = logging.getLogger("fedbiomed")
    level, before = ours.level, list(ours.handlers)
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in [handler for handler in ours.handlers if handler not in before]:
            ours.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _no_input() -> Iterator[None]:
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def told(*arguments: str | Path, **environment: str) -> str:
    """What a command that must succeed prints, without the last line end."""
    answer = node(*arguments, **environment)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.rstrip("\n")


def told_json(*arguments: str | Path) -> Any:
    """The JSON that a command prints."""
    return json.loads(told(*arguments, "--json"))


def refused(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """The one line by which a command that must fail says why."""
    answer = node(*arguments, cwd=cwd, **environment)
    assert answer.returncode == 1, (answer.returncode, answer.stdout, answer.stderr)
    assert answer.stdout == ""
    lines = answer.stderr.splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("fedbiomed: ")
    return lines[0].removeprefix("fedbiomed: ")
