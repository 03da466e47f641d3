"""FedDG-GA, Zhang et al. 2023 ("Federated Domain Generalization With Generalization Adjustment", CVPR), algorithm 1.

With L_i(x) the loss of node i's test samples, y_i the parameters that node i made in a round and x those that came of that round:

    G_i <- L_i(x) - L_i(y_i)                              generalisation gap
    a_i <- a_i + s_r (G_i - mean G) / max |G - mean G|    then cut to 0 .. 1, and divided by the sum
    x   <- sum_i a_i y_i                                  in the next round

Each node begins with the same a_i. s_r is the step, which falls linearly: (1 - (r - 1) / R) s in the r-th adjustment of R. L_i(x) is
measured before the training of the next round and L_i(y_i) after that of its own, so the first adjustment is made in the second round.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._options import checked_count, checked_number
from fedbiomed.researcher.aggregators._stored import StoredUpdates
from fedbiomed.researcher.aggregators._update_files import UpdateFiles

_ERRORS = (MetricTypes.MEAN_SQUARE_ERROR.name, MetricTypes.MEAN_ABSOLUTE_ERROR.name)


class FedDGGA(StoredUpdates):
    """A mean in which those nodes count for more whose test samples the aggregate fits worse than their own model did (Zhang et al. 2023,
    CVPR).

    Exchanged: parameters, and a validation metric before and after training: the training arguments `test_ratio`, `test_on_global_updates`
    and `test_on_local_updates` are needed. Stays on the nodes: data.

    A node's metric is the mean over the batches of its test samples. A node that misses a round keeps its weight; a new one begins with the
    mean of the others'. The number of samples does not count.

    Args:
        step_size: s, above 0 and below 1.
        rounds: R, over which the step falls to 0; None: it stays.
        metric: name of the metric; None: the only one that is measured.
        maximize: whether a larger value is better; None: known for the metrics of `MetricTypes` and for names that begin with `Loss`.

    Attributes:
        node_weights: a_i by node; they sum to 1.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(
        self, step_size: float = 0.2, rounds: int | None = None, metric: str | None = None, *, maximize: bool | None = None
    ) -> None:
        super().__init__()
        between = "a number above 0 and below 1"
        self.step_size = checked_number("FedDGGA", "step_size", step_size, between, within=(0.0, 1.0), ends="()")
        self.rounds = None if rounds is None else checked_count("FedDGGA", "rounds", rounds, 1)
        if not (metric is None or isinstance(metric, str)) or not (maximize is None or isinstance(maximize, bool)):
            raise FedbiomedAggregatorError(
                f"FB401: metric of FedDGGA must be a name, maximize a bool, not {metric!r:.80} and {maximize!r:.80}"
            )
        self.metric, self.maximize = metric, maximize
        self.node_weights: dict[str, float] = {}
        self._after_training: dict[str, float] = {}
        self._adjustments = 0
        self._losses: dict[str, tuple[float, float]] = {}

    def hear_measures(self, measures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Take each node's losses before and after training out of what it measured.

        Raises:
            AggregationError: a node did not measure both, or it is not clear which metric is meant or which way is better.
        """
        self._losses = {
            node_id: (self._loss(node_id, Phase.TEST_GLOBAL, reports), self._loss(node_id, Phase.TEST_LOCAL, reports))
            for node_id, reports in measures.items()
        }

    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """See `StoredUpdates`.

        Raises:
            AggregationError: a node's metric was not heard, or all nodes of the round have the weight 0.
        """
        nodes = files.nodes
        unheard = [node_id for node_id in nodes if node_id not in self._losses]
        if unheard:
            raise AggregationError(f"FedDGGA was not told what {', '.join(unheard)} measured (hear_measures)")
        weights = _with_new_nodes(self.node_weights, nodes)
        gaps = {node_id: self._losses[node_id][0] - self._after_training[node_id] for node_id in nodes if node_id in self._after_training}
        adjustments = self._adjustments + bool(gaps)
        if gaps:
            weights = adjusted_weights(weights, gaps, self._step(adjustments))
        total = math.fsum(weights[node_id] for node_id in nodes)
        if not total > 0:
            raise AggregationError(f"FedDGGA has no weight left for any node of this round: {', '.join(nodes)}; ask more nodes")
        factors = np.array([weights[node_id] / total for node_id in nodes])
        params = files.by_coordinate(lambda block: np.asarray(factors @ block))
        self.node_weights, self._adjustments = weights, adjustments
        self._after_training = {node_id: self._losses[node_id][1] for node_id in nodes}
        self._losses = {}
        return params

    def state_arrays(self) -> dict[str, Any]:
        """Weights, losses after the last training, and the number of adjustments."""
        if not self.node_weights:
            return {}
        return {"node_weights": self.node_weights, "after_training": self._after_training, "adjustments": self._adjustments}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave."""
        self.node_weights = {node_id: float(value) for node_id, value in state["node_weights"].items()}
        self._after_training = {node_id: float(value) for node_id, value in state["after_training"].items()}
        self._adjustments = int(state["adjustments"])

    def _step(self, adjustment: int) -> float:
        decay = 1.0 if self.rounds is None else max(0.0, 1 - (adjustment - 1) / self.rounds)
        return self.step_size * decay

    def _loss(self, node_id: str, phase: Phase, reports: Sequence[Mapping[str, Any]]) -> float:
        """The mean of a node's metric in one phase, as something to be small."""
        values: dict[str, list[float]] = {}
        for report in reports:
            if report.get("phase") == phase and self.metric in (None, report.get("metric")):
                values.setdefault(str(report.get("metric")), []).append(_number(report.get("value")))
        if len(values) > 1:
            raise AggregationError(f"{node_id} measured {', '.join(sorted(values))}: say by FedDGGA(metric=...) which of them counts")
        name, numbers = next(iter(values.items()), ("", [math.nan]))
        mean = float(np.mean(numbers))
        if not math.isfinite(mean):
            raise AggregationError(
                f"{node_id} told no finite {self.metric or 'metric'} of {phase}: FedDGGA needs the training arguments test_ratio above 0, "
                "test_on_global_updates and test_on_local_updates"
            )
        return -mean if self._is_better_larger(name) else mean

    def _is_better_larger(self, metric: str) -> bool:
        if self.maximize is not None:
            return self.maximize
        if metric.startswith(("Loss", *_ERRORS)):
            return False
        if metric.startswith(tuple(MetricTypes.get_all_metrics())):
            return True
        raise AggregationError(f"FedDGGA does not know whether a larger {metric!r:.80} is better: say so by FedDGGA(maximize=...)")


def adjusted_weights(weights: Mapping[str, float], gaps: Mapping[str, float], step: float) -> dict[str, float]:
    """Weights after one adjustment.

    >>> adjusted_weights({"a": 0.5, "b": 0.5}, {"a": 3.0, "b": 1.0}, 0.25)
    {'a': 0.75, 'b': 0.25}

    Args:
        weights: by node, from 0 to 1.
        gaps: of some of these nodes; the others keep their weights, up to the sum.
        step: by which the weight of the largest deviation moves.

    Returns:
        New weights that sum to 1; the same where all gaps are equal.
    """
    mean = math.fsum(gaps.values()) / len(gaps)
    largest = max(abs(gap - mean) for gap in gaps.values())
    if largest <= 1e-12 * max(abs(gap) for gap in gaps.values()):  # equal, up to rounding
        return dict(weights)
    moved = {
        node_id: min(1.0, max(0.0, weight + step * (gaps[node_id] - mean) / largest)) if node_id in gaps else weight
        for node_id, weight in weights.items()
    }
    total = math.fsum(moved.values())
    return {node_id: weight / total for node_id, weight in moved.items()}


def _with_new_nodes(weights: Mapping[str, float], nodes: Iterable[str]) -> dict[str, float]:
    usual = 1 / len(weights) if weights else 1.0
    joined = {**dict.fromkeys(nodes, usual), **weights}
    total = math.fsum(joined.values())
    return {node_id: weight / total for node_id, weight in joined.items()}


def _number(value: Any) -> float:
    """A reported value: a number, or `nan` or `inf` as text; NaN for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
