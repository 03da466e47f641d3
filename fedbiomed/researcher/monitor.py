"""`exp.monitor()`: the reported values under the names that notebooks know."""

from typing import Any

from fedbiomed.common.constants import Phase
from fedbiomed.researcher.history import History

_NAMES = {
    Phase.TRAINING: "training",
    Phase.TEST_GLOBAL: "testing_global_updates",
    Phase.TEST_LOCAL: "testing_local_updates",
}


class MetricStore(dict[str, Any]):
    """By node, then `training`, `testing_global_updates` or `testing_local_updates`, then metric, then round counted from 1.

    At the end stand `iterations` and `values`, lists of equal length.
    """


class Monitor:
    """Looks at the values that the nodes of an experiment have reported.

    Args:
        history: of the experiment.
    """

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def _metric_store(self) -> MetricStore:
        """All values so far; under the name that notebooks use."""
        store = MetricStore()
        for point in self._history.points():
            phases = store.setdefault(point.node, {name: {} for name in _NAMES.values()})
            rounds = phases[_NAMES[Phase(point.phase)]].setdefault(point.metric, {})
            reports = rounds.setdefault(point.round + 1, {"iterations": [], "values": []})
            reports["iterations"].append(point.iteration)
            reports["values"].append(point.value)
        return store
