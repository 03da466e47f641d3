"""A round's differential privacy: what it costs together with the rounds before it, and whether it may begin. In the training process."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedDPControllerError
from fedbiomed.common.privacy_cost import DEFAULT_DELTA, PrivacyCost, spent_epsilon
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.node.round_monitor import RoundMonitor
from fedbiomed.node.task import RoundTask


class RoundPrivacy:
    """Keeps a round to the budgets of researcher and operator; does nothing where the order has no `dp_args`.

    Args:
        task: with what was spent before, see `PrivacyLedger.statement`.
        arguments: of the training.
    """

    def __init__(self, task: RoundTask, arguments: TrainingArgs) -> None:
        self._task = task
        self._dp_args = arguments.dp_arguments() if task.training else None
        self._is_seeded = arguments["random_seed"] is not None
        self._delta = (self._dp_args or {}).get("delta", DEFAULT_DELTA)

    def watch(self, plan: BaseTrainingPlan) -> None:
        """Have the plan ask before its first step, and tell its noise from that of other rounds and nodes under the same seed."""
        if self._dp_args is not None:
            plan.privacy_guard = self._require_within_budgets
            plan.noise_stream = f"{self._task.node_id}/{self._task.round}"

    def told(self, plan: BaseTrainingPlan, monitor: RoundMonitor) -> dict[str, Any] | None:
        """What the training cost, for the reply, and epsilon for the monitor; None without differential privacy."""
        cost = None if self._dp_args is None else plan.privacy_cost()
        if cost is None:
            return None
        epsilon = spent_epsilon([*self._spent("job"), cost], self._delta)
        monitor.add_epsilon(epsilon, plan.updates_done())
        return {
            "sample_rate": cost.sample_rate,
            "noise_multiplier": cost.noise_multiplier,
            "steps": cost.steps,
            "epsilon": epsilon if math.isfinite(epsilon) else str(epsilon),
            "delta": self._delta,
        }

    def remarks(self, samples: int) -> list[str]:
        """What a researcher must know beside epsilon.

        Args:
            samples: trained on.
        """
        if self._dp_args is None:
            return []
        found = []
        if self._is_seeded:
            found.append(
                "FB616: random_seed makes the noise repeatable: whoever knows the seed can take it away again, epsilon holds against "
                "others only; leave it out for a real training"
            )
        if self._delta * samples >= 1:
            found.append(f"FB616: delta = {self._delta:g} is no protection for {samples} samples: choose one far below {1 / samples:.1g}")
        return found

    def _require_within_budgets(self, cost: PrivacyCost) -> None:
        limit = (self._dp_args or {}).get("epsilon_budget")
        if limit is not None:
            self._require("job", cost, limit, self._delta, "epsilon_budget of dp_args: raise it, or sigma, or train for fewer steps")
        if self._task.privacy.get("budget") is not None:
            epsilon, delta = self._task.privacy["budget"]
            whose = f"the budget that this node's operator set for dataset {self._task.dataset_id}, over all experiments: ask there"
            self._require("dataset", cost, epsilon, delta, whose)

    def _require(self, which: str, cost: PrivacyCost, limit: float, delta: float, whose: str) -> None:
        before = self._spent(which)
        after = spent_epsilon([*before, cost], delta)
        if after > limit:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: round {self._task.round} is not begun: it would bring epsilon from "
                f"{spent_epsilon(before, delta):.4g} to {after:.4g} at delta {delta:g}, above {limit:g}, {whose}"
            )

    def _spent(self, which: str) -> list[PrivacyCost]:
        return list(_costs(self._task.privacy.get(which, ())))


def _costs(rows: Sequence[Sequence[Any]]) -> Iterable[PrivacyCost]:
    return (PrivacyCost(sample_rate=rate, noise_multiplier=noise, steps=steps) for rate, noise, steps in rows)
