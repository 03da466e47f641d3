"""Keep the model of the best value of one metric."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import ScoreCheckpointer
from fedbiomed.common.exceptions import FedbiomedCheckpointKeyError, FedbiomedTypeError


class BestMetricCheckpointer(ScoreCheckpointer):
    """Keeps the model of the best `metrics[prefix + metric]`.

    Args:
        checkpoint_dir, checkpoint_name: see `Checkpointer`.
        metric: its name, `ACCURACY` for instance.
        prefix: what stands before it in the names of the metrics.
        maximize: whether a higher value is better; must be said, for it is wrong for half of all metrics.

    Raises:
        FedbiomedTypeError: metric or prefix is no text; else see `Checkpointer`.
    """

    def __init__(self, checkpoint_dir: str | Path, checkpoint_name: str, metric: str, prefix: str = "", *, maximize: bool) -> None:
        if not isinstance(metric, str) or not metric or not isinstance(prefix, str):
            raise FedbiomedTypeError(f"metric and prefix must be text, not {metric!r:.80} and {prefix!r:.80}")
        super().__init__(checkpoint_dir, checkpoint_name, f"{prefix}{metric}", maximize)
        self.metric, self.prefix = metric, prefix

    def parameters(self) -> dict[str, Any]:
        """See `Checkpointer`."""
        return {**super().parameters(), "metric": self.metric, "prefix": self.prefix, "maximize": self.maximize}

    def _score(self, loss: float, metrics: Mapping[str, Any]) -> float:
        """See `ScoreCheckpointer`.

        Raises:
            FedbiomedCheckpointKeyError: there is no such metric, which is also a KeyError.
        """
        key = f"{self.prefix}{self.metric}"
        if key not in metrics:
            raise FedbiomedCheckpointKeyError(
                f"{self.checkpoint_path.name} is kept by the metric {key!r}, which was not measured; there are {sorted(map(str, metrics))}"
            )
        value: float = metrics[key]
        return value
