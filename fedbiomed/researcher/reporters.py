"""Files that follow an experiment round by round, for other tools: `exp.monitor().add_reporter(JsonReporter("metrics.json"))`.

A file is written anew after each round, beside its place and then renamed: whatever ends the process, it holds all rounds that were done.
It tells less than `monitor.csv` and `monitor.json`, which are always there: the last value of each round, and the mean over those who
reported.
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedbiomed.common.files import write_whole
from fedbiomed.common.metric_aggregation import uniform_metrics
from fedbiomed.researcher.monitor import MetricStore

MEAN = "mean"
_COLUMNS = ("round", "node", "phase", "metric", "value")


class JsonReporter:
    """Writes `{"run_id": ..., "rounds": {"1": {node or "mean": {phase: {metric: value}}}}}`; what is no finite number is text.

    Args:
        path: of the file; its folder is made.
        run_id: stands in the file.
    """

    def __init__(self, path: str | Path, run_id: str | None = None) -> None:
        self.path, self.run_id = Path(path), run_id

    def report(self, store: MetricStore) -> None:
        """Write all rounds.

        Raises:
            OSError: the disk refuses it; the file is as before.
        """
        rounds: dict[str, Any] = {}
        for round_, node, phase, metric, value in _summary(store):
            told = value if math.isfinite(value) else repr(value)
            rounds.setdefault(str(round_), {}).setdefault(node, {}).setdefault(phase, {})[metric] = told
        _write(self.path, json.dumps({"run_id": self.run_id, "rounds": rounds}, allow_nan=False, indent=1))


class CsvReporter:
    """Writes the columns round, node (one of them is called `mean`), phase, metric and value.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def report(self, store: MetricStore) -> None:
        """Write all rounds.

        Raises:
            OSError: the disk refuses it; the file is as before.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *_summary(store)])
        _write(self.path, text.getvalue())


def _summary(store: MetricStore) -> Iterator[tuple[int, str, str, str, float]]:
    """By round: the last value of each node, phase and metric, then the means."""
    last = {
        (round_, node, phase, metric): float(entry["values"][-1])
        for node, phases in store.items()
        for phase, metrics in phases.items()
        for metric, rounds in metrics.items()
        for round_, entry in rounds.items()
    }
    for wanted in sorted({key[0] for key in last}):
        told: dict[str, list[tuple[int, dict[str, float]]]] = {}
        for (round_, node, phase, metric), value in last.items():
            if round_ == wanted:
                yield round_, node, phase, metric, value
                told.setdefault(phase, []).append((1, {metric: value}))
        for phase, results in told.items():
            for metric, value in uniform_metrics(results).items():
                yield wanted, MEAN, phase, metric, value


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
