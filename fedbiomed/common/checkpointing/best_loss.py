"""Keep the model of the lowest loss."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import ScoreCheckpointer


class BestLossCheckpointer(ScoreCheckpointer):
    """Keeps the model of the lowest validation loss.

    Args:
        checkpoint_dir, checkpoint_name: see `Checkpointer`.
    """

    def __init__(self, checkpoint_dir: str | Path, checkpoint_name: str) -> None:
        super().__init__(checkpoint_dir, checkpoint_name, "loss", maximize=False)

    def _score(self, loss: float, metrics: Mapping[str, Any]) -> float:
        return loss
