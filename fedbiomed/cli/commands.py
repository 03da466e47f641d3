"""What all commands below `fedbiomed COMPONENT` share: their help with an example, `--dir`, and `--json` where they list."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fedbiomed.cli.node_output import printable

Subparsers = argparse._SubParsersAction


class CommandParser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        """End with code 2."""
        self.exit(2, f"fedbiomed: {printable(message)}; see `{self.prog} --help`\n")


def add_command(
    subparsers: "Subparsers[Any]",
    name: str,
    about: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
    *,
    component: str,
    folder: Path | None = None,
    has_json: bool = False,
) -> argparse.ArgumentParser:
    """Add a command with `--dir` and, where it lists, `--json`.

    Args:
        subparsers: where to.
        name, about: the command, and what it does.
        example: shown by `--help`, without the program's name.
        run: takes the parsed arguments and returns the exit code.
        component: whose folder `--dir` is: `node`, `researcher` or `network`.
        folder: `args.dir` when `--dir` is not given.
        has_json: whether `--json` makes sense.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  fedbiomed {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told = f"the {component}'s folder (default: fbm-{component} here)"
    parser.add_argument("--dir", type=Path, default=folder, metavar="DIR", help=told)
    if has_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def add_group(subparsers: "Subparsers[Any]", name: str, about: str) -> "Subparsers[Any]":
    """Add a command that only has commands below it."""
    parser = subparsers.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    below: Subparsers[Any] = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    return below
