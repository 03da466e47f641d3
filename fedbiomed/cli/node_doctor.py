"""`fedbiomed node doctor`: what stands in the way of this node, and what to do about it."""

import argparse
import contextlib
import importlib.util
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedbiomed.cli.findings import Finding, found_by, report
from fedbiomed.cli.node_folder import Subparsers, add_command, settings
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import TrainingPlanApprovalStatus
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.overview import counts, is_sound
from fedbiomed.node.store import NodeStore

_ANSWER_S = 3.0
_FREE_BYTES = 1 << 30
_LIBRARIES = ("torch", "sklearn", "pandas", "numpy", "paho", "requests", "msgpack")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the command to the command line."""
    about = "check folder, database, datasets, libraries and network; exit code 1 when something is wrong"
    add_command(subparsers, "doctor", about, "node doctor --dir site-a", _doctor, has_json=True)


def _doctor(args: argparse.Namespace) -> int:
    return report(examine(settings(args)), as_json=args.json)


def examine(config: NodeConfig) -> Iterator[Finding]:
    """Look at everything a node needs; changes nothing."""
    checks: tuple[tuple[str, Callable[[NodeConfig], str]], ...] = (
        ("folder", _folder),
        ("disk", _disk),
        ("database", _database),
        ("datasets", _datasets),
        ("plans", _plans),
        ("libraries", _libraries),
        ("broker", _broker),
        ("repository", _repository),
    )
    for check, look in checks:
        yield found_by(check, partial(look, config))


def _folder(config: NodeConfig) -> str:
    for folder in (config.var, config.log):
        with tempfile.TemporaryFile(dir=folder):
            pass
    return f"{config.root} can be written; the node is {config.id}"


def _disk(config: NodeConfig) -> str:
    free = shutil.disk_usage(config.root).free
    if free < _FREE_BYTES:
        raise OSError(f"{free >> 20} MiB are free on the disk of {config.root}, models need more: make room")
    return f"{free >> 30} GiB are free"


def _database(config: NodeConfig) -> str:
    if not config.database.is_file():
        raise OSError(f"{config.database} is gone: restore it from a backup, or register datasets and plans anew")
    with _store(config) as store:
        if not is_sound(store):
            raise OSError(f"{config.database} is damaged: restore it from a backup, or remove it and register datasets and plans anew")
        return f"sound, schema version {store.schema_version}"


def _datasets(config: NodeConfig) -> str:
    with _store(config) as store:
        rows = DatasetRegistry(store).all()
    gone = [f"{row['name']} ({row['path']})" for row in rows if row["path"] is not None and not Path(row["path"]).exists()]
    if gone:
        raise OSError(f"{len(gone)} of {len(rows)} are not where they were registered: {', '.join(gone)}; put them back or remove them")
    return f"{len(rows)} registered, all there" if rows else "none registered; researchers find nothing here (`fedbiomed node dataset add`)"


def _plans(config: NodeConfig) -> str:
    with _store(config) as store:
        pending = counts(store)["plans"].get(TrainingPlanApprovalStatus.PENDING, 0)
    rule = "approval is required" if config.plan_approval else "every plan runs that nobody rejected (plan_approval is off)"
    return f"{rule}; {pending} wait for your decision"


def _libraries(config: NodeConfig) -> str:
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise OSError(f"not installed: {', '.join(missing)}; install fedbiomed anew")
    return f"installed: {', '.join(_LIBRARIES)}"


def _broker(config: NodeConfig) -> str:
    return _reached(config.broker, config.broker_port, "`fedbiomed network start`, or set broker and broker_port")


def _repository(config: NodeConfig) -> str:
    parts = urlsplit(config.repository)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _reached(parts.hostname or "", port, "`fedbiomed network start`, or set repository")


def _reached(host: str, port: int, advice: str) -> str:
    try:
        with contextlib.closing(socket.create_connection((host, port), timeout=_ANSWER_S)):
            return f"{host}:{port} takes connections"
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be reached: {error}; start it with {advice}") from error


def _store(config: NodeConfig) -> NodeStore:
    return NodeStore(config.database)
