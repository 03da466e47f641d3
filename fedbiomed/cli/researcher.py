"""`fedbiomed researcher`: make a researcher's folder."""

import argparse
import os
import uuid
from pathlib import Path
from typing import Any

from fedbiomed.cli.commands import Subparsers, add_command, add_group
from fedbiomed.common import config
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.exceptions import FedbiomedConfigError

DEFAULT_FOLDER = Path("fbm-researcher")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    below = add_group(subparsers, "researcher", "make a researcher's folder")
    about = "make the folder with its settings; needs no network. Without it a notebook makes one for a network on this machine"
    example = "researcher create --broker broker.example.org:1883 --repository https://files.example.org"
    create = add_command(below, "create", about, example, _create, component="researcher", folder=DEFAULT_FOLDER)
    create.add_argument("--broker", metavar="HOST:PORT", help="the MQTT broker (default localhost:1883)")
    create.add_argument("--repository", metavar="URL", help="the repository (default http://localhost:8844)")


def _create(args: argparse.Namespace) -> int:
    if config.exists(args.dir):
        raise FedbiomedConfigError(
            f"{args.dir} holds a component already ({args.dir / config.CONFIG_FILE}); name another folder with --dir"
        )
    wanted: dict[str, Any] = {"id": os.environ.get("RESEARCHER_ID") or f"researcher_{uuid.uuid4()}"}
    if args.broker is not None:
        wanted["broker"], wanted["broker_port"] = config.broker_address(args.broker)
    if args.repository is not None:
        wanted["repository"] = args.repository
    made = config.build(ResearcherConfig, args.dir, wanted, env={})
    try:
        config.save(made)
    except OSError as error:
        raise FedbiomedConfigError(f"cannot make the folder {args.dir}: {error.strerror or error}; name another with --dir") from error
    print(f"created researcher={made.id} dir={made.root}")
    return 0
