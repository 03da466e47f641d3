"""Keep the latest model."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import Checkpointer


class LatestCheckpointer(Checkpointer):
    """Keeps every model that it is given, in place of the one before."""

    needs_score = False

    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> bool:
        """See `Checkpointer`."""
        self._write(model, {"score": None})
        return True
