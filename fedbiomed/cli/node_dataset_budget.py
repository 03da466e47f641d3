"""`fedbiomed node dataset budget`: how much of a dataset's privacy may be spent, and how much is."""

import argparse
import math
from typing import Any

from fedbiomed.cli.commands import Subparsers
from fedbiomed.cli.node_folder import add_command, database
from fedbiomed.cli.node_output import show_json, show_table
from fedbiomed.common.exceptions import FedbiomedUserInputError
from fedbiomed.common.privacy_cost import DEFAULT_DELTA, spent_epsilon
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.privacy_ledger import Budget, PrivacyLedger
from fedbiomed.node.store import NodeStore

_EXAMPLE = """node dataset budget --dir site-a
  fedbiomed node dataset budget dataset_1b0e... --epsilon 3 --delta 1e-5 --dir site-a
  fedbiomed node dataset budget dataset_1b0e... --none --dir site-a

A dataset with a budget is trained on with differential privacy only, and no round begins that would bring the epsilon of all
experiments together above it."""
_COLUMNS = ("dataset_id", "name", "epsilon_budget", "delta", "epsilon_spent")


def add_to(group: "Subparsers[Any]") -> None:
    """Add the command to those of `node dataset`."""
    parser = add_command(group, "budget", "show or set the privacy budgets of datasets", _EXAMPLE, _budget, has_json=True)
    parser.add_argument("dataset_id", metavar="ID", nargs="?", help="as `list` shows it; without it all are shown")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--epsilon", type=float, metavar="E", help="allow so much, over all experiments")
    which.add_argument("--none", action="store_true", help="remove the budget; what was spent stays spent")
    parser.add_argument("--delta", type=float, metavar="D", help=f"at which epsilon is counted; {DEFAULT_DELTA:g} unless given")


def _budget(args: argparse.Namespace) -> int:
    changes = args.epsilon is not None or args.none
    if args.dataset_id is None and changes:
        raise FedbiomedUserInputError("say whose budget: give the dataset's ID, as `fedbiomed node dataset list` shows it")
    if args.delta is not None and args.epsilon is None:
        raise FedbiomedUserInputError("--delta goes with --epsilon")
    with database(args) as store:
        rows = [row for row in DatasetRegistry(store).all() if args.dataset_id in (None, row["dataset_id"])]
        if args.dataset_id is not None and not rows:
            raise FedbiomedUserInputError(f"this node has no dataset {args.dataset_id!r:.120}; `fedbiomed node dataset list` shows them")
        if changes:
            new = None if args.none else Budget(args.epsilon, DEFAULT_DELTA if args.delta is None else args.delta)
            PrivacyLedger(store).set_budget(args.dataset_id, new)
        shown = [_row(store, row) for row in rows]
    if args.json:
        show_json(shown)
    else:
        show_table(shown, _COLUMNS, "no datasets; add one with `fedbiomed node dataset add`")
    return 0


def _row(store: NodeStore, dataset: dict[str, Any]) -> dict[str, Any]:
    ledger = PrivacyLedger(store)
    budget = ledger.budget(dataset["dataset_id"])
    delta = DEFAULT_DELTA if budget is None else budget.delta
    spent = spent_epsilon(ledger.spent(dataset["dataset_id"]), delta)
    return {
        "dataset_id": dataset["dataset_id"],
        "name": dataset["name"],
        "epsilon_budget": None if budget is None else budget.epsilon,
        "delta": delta,
        "epsilon_spent": round(spent, 4) if math.isfinite(spent) else str(spent),
    }
