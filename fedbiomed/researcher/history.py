"""What the nodes reported, round by round: as a table, and as JSON for the breakpoint."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import FedbiomedBreakpointError

if TYPE_CHECKING:
    from pandas import DataFrame


logger = logging.getLogger(__name__)
LOSS = "Loss"  # the metric of training, or how its name begins
_REPORTED = ("phase", "metric", "value", "iteration", "epoch")


@dataclass(frozen=True, slots=True)
class Point:
    """One reported value.

    Args:
        round: from 0.
        node, dataset: by whom and on which of its datasets.
        phase: value of a `Phase`.
        metric: name, `Loss` or `ACCURACY` for instance.
        value: may be NaN or infinite, when a training diverges.
        iteration: batches done in this phase.
        epoch: from 1; None when trained by number of updates, or not trained.
    """

    round: int
    node: str
    dataset: str
    phase: str
    metric: str
    value: float
    iteration: int
    epoch: int | None

    @property
    def label(self) -> str:
        """Phase and metric in one name."""
        return f"{self.phase}/{self.metric}"


class History:
    """All reported values of an experiment, in the order of rounds, nodes and reports."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points = list(points)

    def set_round(self, round_: int, points: Iterable[Point]) -> None:
        """Take a round's reports in, instead of those that were there for it (a round after the last one only validates)."""
        new = list(points)
        self._points = [point for point in self._points if point.round < round_] + new

    def points(self) -> list[Point]:
        """Every reported value."""
        return list(self._points)

    def last(self) -> list[Point]:
        """The last value of each round, node, dataset, phase and metric."""
        last = {(p.round, p.node, p.dataset, p.phase, p.metric): p for p in self._points}
        return list(last.values())

    def table(self) -> "DataFrame":
        """Columns round, node, dataset, metric (`PHASE/name`), value: the last value of each round, one per row."""
        rows = [(p.round, p.node, p.dataset, p.label, p.value) for p in self.last()]
        return _frame(rows, {"round": "int64", "node": "object", "dataset": "object", "metric": "object", "value": "float64"})

    def points_table(self) -> "DataFrame":
        """As `table`, but every reported value, with iteration and epoch (missing where there are none)."""
        rows = [(p.round, p.node, p.dataset, p.label, p.iteration, p.epoch, p.value) for p in self._points]
        kinds = {"round": "int64", "node": "object", "dataset": "object", "metric": "object"}
        return _frame(rows, {**kinds, "iteration": "int64", "epoch": "Int64", "value": "float64"})

    def save(self) -> list[list[Any]]:
        """JSON from which `load` makes the same history again; values that JSON has no word for are text."""
        return [
            [p.round, p.node, p.dataset, p.phase, p.metric, p.value if math.isfinite(p.value) else repr(p.value), p.iteration, p.epoch]
            for p in self._points
        ]

    @classmethod
    def load(cls, rows: Any) -> "History":
        """The history that `save` wrote.

        Raises:
            FedbiomedBreakpointError: it is not of that form.
        """
        try:
            return cls(_point(row) for row in rows)
        except (TypeError, ValueError) as error:
            raise FedbiomedBreakpointError(f"the history of the breakpoint is not a list of reports: {error}") from error


def points_of(round_: int, datasets: Mapping[str, str], reported: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Point]:
    """Reports of a round's nodes; one that is malformed is left out, with a line in the log.

    Args:
        round_: from 0.
        datasets: id of the dataset of each node whose reply counted; others are left out.
        reported: reports by node, each with `phase`, `metric`, `value`, `iteration`, `epoch`.
    """
    points = []
    for node_id, dataset_id in datasets.items():
        for report in reported.get(node_id, ()):
            try:
                points.append(_point([round_, node_id, dataset_id, *(report[key] for key in _REPORTED)]))
            except (KeyError, TypeError, ValueError) as error:
                logger.warning("round %d: a report of %s is left out: %s: %s", round_, node_id, type(error).__name__, error)
    return points


def last_losses(points: Iterable[Point]) -> dict[str, float]:
    """The last training loss that each node told."""
    return {point.node: point.value for point in points if point.phase == Phase.TRAINING and point.metric.startswith(LOSS)}


def _point(row: Any) -> Point:
    round_, node, dataset, phase, metric, value, iteration, epoch = row
    return Point(
        round=int(round_),
        node=str(node),
        dataset=str(dataset),
        phase=str(Phase(phase)),
        metric=str(metric),
        value=float(value),
        iteration=int(iteration),
        epoch=None if epoch is None else int(epoch),
    )


def _frame(rows: list[tuple[Any, ...]], kinds: Mapping[str, str]) -> "DataFrame":
    import pandas as pd  # heavy, and not every experiment looks at its history

    columns = {name: pd.Series([row[index] for row in rows], dtype=kind) for index, (name, kind) in enumerate(kinds.items())}
    return pd.DataFrame(columns)
