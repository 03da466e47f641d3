"""Keep the model that a function of one's own finds best."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import ScoreCheckpointer
from fedbiomed.common.exceptions import FedbiomedTypeError


class FunctionCheckpointer(ScoreCheckpointer):
    """Keeps the model of the best `score_fn(loss, metrics)`.

    Args:
        checkpoint_dir, checkpoint_name: see `Checkpointer`.
        score_fn: takes loss and metrics, gives a number.
        checkpoint_score_name: what the score is called; None: the function's name.
        maximize: whether a higher score is better.

    Raises:
        FedbiomedTypeError: score_fn is no function; else see `ScoreCheckpointer`.
    """

    def __init__(
        self,
        checkpoint_dir: str | Path,
        checkpoint_name: str,
        score_fn: Callable[[float, Mapping[str, Any]], float],
        checkpoint_score_name: str | None = None,
        maximize: bool = False,
    ) -> None:
        if not callable(score_fn):
            raise FedbiomedTypeError(f"score_fn must be a function of loss and metrics, not {score_fn!r:.80}")
        name = checkpoint_score_name or getattr(score_fn, "__name__", None)
        super().__init__(checkpoint_dir, checkpoint_name, name, maximize)
        self.score_fn = score_fn

    def parameters(self) -> dict[str, Any]:
        """See `Checkpointer`; without the function."""
        return {**super().parameters(), "checkpoint_score_name": self.checkpoint_score_name, "maximize": self.maximize}

    def _score(self, loss: float, metrics: Mapping[str, Any]) -> float:
        return self.score_fn(loss, metrics)
