"""End a local training when its validation loss gets no better, and go back to the best weights."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing import checkpoint_file
from fedbiomed.common.checkpointing.snapshot import copied
from fedbiomed.common.checkpointing.weights import put_weights, weights_of
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedTypeError, FedbiomedValueError
from fedbiomed.common.params import Params

logger = logging.getLogger(__name__)
_KIND = "early_stop"


class EarlyStopper:
    """Watches the validation loss of one training.

    Every `interval_steps` steps the loss is measured. A strictly lower one is a gain: its weights are kept, and the countdown begins
    anew. Any other (NaN too) counts down; at the end of the countdown the training stops and the weights of the best loss come back.

    Args:
        patience: checks without a gain until the training stops, 1 or more; None: never stop, but end with the best weights.
        interval_steps: steps from one check to the next.
        snapshot_dir: keep the best weights there in a file for as long as the training runs; None: in memory.
        name: of that file.

    Attributes:
        best_loss: lowest loss of this training; None: there is none yet.

    Raises:
        FedbiomedTypeError, FedbiomedValueError: wrong arguments.
    """

    def __init__(
        self,
        patience: int | None = 1,
        interval_steps: int = 5,
        snapshot_dir: str | Path | None = None,
        name: str = "early_stop",
    ) -> None:
        self.patience = None if patience is None else _count("patience", patience)
        self.interval_steps = _count("interval_steps", interval_steps)
        self._path = None if snapshot_dir is None else checkpoint_file.checkpoint_path(snapshot_dir, name)
        self._model: Any = None
        self._loss_of: Callable[[], float] | None = None
        self._best: Params | None = None
        self.best_loss: float | None = None
        self._left = self.patience
        self._is_stopped = False

    def begin(self, model: Any, loss_of: Callable[[], float]) -> None:
        """Begin a training; nothing of the one before counts.

        Args:
            model: a torch module or a `Model`.
            loss_of: measures the validation loss of the model as it is then. Whatever it does to a module's training mode is undone.
        """
        weights_of(model)
        self._model, self._loss_of = model, loss_of
        self._best, self.best_loss, self._left, self._is_stopped = None, None, self.patience, False

    def should_stop(self, steps: int) -> bool:
        """Whether the training is to stop after so many steps; the best weights are back then.

        Args:
            steps: done since `begin`, from 1.

        Raises:
            FedbiomedCheckpointError: no training has begun, or the best weights cannot be kept.
        """
        if self._loss_of is None:
            raise FedbiomedCheckpointError("no training has begun: call begin(model, loss_of) first")
        if self._is_stopped or steps % self.interval_steps:
            return self._is_stopped
        loss = self._measured(self._loss_of)
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self._keep()
            self.best_loss, self._left = loss, self.patience
            return False
        if self._left is not None:
            self._left -= 1
            self._is_stopped = self._left <= 0
        if self._is_stopped:
            logger.info(
                "the training stops after %d steps, %s checks without a gain; the best loss is %s", steps, self.patience, self.best_loss
            )
            self._restore()
        return self._is_stopped

    def end(self) -> None:
        """End a training, stopped or not: without patience the best weights come back; what was kept of them goes."""
        if self._loss_of is None:
            return
        try:
            if self.patience is None:
                self._restore()
        finally:
            self._model, self._loss_of, self._best = None, None, None
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def _measured(self, loss_of: Callable[[], float]) -> float:
        layers = list(self._model.modules()) if hasattr(self._model, "modules") else []
        modes = [layer.training for layer in layers]
        try:
            return float(loss_of())
        finally:
            for layer, mode in zip(layers, modes, strict=True):
                layer.training = mode

    def _keep(self) -> None:
        params = weights_of(self._model)
        if self._path is None:
            self._best = copied(params, "model")
        else:
            checkpoint_file.write(self._path, _KIND, {"params": params})

    def _restore(self) -> None:
        if self.best_loss is None:
            logger.warning("no check gave a finite loss: the model stays as it is")
            return
        best = self._best if self._path is None else checkpoint_file.read(self._path, _KIND)["params"]
        put_weights(best or {}, self._model, "the best model of this training")


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FedbiomedTypeError(f"{name} must be an integer of 1 or more, not {value!r:.80}")
    if value < 1:
        raise FedbiomedValueError(f"{name} must be an integer of 1 or more, not {value}")
    return value
