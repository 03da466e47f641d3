"""What the trainings of a node have spent of each dataset's privacy, and how much may be spent: kept in the node's database.

An entry is written when a training has ended well, before its result leaves the node; that the researcher then does not want it does not
bring the privacy back. An order that is carried out again after a restart is one entry. A training that failed gave nothing away.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedDPControllerError, WorkerError
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.common.privacy_cost import DEFAULT_DELTA, PrivacyCost
from fedbiomed.node.store import NodeStore

_GROUPED = "SELECT sample_rate, noise_multiplier, sum(steps) AS steps FROM privacy_spent WHERE dataset_id = ?"
_BY_KIND = "GROUP BY sample_rate, noise_multiplier ORDER BY 1, 2"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much all experiments together may spend of one dataset.

    Args:
        epsilon: above 0.
        delta: at which it is counted, between 0 and 1.

    Raises:
        FedbiomedDPControllerError: they are not.
    """

    epsilon: float
    delta: float = DEFAULT_DELTA

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf") or not 0 < self.delta < 1:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: a budget has an epsilon above 0 and a delta between 0 and 1, not {self.epsilon}, {self.delta}"
            )


class PrivacyLedger:
    """Entries and budgets, by dataset.

    Args:
        store: the node's database.
        now: seconds since 1970.
    """

    def __init__(self, store: NodeStore, *, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now

    def budget(self, dataset_id: str) -> Budget | None:
        """That of a dataset, None where its operator set none."""
        with self._store.transaction() as connection:
            row = connection.execute("SELECT epsilon, delta FROM privacy_budgets WHERE dataset_id = ?", (dataset_id,)).fetchone()
        return None if row is None else Budget(row["epsilon"], row["delta"])

    def set_budget(self, dataset_id: str, budget: Budget | None) -> None:
        """Set, or with None remove, a dataset's budget; what was spent stays spent."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM privacy_budgets WHERE dataset_id = ?", (dataset_id,))
            if budget is not None:
                connection.execute("INSERT INTO privacy_budgets VALUES (?, ?, ?)", (dataset_id, budget.epsilon, budget.delta))

    def spent(self, dataset_id: str, job_id: str | None = None) -> list[PrivacyCost]:
        """What was spent of a dataset, by one experiment's job or by all."""
        which, values = (" ", (dataset_id,)) if job_id is None else (" AND job_id = ? ", (dataset_id, job_id))
        with self._store.transaction() as connection:
            rows = connection.execute(_GROUPED + which + _BY_KIND, values).fetchall()
        return [PrivacyCost(sample_rate=row[0], noise_multiplier=row[1], steps=row[2]) for row in rows]

    def require_private(self, request: TrainRequest) -> None:
        """Let a dataset with a budget be trained on with differential privacy only.

        Raises:
            FedbiomedDPControllerError: the order has no `dp_args`.
        """
        if request.training and not request.training_args.get("dp_args") and self.budget(request.dataset_id) is not None:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: the operator of this node set a privacy budget for dataset {request.dataset_id}: it is "
                "trained on with differential privacy only; give dp_args with the training arguments"
            )

    def statement(self, request: TrainRequest) -> dict[str, Any]:
        """What the training process must know to keep to the budgets; nothing for an order without differential privacy."""
        if not request.training or not request.training_args.get("dp_args"):
            return {}
        budget = self.budget(request.dataset_id)
        return {
            "job": _as_lists(self.spent(request.dataset_id, request.job_id)),
            "dataset": [] if budget is None else _as_lists(self.spent(request.dataset_id)),
            "budget": None if budget is None else [budget.epsilon, budget.delta],
        }

    def record(self, request: TrainRequest, told: Mapping[str, Any] | None) -> None:
        """Enter what a training has cost.

        Args:
            request: the order.
            told: what the training process said of it: `sample_rate`, `noise_multiplier`, `steps`.

        Raises:
            WorkerError: it was a training with differential privacy, and nothing was said.
        """
        if not request.training or not request.training_args.get("dp_args"):
            return
        if told is None:
            raise WorkerError("FB314: the training process did not say what the training cost in privacy")
        values = (told["sample_rate"], told["noise_multiplier"], told["steps"])
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO privacy_spent VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (request.request_id, request.dataset_id, request.job_id, request.round, *values, self._now()),
            )


def _as_lists(costs: list[PrivacyCost]) -> list[list[float]]:
    return [[cost.sample_rate, cost.noise_multiplier, cost.steps] for cost in costs]
