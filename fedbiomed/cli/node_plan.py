"""`fedbiomed node plan`: decide which training plans may run on the node."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.cli.asking import add_yes, chosen, needed, needed_path, optional, require_consent
from fedbiomed.cli.commands import Subparsers, add_group
from fedbiomed.cli.node_folder import add_command, opened, settings
from fedbiomed.cli.node_output import printable, show_json, show_table
from fedbiomed.common.constants import TrainingPlanApprovalStatus, TrainingPlanStatus
from fedbiomed.node.approval import PlanRegistry, listing, plan_registry

_COLUMNS = (
    *("training_plan_id", "training_plan_status", "training_plan_type", "name", "researcher_id"),
    *("date_last_action", "notes", "description"),
)
_SHOWN = "\n\t"
_STATUS = "training_plan_status"
_APPROVED, _REJECTED = TrainingPlanApprovalStatus.APPROVED, TrainingPlanApprovalStatus.REJECTED


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    group = add_group(subparsers, "plan", "decide which training plans may run")
    add_command(group, "list", "list training plans", "node plan list --dir site-a --json", _list, has_json=True)
    register = add_command(
        group, "register", "approve your own file", "node plan register plan.py --dir site-a --name mnist", _register, has_json=True
    )
    register.add_argument("file", type=Path, metavar="FILE", nargs="?", help="Python file with the plan's class (without it you are asked)")
    register.add_argument("--name", metavar="NAME", help="for people (default: the file's name)")
    register.add_argument("--description", metavar="TEXT", help="for people")
    _with_id(group, "approve", "let a plan run on this node", "node plan approve training_plan_5c1d... --dir site-a", _approve)
    reject = _with_id(
        group, "reject", "do not let a plan run", "node plan reject training_plan_5c1d... --dir site-a --reason 'writes files'", _reject
    )
    reject.add_argument("--reason", metavar="TEXT", help="the researcher reads it")
    _with_id(group, "view", "print a plan's source", "node plan view training_plan_5c1d... --dir site-a", _view)
    _with_id(
        group,
        "diff",
        "compare with what was approved last of this name or class",
        "node plan diff training_plan_5c1d... --dir site-a",
        _diff,
    )
    update = _with_id(
        group,
        "update",
        "replace a plan's source; the decision stands",
        "node plan update training_plan_5c1d... plan.py --dir site-a",
        _update,
    )
    update.add_argument("file", type=Path, metavar="FILE", nargs="?", help="Python file with the plan's class")
    add_yes(_with_id(group, "delete", "forget a plan", "node plan delete training_plan_5c1d... --dir site-a", _delete))


def _with_id(
    group: "Subparsers[Any]", name: str, about: str, example: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = add_command(group, name, about, example, run, has_json=run in (_approve, _reject, _update))
    parser.add_argument("training_plan_id", metavar="ID", nargs="?", help="as `list` shows it; without it you are shown a list and asked")
    return parser


def _list(args: argparse.Namespace) -> int:
    rows = [listing(row) for row in _with_plans(args, PlanRegistry.all)]
    if args.json:
        show_json(rows)
    else:
        show_table(
            rows, _COLUMNS, "no training plans; researchers ask for approval, or register a file with `fedbiomed node plan register`"
        )
    return 0


def _register(args: argparse.Namespace) -> int:
    asks = args.file is None
    name = args.name if args.name is not None or not asks else optional(args, "Name (default: the file's)") or None
    description = args.description if args.description is not None or not asks else optional(args, "Description")
    file = needed_path(args, "file", "File of the training plan", "FILE")
    return _show(args, _with_plans(args, lambda plans: plans.register(file, name, description or "")))


def _approve(args: argparse.Namespace) -> int:
    return _show(args, _with_plans(args, lambda plans: plans.approve(_id(args, plans, lambda row: row[_STATUS] != _APPROVED))))


def _reject(args: argparse.Namespace) -> int:
    def reject(plans: PlanRegistry) -> dict[str, Any]:
        plan_id = _id(args, plans, lambda row: row[_STATUS] != _REJECTED)
        return plans.reject(plan_id, needed(args, "reason", "Reason (the researcher reads it)", "--reason TEXT"))

    return _show(args, _with_plans(args, reject))


def _update(args: argparse.Namespace) -> int:
    def update(plans: PlanRegistry) -> dict[str, Any]:
        plan_id = _id(args, plans, _is_own)
        return plans.update(plan_id, needed_path(args, "file", "File of the training plan", "FILE"))

    return _show(args, _with_plans(args, update))


def _view(args: argparse.Namespace) -> int:
    print(printable(_with_plans(args, lambda plans: plans.view(_id(args, plans))), _SHOWN), end="")
    return 0


def _diff(args: argparse.Namespace) -> int:
    print(printable(_with_plans(args, lambda plans: plans.diff(_id(args, plans))), _SHOWN), end="")
    return 0


def _delete(args: argparse.Namespace) -> int:
    def delete(plans: PlanRegistry) -> dict[str, Any]:
        plan = plans.get(_id(args, plans, _is_own))
        require_consent(args, f"Delete the training plan {plan['name']} ({plan['training_plan_id']}, {plan[_STATUS]})?")
        return plans.delete(plan["training_plan_id"])

    print(f"deleted {_with_plans(args, delete)['training_plan_id']}")
    return 0


def _id(args: argparse.Namespace, plans: PlanRegistry, fits: Callable[[Mapping[str, Any]], bool] = lambda _row: True) -> str:
    """The plan that was named, or that a person chooses among those that fit."""
    if args.training_plan_id is not None:
        return str(args.training_plan_id)
    rows = [row for row in plans.all() if fits(row)]
    return str(chosen(args, rows, ("name", _STATUS, "training_plan_id"), "training plan", "ID")["training_plan_id"])


def _is_own(row: Mapping[str, Any]) -> bool:
    return bool(row["training_plan_type"] != TrainingPlanStatus.DEFAULT)


def _with_plans(args: argparse.Namespace, act: Callable[[PlanRegistry], Any]) -> Any:
    told = settings(args)
    with opened(told) as store:
        return act(plan_registry(told, store))


def _show(args: argparse.Namespace, row: Mapping[str, Any]) -> int:
    if args.json:
        show_json(listing(row))
    else:
        print(f"{row['training_plan_id']} {row['training_plan_status']}")
    return 0
