"""`exp.monitor()`: what the nodes reported, by node, phase, metric and round; kept as files beside the experiment's others.

Values come with a node's reply to an order of this experiment's job, so those of other experiments never mix in, and an order that was
sent twice is answered, and counted, once.
"""

import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from fedbiomed.common.constants import Phase
from fedbiomed.common.files import write_whole
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.tensorboard import EventFiles, Scalar

logger = logging.getLogger(__name__)

CSV_FILE, JSON_FILE = "monitor.csv", "monitor.json"
_NAMES = {
    Phase.TRAINING: "training",
    Phase.TEST_GLOBAL: "testing_global_updates",
    Phase.TEST_LOCAL: "testing_local_updates",
}
_PHASES = {name: phase for phase, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One value of the store.

    Args:
        node, phase, metric, round: where it stands in the store.
        iteration: batches of this round up to it, over all epochs.
        step: batches up to it, over all rounds.
        value: may be NaN or infinite.
    """

    node: str
    phase: str
    metric: str
    round: int
    iteration: int
    step: int
    value: float


class MetricStore(dict[str, Any]):
    """By node, then `training`, `testing_global_updates` or `testing_local_updates`, then metric, then round counted from 1.

    At the end stand `iterations` (batches of the round, counted on over its epochs) and `values`, lists of equal length.
    """

    def set_round(self, round_: int, points: Iterable[Point]) -> None:
        """Take a round's reports in, instead of those that were there for it and for later ones.

        Args:
            round_: from 0.
            points: of that round; one that was told twice counts once, as it was told last.
        """
        self._cut(round_ + 1)
        told: dict[tuple[str, Phase, str], dict[tuple[int, int], float]] = {}
        for point in points:
            series = told.setdefault((point.node, Phase(point.phase), point.metric), {})
            series[(point.epoch or 1, point.iteration)] = point.value
        for (node, phase, metric), series in told.items():
            phases = self.setdefault(node, {name: {} for name in _NAMES.values()})
            phases[_NAMES[phase]].setdefault(metric, {})[round_ + 1] = _entry(series)

    def rows(self, round_: int) -> Iterator[Row]:
        """All values of one round, counted from 1."""
        for node, phases in self.items():
            for phase, metrics in phases.items():
                for metric, rounds in metrics.items():
                    if round_ not in rounds:
                        continue
                    before = sum(entry["iterations"][-1] for earlier, entry in rounds.items() if earlier < round_)
                    for iteration, value in zip(rounds[round_]["iterations"], rounds[round_]["values"], strict=True):
                        yield Row(node, phase, metric, round_, iteration, before + iteration, value)

    def _cut(self, first: int) -> None:
        for phases in self.values():
            for metrics in phases.values():
                for metric, rounds in list(metrics.items()):
                    for round_ in [round_ for round_ in rounds if round_ >= first]:
                        del rounds[round_]
                    if not rounds:
                        del metrics[metric]


class Reporter(Protocol):
    """Hears of all values after each round; see `reporters.py`."""

    def report(self, store: MetricStore) -> None:
        """Take the values of all rounds so far, which must not be changed.

        Raises:
            OSError: they cannot be written; the experiment goes on, and its log says so.
        """


class Monitor:
    """The values that the nodes of an experiment have reported.

    Args:
        event_files: where TensorBoard looks; None for nowhere.
    """

    def __init__(self, event_files: EventFiles | None = None) -> None:
        self._metric_store = MetricStore()  # under the name that notebooks use
        self._event_files = event_files
        self._lines: dict[int, str] = {}
        self._restored: list[int] = []
        self._reporters: list[Reporter] = []

    def add_reporter(self, reporter: Reporter) -> None:
        """Let one more reporter hear of each round from now on, and of the rounds before it too."""
        self._reporters = [*self._reporters, reporter]

    def restore(self, points: Iterable[Point]) -> None:
        """Take the values of an experiment that goes on, instead of all that were there.

        Making an experiment removed the earlier event files, so these rounds are written for TensorBoard before the next one is.
        """
        by_round: dict[int, list[Point]] = {}
        for point in points:
            by_round.setdefault(point.round, []).append(point)
        self._take(0, ())
        for round_ in sorted(by_round):
            self._take(round_, by_round[round_])
        self._restored = sorted(by_round)

    def set_round(self, round_: int, points: Iterable[Point], folder: Path, *, tensorboard: bool = False) -> None:
        """Take a round's values, counted from 0, and write the files anew; a disk that refuses them does not end an experiment.

        Args:
            round_, points: as for `MetricStore.set_round`.
            folder: the experiment's, for `monitor.csv` and `monitor.json`.
            tensorboard: write for TensorBoard too.
        """
        self._take(round_, points)
        try:
            self._save(folder)
            if tensorboard:
                self._show([*(earlier for earlier in self._restored if earlier < round_), round_])
                self._restored = []
        except OSError as error:
            logger.error("round %d: cannot write the monitor's files: %s", round_ + 1, error)
        for reporter in self._reporters:
            try:
                reporter.report(self._metric_store)
            except OSError as error:
                logger.error("round %d: %s cannot write: %s", round_ + 1, type(reporter).__name__, error)

    def _take(self, round_: int, points: Iterable[Point]) -> None:
        self._metric_store.set_round(round_, points)
        self._lines = {known: lines for known, lines in self._lines.items() if known <= round_}
        if lines := _csv(self._metric_store.rows(round_ + 1)):
            self._lines[round_ + 1] = lines

    def _save(self, folder: Path) -> None:
        if not self._lines and not (folder / CSV_FILE).exists():
            return  # nothing was ever reported
        head = ",".join(field.name for field in fields(Row)) + "\n"
        write_whole(folder / CSV_FILE, (head + "".join(self._lines.values())).encode())
        write_whole(folder / JSON_FILE, json.dumps(_writable(self._metric_store), allow_nan=False).encode())

    def _show(self, rounds: Iterable[int]) -> None:
        if self._event_files is None:
            return
        for round_ in rounds:
            rows = self._metric_store.rows(round_ + 1)
            self._event_files.write(Scalar(row.node, f"{_PHASES[row.phase]}/{row.metric}", row.step, row.value) for row in rows)


def _entry(series: dict[tuple[int, int], float]) -> dict[str, list[Any]]:
    """The last batch of a round is always reported: its iteration is the number of batches of an epoch."""
    per_epoch = max(iteration for _, iteration in series)
    ordered = sorted(series.items())
    return {
        "iterations": [(epoch - 1) * per_epoch + iteration for (epoch, iteration), _ in ordered],
        "values": [value for _, value in ordered],
    }


def _csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(astuple(row) for row in rows)
    return text.getvalue()


def _writable(value: Any) -> Any:
    """The store as JSON has it; a value that JSON has no word for is text, as in a breakpoint."""
    if isinstance(value, dict):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if math.isfinite(item) else repr(item) for item in value]
    return value
