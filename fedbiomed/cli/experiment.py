"""`fedbiomed experiment`: look at the experiments of a researcher, and go on with one."""

import argparse
import math
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from fedbiomed.cli.commands import Subparsers, add_command, add_group
from fedbiomed.cli.node_output import printable, show_json, show_table
from fedbiomed.cli.researcher import DEFAULT_FOLDER
from fedbiomed.common import config
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedUserInputError
from fedbiomed.researcher import breakpoints

_UNKNOWN = {"round_current": None, "round_limit": None, "tags": None, "training_plan_class": None, "nodes": None}


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    below = add_group(subparsers, "experiment", "list, show and resume experiments")
    add = partial(add_command, below, component="researcher")
    add("list", "list experiments and how far they are", "experiment list --json", _list, has_json=True)
    show = add("show", "show where an experiment stands", "experiment show Experiment_0003", _show, has_json=True)
    resume = add("resume", "go on from a breakpoint", "experiment resume Experiment_0003 --rounds 5", _resume)
    for command in (show, resume):
        command.add_argument("folder", metavar="FOLDER", help="a breakpoint's folder, an experiment's folder, or an experiment's name")
    resume.add_argument("--rounds", type=int, metavar="N", help="how many rounds, past the round limit too (default: up to the limit)")


def _list(args: argparse.Namespace) -> int:
    experiments = config.load(ResearcherConfig, args.dir or DEFAULT_FOLDER).experiments
    folders = sorted(path for path in experiments.iterdir() if path.is_dir()) if experiments.is_dir() else []
    rows = [_described(folder) for folder in folders]
    if args.json:
        show_json(rows)
        return 0
    columns = ("experiment", "round_current", "round_limit", "training_plan_class", "nodes", "tags", "changed", "problem")
    show_table(rows, columns, f"no experiments in {experiments}")
    return 0


def _described(folder: Path) -> dict[str, Any]:
    found = breakpoints.of_experiment(folder)
    row: dict[str, Any] = {"experiment": folder.name, "breakpoints": [path.name for path in found], **_UNKNOWN, "problem": ""}
    row["changed"] = datetime.fromtimestamp((found[-1] if found else folder).stat().st_mtime).astimezone().isoformat(" ", "seconds")
    if not found:
        return {**row, "problem": "no breakpoint"}
    try:
        return row | _facts(breakpoints.glance(found[-1]))
    except FedbiomedError as error:
        return {**row, "problem": str(error)}


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    facts = {key: state.get(key) for key in _UNKNOWN}
    data = state.get("training_data")
    return {**facts, "nodes": len(data) if isinstance(data, dict) else None}


def _show(args: argparse.Namespace) -> int:
    from fedbiomed.researcher.history import History  # late: only here is it needed, and the command line must answer fast

    saved = breakpoints.read(_folder(args))
    state = saved.state
    facts = {
        "breakpoint": str(saved.folder),
        "job_id": state["job"].get("job_id"),
        **{key: state[key] for key in ("tags", "training_plan_class", "round_current", "round_limit")},
        **{key: state[key].get("class") for key in ("aggregator", "node_selection_strategy")},
        **{key: state[key] for key in ("model_args", "training_args")},
        "nodes": {node: data.get("dataset_id") for node, data in state["training_data"].items()},
        "metrics": [
            {
                "round": p.round,
                "node": p.node,
                "dataset": p.dataset,
                "metric": p.label,
                "value": p.value if math.isfinite(p.value) else None,
            }
            for p in History.load(state["history"]).last()
        ],
    }
    if args.json:
        show_json(facts)
        return 0
    metrics = facts.pop("metrics")
    for key, value in facts.items():
        print(f"{key:<24} {printable(str(value))}")
    print()
    show_table(metrics, ("round", "node", "metric", "value"), "the nodes reported no metrics")
    return 0


def _resume(args: argparse.Namespace) -> int:
    if args.rounds is not None and args.rounds < 1:
        raise FedbiomedUserInputError(f"--rounds must be 1 or more, not {args.rounds}")
    folder = _folder(args)
    settings = config.load(ResearcherConfig, _researcher_of(folder, args))
    from fedbiomed.researcher.connect import connect  # late: these load torch and the network's libraries
    from fedbiomed.researcher.experiment import Experiment
    from fedbiomed.researcher.requests import Requests

    with connect(settings) as connection:
        experiment = Experiment.load_breakpoint(folder, requests=Requests(connection))
        done = experiment.run(rounds=args.rounds, increase=args.rounds is not None)
    print(f"rounds run: {done}, in all: {experiment.round_current()}; folder: {experiment.experimentation_path()}")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    """The breakpoint's folder that was meant."""
    given = Path(args.folder)
    if not given.is_dir():
        given = (args.dir or DEFAULT_FOLDER) / "var" / "experiments" / args.folder
    if not given.is_dir():
        raise FedbiomedBreakpointError(
            f"there is no experiment or breakpoint {args.folder}; `fedbiomed experiment list` shows what there is"
        )
    found = breakpoints.of_experiment(given)
    if not found and not any(given.glob("breakpoint_*.json")):
        raise FedbiomedBreakpointError(f"{given} has no breakpoint; run its experiment with save_breakpoints=True")
    return (found[-1] if found else given).absolute()


def _researcher_of(folder: Path, args: argparse.Namespace) -> Path:
    """The researcher's folder: as told, else the one in which the breakpoint lies."""
    if args.dir is not None:
        return Path(args.dir)
    return next((parent for parent in folder.parents if config.exists(parent)), DEFAULT_FOLDER)
