"""`fedbiomed researcher`: make a researcher's folder, start its notebooks."""

import argparse
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from fedbiomed.cli.commands import Subparsers, add_command, add_group
from fedbiomed.common import config
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedUserInputError
from fedbiomed.common.security.identity import made_identity

DEFAULT_FOLDER = Path("fbm-researcher")
_NOTEBOOKS = Path("notebooks")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    below = add_group(subparsers, "researcher", "make a researcher's folder, start its notebooks")
    about = "make the folder with its settings; needs no network. Without it a notebook makes one for a network on this machine"
    example = "researcher create --broker broker.example.org:1883 --repository https://files.example.org"
    create = add_command(below, "create", about, example, _create, component="researcher", folder=DEFAULT_FOLDER)
    create.add_argument("--broker", metavar="HOST:PORT", help="the MQTT broker (default localhost:1883)")
    create.add_argument("--repository", metavar="URL", help="the repository (default http://localhost:8844)")
    about = "start Jupyter for the researcher, whose folder is made where there is none; its notebooks are those below --notebooks"
    start = add_command(
        below, "start", about, "researcher start --dir fbm-researcher", _start, component="researcher", folder=DEFAULT_FOLDER
    )
    start.add_argument("--notebooks", type=Path, metavar="DIR", help="where they lie (default: notebooks here, else this folder)")


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
    _save(made, args.dir)
    made_identity(made.identity)
    print(f"created researcher={made.id} dir={made.root}")
    return 0


def _start(args: argparse.Namespace) -> int:
    jupyter = next(filter(None, map(shutil.which, ("jupyter-lab", "jupyter-notebook"))), None)
    if jupyter is None:
        raise FedbiomedUserInputError("Jupyter is not installed: `pip install notebook`, or run your script with `python` instead")
    notebooks = args.notebooks or (_NOTEBOOKS if _NOTEBOOKS.is_dir() else Path())
    if not notebooks.is_dir():
        raise FedbiomedUserInputError(f"--notebooks {notebooks} is not a folder")
    from fedbiomed.researcher.connect import FOLDER_VARIABLE, open_config  # late: it loads the network's libraries

    told = open_config(args.dir)
    print(f"ready researcher={told.id}", flush=True)
    os.execve(jupyter, [jupyter, f"--ServerApp.root_dir={notebooks.absolute()}"], {**os.environ, FOLDER_VARIABLE: str(told.root)})


def _save(made: ResearcherConfig, folder: Path) -> None:
    try:
        config.save(made)
    except OSError as error:
        raise FedbiomedConfigError(f"cannot make the folder {folder}: {error.strerror or error}; name another with --dir") from error
