"""`fedbiomed node doctor`: what stands in the way of this node, and what to do about it."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fedbiomed.cli import hops
from fedbiomed.cli.commands import Subparsers
from fedbiomed.cli.findings import Finding, found_by, report
from fedbiomed.cli.node_folder import add_command, settings
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import TrainingPlanApprovalStatus
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.overview import counts, is_sound
from fedbiomed.node.store import NodeStore

_LIBRARIES = ("torch", "sklearn", "pandas", "numpy", "paho", "requests", "msgpack")
_REMEDIES = {
    **hops.REMEDIES,
    "folder": "let the user who runs the node own the folder: `chown -R USER DIR`",
    "database": "make room where the disk is full; else restore it from a backup, or move it away and register datasets and plans anew",
    "datasets": "put the files back where they were, or `fedbiomed node dataset remove` and `add` them where they are",
    "plans": "restore the database from a backup, or register the plans anew",
}


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the command to the command line."""
    about = "check folder, database, datasets, libraries and network; exit code 1 when something is wrong"
    add_command(subparsers, "doctor", about, "node doctor --dir site-a", _doctor, has_json=True)


def _doctor(args: argparse.Namespace) -> int:
    return report(examine(settings(args)), as_json=args.json)


def examine(config: NodeConfig) -> Iterator[Finding]:
    """Look at everything a node needs; registers and removes nothing."""
    checks: tuple[tuple[str, Callable[[NodeConfig], str]], ...] = (
        ("folder", _folder),
        ("disk", lambda told: hops.disk(told.root)),
        ("database", _database),
        ("datasets", _datasets),
        ("plans", _plans),
        ("libraries", lambda _told: hops.libraries(_LIBRARIES)),
        ("torch", lambda told: hops.torch_works(told.gpu)),
        ("broker", hops.broker),
        ("login", hops.login),
        ("repository", hops.repository),
        ("clock", hops.clock),
    )
    for check, look in checks:
        yield found_by(check, partial(look, config), _REMEDIES)


def _folder(config: NodeConfig) -> str:
    ours = [folder for folder in (config.var, config.log) if folder.is_dir()]  # none yet, where an earlier release wrote the settings
    for folder in ours or [config.root]:
        with tempfile.TemporaryFile(dir=folder):
            pass
    return f"{config.root} can be written; the node is {config.id}"


def _database(config: NodeConfig) -> str:
    with _store(config) as store:
        if not is_sound(store):
            raise OSError(f"{config.database} is damaged")
        return f"sound, schema version {store.schema_version}"


def _datasets(config: NodeConfig) -> str:
    with _store(config) as store:
        rows = DatasetRegistry(store).all()
    gone = [f"{row['name']} ({row['path']})" for row in rows if row["path"] is not None and not Path(row["path"]).exists()]
    if gone:
        raise OSError(f"{len(gone)} of {len(rows)} are not where they were registered: {', '.join(gone)}")
    return f"{len(rows)} registered, all there" if rows else "none registered; researchers find nothing here (`fedbiomed node dataset add`)"


def _plans(config: NodeConfig) -> str:
    with _store(config) as store:
        pending = counts(store)["plans"].get(TrainingPlanApprovalStatus.PENDING, 0)
    rule = "approval is required" if config.plan_approval else "every plan runs that nobody rejected (plan_approval is off)"
    return f"{rule}; {pending} wait for your decision"


def _store(config: NodeConfig) -> NodeStore:
    if not config.database.is_file():  # opening it would make an empty one
        raise OSError(f"{config.database} is not there")
    return NodeStore(config.database)
