"""What a checkpointer is. Deriving from it and defining `_score` is enough.

A file holds the parameters and the score by which they were kept, so both change in one step: a kill at any moment leaves the best
model with its own score. The score is read again by whoever takes the file up, so a restart does not forget it.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing import checkpoint_file
from fedbiomed.common.checkpointing.weights import put_weights, weights_of
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedTypeError
from fedbiomed.common.params import Params

logger = logging.getLogger(__name__)
_KIND = "model"


class Checkpointer(ABC):
    """Keeps one model in one file.

    Args:
        checkpoint_dir: its folder; made when a model is first kept.
        checkpoint_name: a plain file name; `.mpk` is added where it is missing.

    Attributes:
        needs_score: whether it decides by loss and metrics.

    Raises:
        FedbiomedTypeError, FedbiomedValueError: no path, or no plain name.
    """

    needs_score = True

    def __init__(self, checkpoint_dir: str | Path, checkpoint_name: str) -> None:
        self.checkpoint_path = checkpoint_file.checkpoint_path(checkpoint_dir, checkpoint_name)

    @abstractmethod
    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> bool:
        """Keep the model, if it is to be kept.

        Args:
            model: a `Model`, a torch module, or parameters by name.
            loss: of a validation.
            metrics: of a validation, by name.

        Returns:
            Whether it was kept.

        Raises:
            FedbiomedCheckpointError: it cannot be written; what was kept before stays.
        """

    @property
    def description(self) -> str:
        """For messages: by what the file was kept; empty where nothing is."""
        return ""

    def parameters(self) -> dict[str, Any]:
        """Arguments of the constructor, for breakpoints; all JSON."""
        return {"checkpoint_dir": str(self.checkpoint_path.parent), "checkpoint_name": self.checkpoint_path.name}

    def load_checkpoint(self, model: Any = None, path: str | Path | None = None) -> Params:
        """Read the parameters that were kept.

        Args:
            model: a `Model` or torch module that takes them; None: they are only returned.
            path: another checkpoint's file; None: this one's.

        Raises:
            FedbiomedCheckpointError: nothing was kept, the file is damaged, or names or shapes are not the model's, which stays as it was.
            FedbiomedVersionError: another version wrote it.
        """
        place = self.checkpoint_path if path is None else Path(path)
        params: Params = self._read(place)["params"]
        if model is not None:
            put_weights(params, model, str(place))
        return params

    def _read(self, path: Path) -> dict[str, Any]:
        content = checkpoint_file.read(path, _KIND)
        score = content.get("score")
        if not isinstance(content.get("params"), dict) or not (score is None or (type(score) is float and math.isfinite(score))):
            raise FedbiomedCheckpointError(f"{path} is not a checkpoint of a model")
        return content

    def _write(self, model: Any, record: Mapping[str, Any]) -> None:
        checkpoint_file.write(self.checkpoint_path, _KIND, {**record, "params": weights_of(model)})


class ScoreCheckpointer(Checkpointer):
    """Keeps the model of the best score; of equal ones the latest.

    A score that is not finite is never kept and never compared with. A file that is there already goes on: its score counts.

    Args:
        checkpoint_dir, checkpoint_name: see `Checkpointer`.
        checkpoint_score_name: what the score is called in messages.
        maximize: whether a higher score is better.

    Raises:
        FedbiomedTypeError: maximize is no bool, or the score's name no text; else see `Checkpointer`.
    """

    def __init__(
        self, checkpoint_dir: str | Path, checkpoint_name: str, checkpoint_score_name: str | None = None, maximize: bool = False
    ) -> None:
        super().__init__(checkpoint_dir, checkpoint_name)
        if not isinstance(maximize, bool):
            raise FedbiomedTypeError(f"maximize must be True or False, not {maximize!r:.80}")
        if not (checkpoint_score_name is None or isinstance(checkpoint_score_name, str)):
            raise FedbiomedTypeError(f"checkpoint_score_name must be text or None, not {checkpoint_score_name!r:.80}")
        self.maximize = maximize
        self.checkpoint_score_name = checkpoint_score_name or "score"
        self._best: float | None = None
        self._is_read = False

    @property
    def best_score(self) -> float | None:
        """The score of the model that is kept; None: there is none yet.

        Raises:
            FedbiomedCheckpointError: the file is damaged, or was kept by another score.
        """
        if not self._is_read:
            self._best = self._score_on_disk()
            self._is_read = True
        return self._best

    @property
    def description(self) -> str:
        """See `Checkpointer`."""
        return "" if self.best_score is None else f"{self.checkpoint_score_name} {self.best_score:.6g}"

    @abstractmethod
    def _score(self, loss: float, metrics: Mapping[str, Any]) -> float:
        """The score of a model."""

    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> bool:
        """See `Checkpointer`."""
        score, best = self._number(self._score(loss, metrics)), self.best_score
        if not math.isfinite(score):
            logger.warning("%s: a model whose %s is %s is not kept", self.checkpoint_path.name, self.checkpoint_score_name, score)
            return False
        if best is not None and not (score >= best if self.maximize else score <= best):
            return False
        self._write(model, {"score": score, "score_name": self.checkpoint_score_name, "maximize": self.maximize})
        self._best = score
        return True

    def _score_on_disk(self) -> float | None:
        if not self.checkpoint_path.exists():
            return None
        content = self._read(self.checkpoint_path)
        if (content.get("score_name"), content.get("maximize")) != (self.checkpoint_score_name, self.maximize) or content["score"] is None:
            raise FedbiomedCheckpointError(
                f"{self.checkpoint_path} was kept by {content.get('score_name')!r:.80} (maximize={content.get('maximize')!r:.10}), not by "
                f"{self.checkpoint_score_name!r} (maximize={self.maximize}): give another name, or remove the file"
            )
        score: float = content["score"]
        return score

    def _number(self, score: Any) -> float:
        try:
            return float(score)
        except (TypeError, ValueError, OverflowError) as error:
            raise FedbiomedTypeError(
                f"the {self.checkpoint_score_name} of {self.checkpoint_path.name} must be a number, not {score!r:.80}"
            ) from error
