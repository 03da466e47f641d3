"""What all of the node's commands share: where the node's folder is, and its settings and database."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedbiomed.common import config
from fedbiomed.common.config import NodeConfig
from fedbiomed.node.store import NodeStore

Subparsers = argparse._SubParsersAction


def add_command(
    subparsers: "Subparsers[Any]", name: str, about: str, example: str, run: Callable[[argparse.Namespace], int], *, has_json: bool = False
) -> argparse.ArgumentParser:
    """Add a command with `--dir` and, where it lists, `--json`.

    Args:
        subparsers: where to.
        name, about: the command, and what it does.
        example: shown by `--help`, without the program's name.
        run: takes the parsed arguments and returns the exit code.
        has_json: whether `--json` makes sense.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  fedbiomed {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dir", type=Path, default=Path("fbm-node"), metavar="DIR", help="the node's folder (default: fbm-node here)")
    if has_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def add_group(subparsers: "Subparsers[Any]", name: str, about: str) -> "Subparsers[Any]":
    """Add a command that only has commands below it."""
    parser = subparsers.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    below: Subparsers[Any] = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    return below


def settings(args: argparse.Namespace) -> NodeConfig:
    """The settings of the node in `--dir`.

    Raises:
        FedbiomedConfigError: there is none, or a setting is wrong.
    """
    return config.load(NodeConfig, args.dir)


@contextlib.contextmanager
def database(args: argparse.Namespace) -> Iterator[NodeStore]:
    """The database of the node in `--dir`; the daemon may run meanwhile."""
    with NodeStore(settings(args).database) as store:
        yield store
