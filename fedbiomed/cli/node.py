"""`fedbiomed node`: make a node's folder, fill it, run it and look at it."""

import argparse
import dataclasses
import logging
import logging.handlers
import os
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from fedbiomed.cli import node_dataset, node_doctor, node_peers, node_plan
from fedbiomed.cli.commands import Subparsers, add_group
from fedbiomed.cli.node_folder import add_command, database, made, opened, settings
from fedbiomed.cli.node_output import LOG_FORMAT, LineFormatter, printable, show_json, show_table
from fedbiomed.common import config
from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedUserInputError
from fedbiomed.common.security.identity import load_identity, made_identity
from fedbiomed.node.overview import counts, is_running, jobs
from fedbiomed.node.store import NodeStore

_LOG_BYTES, _LOG_FILES = 10 << 20, 5


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    group = add_group(subparsers, "node", "run a node beside your data")
    _add_create(group)
    node_dataset.add_parser(group)
    node_plan.add_parser(group)
    node_peers.add_parser(group)
    start = add_command(group, "start", "run the node until Ctrl-C or SIGTERM; prints `ready node=ID`", "node start --dir site-a", _start)
    start.add_argument("--gpu", metavar="auto|none|N", help="auto: where the researcher asks and one is there; N: that device")
    start.add_argument("--gpu-only", action="store_true", help="use one, if it is there, also where the researcher does not ask")
    add_command(group, "status", "show the node's settings and what it holds", "node status --dir site-a --json", _status, has_json=True)
    add_command(group, "jobs", "list training orders and how far they are", "node jobs --dir site-a --json", _jobs, has_json=True)
    node_doctor.add_parser(group)


def _add_create(group: "Subparsers[Any]") -> None:
    create = add_command(
        group,
        "create",
        "make a node's folder; needs no network",
        "node create --dir site-a --name 'Hospital A' --broker broker.example.org:1883 --repository https://files.example.org",
        _create,
        has_json=True,
    )
    create.add_argument("--name", metavar="NAME", default="", help="what researchers see")
    create.add_argument("--broker", metavar="HOST:PORT", help="the MQTT broker (default localhost:1883)")
    create.add_argument("--repository", metavar="URL", help="the repository (default http://localhost:8844)")
    create.add_argument("--no-plan-approval", action="store_true", help="run every training plan that nobody rejected (tests only)")


def _create(args: argparse.Namespace) -> int:
    new = _new_settings(args)
    try:
        config.save(new)
    except OSError as error:
        raise FedbiomedConfigError(f"cannot make the folder {args.dir}: {error.strerror or error}; name another with --dir") from error
    made_identity(new.identity)
    NodeStore(new.database).close()
    if args.json:
        show_json(_described(new))
    else:
        print(f"created node={new.id} dir={new.root}")
    return 0


def _new_settings(args: argparse.Namespace) -> NodeConfig:
    if config.exists(args.dir):
        raise FedbiomedConfigError(
            f"{args.dir} holds a component already ({args.dir / config.CONFIG_FILE}); name another folder with --dir"
        )
    wanted: dict[str, Any] = {"id": os.environ.get("NODE_ID") or f"node_{uuid.uuid4()}", "name": args.name}
    if args.broker is not None:
        wanted["broker"], wanted["broker_port"] = config.broker_address(args.broker)
    if args.repository is not None:
        wanted["repository"] = args.repository
    if args.no_plan_approval:
        wanted["plan_approval"] = False
    return config.build(NodeConfig, args.dir, wanted, env={})


def _start(args: argparse.Namespace) -> int:
    told = settings(args)
    if args.gpu is not None:
        if not config.GPU_SETTING.fullmatch(args.gpu):
            raise FedbiomedUserInputError(f"--gpu is auto, none or the number of a device, not {args.gpu!r:.80}")
        told = dataclasses.replace(told, gpu=args.gpu, gpu_only=told.gpu_only and args.gpu != "none")
    if args.gpu_only:
        told = dataclasses.replace(told, gpu_only=True)
    made(told.log)
    _log_to(told.log / "node.log")
    from fedbiomed.node.daemon import run  # late: it loads the MQTT and HTTP libraries, which no other command of a node needs

    run(told, on_ready=lambda: print(f"ready node={told.id}", flush=True))
    return 0


def _log_to(path: Path) -> None:
    try:
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
    except OSError as error:
        raise FedbiomedConfigError(f"cannot write the log {path}: {error.strerror or error}") from error
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    ours = logging.getLogger("fedbiomed")
    ours.addHandler(handler)
    ours.setLevel(min(logging.INFO, logging.getLogger().level))


def _status(args: argparse.Namespace) -> int:
    told = settings(args)
    with opened(told) as store:
        facts = {**_described(told), "fingerprint": _fingerprint(told), "running": is_running(told.var), **counts(store)}
    if args.json:
        show_json(facts)
        return 0
    for key, value in facts.items():
        print(f"{key:<14} {printable(_spelled(value))}")
    return 0


def _fingerprint(told: NodeConfig) -> str | None:
    """Of the node's key; None where an earlier release made the folder and `node start` has not made a key yet."""
    return load_identity(told.identity).fingerprint if told.identity.exists() else None


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items()) or "none"
    return {True: "yes", False: "no", None: "unknown"}[value] if value is None or isinstance(value, bool) else str(value)


def _described(told: NodeConfig) -> dict[str, Any]:
    return {
        "id": told.id,
        "name": told.name,
        "dir": str(told.root),
        "federation": told.federation,
        "broker": f"{told.broker}:{told.broker_port}",
        "repository": told.repository,
        "plan_approval": told.plan_approval,
    }


def _jobs(args: argparse.Namespace) -> int:
    with database(args) as store:
        rows = jobs(store)
    if args.json:
        show_json(rows)
        return 0
    for row in rows:
        row["changed"] = datetime.fromtimestamp(row["changed_at"]).astimezone().isoformat(" ", "seconds")
    columns = ("request_id", "state", "round", "attempt", "job_id", "researcher_id", "changed", "message")
    show_table(rows, columns, "no jobs; none has been ordered yet")
    return 0
