"""Questions to the person at the terminal, for what was not given as an option. Programs are never asked: they are told what to give.

The commands of earlier releases always asked, so those may also be answered through a pipe or from a file, one line for each question.
"""

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
        _require_somebody(args, option)
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
    _require_somebody(args, option)
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
    if args.yes or not is_somebody_there(args):
        return
    answer = _line(f"{printable(question)} [y/N] ")
    if not answer and not sys.stdin.isatty():  # a pipe that says no more
        return
    if _stripped(answer).lower() not in ("y", "yes"):
        raise FedbiomedUserInputError("nothing was changed")


def optional(args: argparse.Namespace, question: str) -> str:
    """What the person says, or nothing; nothing where nobody is there to ask."""
    if not is_somebody_there(args):
        return ""
    answer = _line(f"{question}: ")
    return _stripped(answer) if answer or sys.stdin.isatty() else ""


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add `--yes` to a command that deletes."""
    parser.add_argument("--yes", action="store_true", help="do not ask whether it is meant")


def is_somebody_there(args: argparse.Namespace) -> bool:
    """Whether questions are answered: by a person or, where an old spelling was used, by what comes through its pipe."""
    return (sys.stdin.isatty() or args.answers_from_pipe) and not getattr(args, "json", False)


def _require_somebody(args: argparse.Namespace, option: str) -> None:
    if not is_somebody_there(args):
        raise FedbiomedUserInputError(f"{option} is missing; give it (only on a terminal, and without --json, you are asked)")


def _number(question: str, highest: int) -> int:
    while True:
        text = _answer(question)
        if text.isdecimal() and 1 <= int(text) <= highest:
            return int(text)
        _say(f"{printable(text)} is no number from 1 to {highest}\n")


def _answer(question: str) -> str:
    """A line that is not empty."""
    while not (answer := _stripped(_line(question))):
        pass
    return answer


def _line(question: str) -> str:
    """One line, or nothing at the end; the question goes to stderr, so that stdout may go into a file."""
    _say(question)
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise FedbiomedUserInputError("the answer is not UTF-8; nothing was changed") from error
    if not line:
        _say("\n")
    return line


def _stripped(line: str) -> str:
    if not line:
        raise FedbiomedUserInputError("no answer came; nothing was changed")
    return line.strip()


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
