"""Questions to the person at the terminal, for what was not given as an option. Programs are never asked: they are told what to give."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.cli.node_output import printable
from fedbiomed.common.exceptions import FedbiomedUserInputError


def needed(args: argparse.Namespace, name: str, question: str, option: str) -> str:
    """What an option says, or else the person.

    Args:
        args: parsed; `args.json` marks a program.
        name: of the attribute.
        question: to the person.
        option: how the command line says it, for the error.

    Raises:
        FedbiomedUserInputError: it is not given and nobody is there to ask, or nobody answers.
    """
    given = getattr(args, name)
    if given is None:
        _require_person(args, option)
        given = _answer(f"{question}: ")
    return str(given)


def needed_path(args: argparse.Namespace, name: str, question: str, option: str) -> Path:
    """The same for a path; a person may write `~`."""
    given = needed(args, name, question, option)
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise FedbiomedUserInputError(f"{option} {given}: this machine has no such user") from error


def chosen(
    args: argparse.Namespace, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], what: str, option: str
) -> Mapping[str, Any]:
    """Let the person choose a row by its number.

    Args:
        args: parsed; `args.json` marks a program.
        rows: to choose among.
        columns: shown of each row.
        what: a row is, `dataset` for instance.
        option: how the command line says it, for the error.

    Raises:
        FedbiomedUserInputError: there is nothing to choose, nobody is there to ask, or nobody answers.
    """
    _require_person(args, option)
    if not rows:
        raise FedbiomedUserInputError(f"there is no {what} to choose")
    for number, row in enumerate(rows, start=1):
        _say("  ".join([f"{number:>3})", *(printable(str(row[column])) for column in columns)]) + "\n")
    return rows[_number(f"Which {what} (1 to {len(rows)})? ", len(rows)) - 1]


def require_consent(args: argparse.Namespace, question: str) -> None:
    """Ask a person before something goes for good, unless `--yes` was given; a program that named it has decided.

    Raises:
        FedbiomedUserInputError: the answer is no.
    """
    if args.yes or not _is_person_there(args):
        return
    if _answer(f"{printable(question)} [y/N] ", may_be_empty=True).lower() not in ("y", "yes"):
        raise FedbiomedUserInputError("nothing was changed")


def optional(args: argparse.Namespace, question: str) -> str:
    """What the person says, or nothing; nothing where nobody is there to ask."""
    return _answer(f"{question}: ", may_be_empty=True) if _is_person_there(args) else ""


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add `--yes` to a command that deletes."""
    parser.add_argument("--yes", action="store_true", help="do not ask whether it is meant")


def _is_person_there(args: argparse.Namespace) -> bool:
    return sys.stdin.isatty() and not getattr(args, "json", False)


def _require_person(args: argparse.Namespace, option: str) -> None:
    if not _is_person_there(args):
        raise FedbiomedUserInputError(f"{option} is missing; give it (only on a terminal, and without --json, you are asked)")


def _number(question: str, highest: int) -> int:
    while True:
        text = _answer(question)
        if text.isdecimal() and 1 <= int(text) <= highest:
            return int(text)
        _say(f"{printable(text)} is no number from 1 to {highest}\n")


def _answer(question: str, *, may_be_empty: bool = False) -> str:
    """One line from the terminal; the question goes to stderr, so that stdout may go into a file."""
    while True:
        _say(question)
        line = sys.stdin.readline()
        if not line:
            _say("\n")
            raise FedbiomedUserInputError("no answer came; nothing was changed")
        if line.strip() or may_be_empty:
            return line.strip()


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
