"""What all of the node's commands share: where the node's folder is, and its settings and database."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedbiomed.cli import commands
from fedbiomed.cli.commands import Subparsers
from fedbiomed.common import config
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedConfigError
from fedbiomed.node.store import NodeStore

FOLDER = Path("fbm-node")


def add_command(
    subparsers: "Subparsers[Any]", name: str, about: str, example: str, run: Callable[[argparse.Namespace], int], *, has_json: bool = False
) -> argparse.ArgumentParser:
    """Add a command of the node; see `commands.add_command`."""
    return commands.add_command(subparsers, name, about, example, run, component="node", folder=FOLDER, has_json=has_json)


def settings(args: argparse.Namespace) -> NodeConfig:
    """The settings of the node in `--dir`.

    Raises:
        FedbiomedConfigError: there is none, or a setting is wrong.
    """
    return config.load(NodeConfig, args.dir)


@contextlib.contextmanager
def database(args: argparse.Namespace) -> Iterator[NodeStore]:
    """The database of the node in `--dir`; the daemon may run meanwhile."""
    with opened(settings(args)) as store:
        yield store


@contextlib.contextmanager
def opened(told: NodeConfig) -> Iterator[NodeStore]:
    """The same, of a node whose settings are known."""
    made(told.var)
    with NodeStore(told.database) as store:
        yield store


def made(folder: Path) -> None:
    """Make a folder of a node whose settings an earlier release wrote, and which has none of ours yet.

    Raises:
        FedbiomedConfigError: it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FedbiomedConfigError(f"cannot make the folder {folder}: {error.strerror or error}") from error
