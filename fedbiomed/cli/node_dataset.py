"""`fedbiomed node dataset`: register, list and forget datasets."""

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.cli import node_dataset_budget
from fedbiomed.cli.asking import add_yes, chosen, is_somebody_there, needed, needed_path, optional, require_consent
from fedbiomed.cli.commands import Subparsers, add_group
from fedbiomed.cli.node_folder import add_command, database
from fedbiomed.cli.node_output import show_json, show_table
from fedbiomed.common.data.datasets.dataset_type import type_names
from fedbiomed.common.data.demographics import column_names
from fedbiomed.common.data.loading_plan import DataLoadingPlan, plan_from_json
from fedbiomed.common.exceptions import FedbiomedDataLoadingPlanError, FedbiomedLoadingBlockError, FedbiomedUserInputError
from fedbiomed.node.datasets import DatasetRegistry

_ADD = """node dataset add --dir site-a --type csv --path patients.csv --name patients --tags heart,2024
  fedbiomed node dataset add --dir site-a --type medical-folder --path scans --loading-plan plan.json --name scans --tags mri
  fedbiomed node dataset add --dir site-a --from-json dataset.json

dataset.json holds {"path": ..., "data_type": ..., "name": ..., "tags": "a,b" or ["a", "b"]} and, if you like, "description",
"dataset_parameters": {"tabular_file": ..., "index_col": ...} and "loading_plan" (a path, or the plan itself); a path in it is absolute,
relative to the node's folder, or begins with $VARIABLE/.

plan.json holds {"name": ..., "modalities_to_folders": {"T1": ["t1_mprage", "t1_flash"], ...}} for a medical folder, or {"name": ...,
"flamby_dataset_metadata": {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 0}}, or what DataLoadingPlan.serialize() gives."""
_REQUIRED = frozenset({"data_type", "name", "tags"})
_ALLOWED = _REQUIRED | {"path", "description", "dataset_parameters", "loading_plan"}
_OPTIONS = ("type", "path", "name", "tags", "description", "tabular_file", "index_col", "loading_plan")
_WITHOUT_PATH = ("flamby",)
_USUAL = {"default": ("MNIST", "#MNIST,#dataset"), "mednist": ("MEDNIST", "#MEDNIST,#dataset")}  # names and tags
_VARIABLE = re.compile(r"\$(\w+)(?:/(.*))?", re.DOTALL)


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    group = add_group(subparsers, "dataset", "register, list and forget datasets")
    add = add_command(group, "add", "register a dataset; prints its id", _ADD, _add, has_json=True)
    add.add_argument(
        "--type",
        metavar="TYPE",
        help="csv: a table with a header; default: a folder (MNIST's files, or what your plans read); images: a folder of class folders of "
        "pictures; mednist: the unpacked MedNIST folder; medical-folder: SUBJECT/MODALITY/*.nii.gz; flamby: a center of FLamby",
    )
    add.add_argument("--path", type=Path, metavar="PATH", help="the file or folder; not for flamby")
    add.add_argument("--name", metavar="NAME", help="for people")
    add.add_argument("--tags", metavar="A,B", help="by which researchers find it")
    add.add_argument("--description", metavar="TEXT", help="for people")
    add.add_argument("--tabular-file", type=Path, metavar="FILE", help="medical-folder: csv or tsv table of the subjects")
    add.add_argument("--index-col", metavar="COLUMN", help="its column with the subjects' folder names: a name, or a position from 0")
    add.add_argument(
        "--loading-plan", type=Path, metavar="FILE.json", help="medical-folder, flamby: how your data become what plans expect"
    )
    add.add_argument("--from-json", type=Path, metavar="FILE", help="take all of this from a file")
    add_command(group, "list", "list datasets", "node dataset list --dir site-a --json", _list, has_json=True)
    node_dataset_budget.add_to(group)
    remove = add_command(group, "remove", "forget a dataset; the data stays", "node dataset remove dataset_1b0e... --dir site-a", _remove)
    which = remove.add_mutually_exclusive_group()
    which.add_argument("dataset_id", metavar="ID", nargs="?", help="as `list` shows it; without it you are shown a list and asked")
    which.add_argument("--tags", metavar="A,B", help="those that bear exactly these tags")
    which.add_argument("--all", action="store_true", help="every one")
    add_yes(remove)


def _add(args: argparse.Namespace) -> int:
    with database(args) as store:
        wanted = _from_options(args) if args.from_json is None else _from_file(args)
        row = DatasetRegistry(store).add(**wanted)
    if args.json:
        show_json(row)
    else:
        print(row["dataset_id"])
    return 0


def _list(args: argparse.Namespace) -> int:
    with database(args) as store:
        rows = DatasetRegistry(store).all()
    if args.json:
        show_json(rows)
    else:
        show_table(
            rows, ("dataset_id", "name", "data_type", "tags", "shape", "path"), "no datasets; add one with `fedbiomed node dataset add`"
        )
    return 0


def _remove(args: argparse.Namespace) -> int:
    with database(args) as store:
        datasets = DatasetRegistry(store)
        going = _going(args, datasets)
        if going:
            names = ", ".join(f"{row['name']} ({row['dataset_id']})" for row in going)
            require_consent(args, f"Forget {names}? The data stays where it is.")
        for row in going:
            datasets.remove(row["dataset_id"])
            print(f"removed {row['dataset_id']}")
    if not going:
        print("no datasets; nothing to remove")
    return 0


def _going(args: argparse.Namespace, datasets: DatasetRegistry) -> list[Mapping[str, Any]]:
    """The datasets that were named, or the one that a person chooses."""
    rows: list[Mapping[str, Any]] = [*datasets.all()]
    if args.all:
        return rows
    if args.tags is not None:
        tags = {tag.strip() for tag in args.tags.split(",")}
        found = [row for row in rows if set(row["tags"]) == tags]
        if not found:
            raise FedbiomedUserInputError(f"this node has no dataset with exactly the tags {args.tags}; `fedbiomed node dataset list`")
        return found
    if args.dataset_id is None:
        return [chosen(args, rows, ("name", "data_type", "path", "dataset_id"), "dataset", "ID")]
    named = [row for row in rows if row["dataset_id"] == args.dataset_id]
    if not named:
        datasets.remove(args.dataset_id)  # says that there is none
    return named


def _from_options(args: argparse.Namespace) -> dict[str, Any]:
    missing = [name for name in ("type", "path", "name", "tags") if getattr(args, name) is None]
    if args.type in _WITHOUT_PATH and "path" in missing:
        missing.remove("path")
    if missing and not is_somebody_there(args):
        options = ", ".join(f"--{name}" for name in missing)
        raise FedbiomedUserInputError(f"a dataset needs {options} (or --from-json FILE with everything)")
    if args.type is None:
        rows = [{"type": name} for name in type_names()]
        args.type = chosen(args, rows, ("type",), "type of dataset", "--type")["type"]
    usual_name, usual_tags = _USUAL.get(args.type, ("", ""))
    return {
        "data_type": args.type,
        "name": _needed(args, "name", "Name", usual_name),
        "tags": _needed(args, "tags", "Tags, separated by commas", usual_tags).split(","),
        "description": args.description or (optional(args, "Description") if missing else ""),
        "path": args.path if args.type in _WITHOUT_PATH else needed_path(args, "path", "File or folder", "--path"),
        "dataset_parameters": _table_parameters(args),
        "loading_plan": None if args.loading_plan is None else _plan(_read_json(args.loading_plan), args.loading_plan),
    }


def _needed(args: argparse.Namespace, name: str, question: str, usual: str) -> str:
    """What an option says, or else the person, who may leave it at what is usual for such a dataset."""
    if getattr(args, name) is None and usual and is_somebody_there(args):
        return optional(args, f"{question} (default {usual})") or usual
    return needed(args, name, question, f"--{name}")


def _table_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What names the table of subjects; a column that is a number, and no name in the table's header, is a position."""
    found: dict[str, Any] = {}
    if args.tabular_file is not None:
        found["tabular_file"] = str(args.tabular_file)
    if args.index_col is not None:
        is_name = args.tabular_file is not None and args.index_col in column_names(args.tabular_file)
        is_position = re.fullmatch(r"[0-9]{1,6}", args.index_col) and not is_name
        found["index_col"] = int(args.index_col) if is_position else args.index_col
    return found


def _from_file(args: argparse.Namespace) -> dict[str, Any]:
    given = [f"--{name.replace('_', '-')}" for name in _OPTIONS if getattr(args, name) is not None]
    if given:
        raise FedbiomedUserInputError(f"--from-json holds everything: leave out {', '.join(given)}")
    content = _read_object(args.from_json)
    if _REQUIRED - content.keys() or content.keys() - _ALLOWED:
        raise FedbiomedUserInputError(
            f"{args.from_json}: missing {sorted(_REQUIRED - content.keys())}, unknown {sorted(content.keys() - _ALLOWED)}"
        )
    for key in sorted(content.keys() - {"dataset_parameters", "loading_plan", "tags"}):
        if not isinstance(content[key], str):
            raise FedbiomedUserInputError(f"{args.from_json}: {key} must be a text, not {content[key]!r:.80}")
    return {
        "name": content["name"],
        "data_type": content["data_type"],
        "tags": _tags(content["tags"], args.from_json),
        "path": _resolved(content["path"], args.dir, os.environ) if "path" in content else None,
        "description": content.get("description", ""),
        "dataset_parameters": _resolved_parameters(content.get("dataset_parameters"), args.dir),
        "loading_plan": _plan_of(content.get("loading_plan"), args),
    }


def _tags(value: Any, file: Path) -> list[str]:
    if isinstance(value, str):
        return value.split(",")
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise FedbiomedUserInputError(f"{file}: tags must be a text (comma-separated) or a list of texts, not {value!r:.80}")
    return value


def _resolved_parameters(parameters: Any, root: Path) -> Any:
    if not isinstance(parameters, dict) or not isinstance(parameters.get("tabular_file"), str):
        return parameters
    return {**parameters, "tabular_file": str(_resolved(parameters["tabular_file"], root, os.environ))}


def _plan_of(value: Any, args: argparse.Namespace) -> DataLoadingPlan | None:
    if value is None:
        return None
    if isinstance(value, str):
        file = _resolved(value, args.dir, os.environ)
        return _plan(_read_json(file), file)
    return _plan(value, args.from_json)


def _plan(content: Any, file: Path) -> DataLoadingPlan:
    try:
        return plan_from_json(content)
    except (FedbiomedDataLoadingPlanError, FedbiomedLoadingBlockError) as error:
        raise FedbiomedUserInputError(f"{file}: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise FedbiomedUserInputError(f"{path} must hold one JSON object, not {type(content).__name__}")
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FedbiomedUserInputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FedbiomedUserInputError(f"{path} is not JSON: {error}") from error


def _resolved(text: str, root: Path, env: Mapping[str, str]) -> Path:
    variable = _VARIABLE.fullmatch(text)
    if variable is None:
        return root / text
    if not env.get(variable[1]):
        raise FedbiomedUserInputError(f"the path {text!r} names the environment variable {variable[1]}, which is not set")
    return Path(env[variable[1]], variable[2] or "")
