"""What a round keeps on the node because the plan's `checkpointing` asks for it. Runs in the training process.

States are kept by round: an order that is carried out again, or an experiment that goes on from an earlier breakpoint, begins with the
state before that round and not with its own. The last ones of a job are kept.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import Checkpointer
from fedbiomed.common.checkpointing.client_module import CheckpointMode, ClientCheckpointAndStateModule
from fedbiomed.common.checkpointing.snapshot import restored_attributes, snapshot_attributes
from fedbiomed.common.checkpointing.state_checkpointer import PerRoundStateCheckpointer
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan, HistoryMonitor
from fedbiomed.common.training_plans.user_code import call_user

logger = logging.getLogger(__name__)
_KEPT_STATES = 20
_STATE = re.compile(r"state_round_(\d{6,})\.mpk")


class RoundCheckpoints:
    """The checkpoint module of one round's plan; without one, every method does nothing.

    Args:
        plan: built, its `checkpoint_dir` not set yet.
        folder: the node's, for this job; None: the node gives none.
        round_: from 0.

    Raises:
        FedbiomedTrainingPlanError: the hook gives something else, or a file of it would lie elsewhere.
    """

    def __init__(self, plan: BaseTrainingPlan, folder: str | None, round_: int) -> None:
        self._plan = plan
        self._round = round_
        self._folder = None if folder is None else Path(folder).resolve()
        plan.checkpoint_dir = folder
        self._module = self._from_hook() if self._folder is not None else None

    def needs(self, mode: CheckpointMode) -> bool:
        """Whether a model is to be judged at this moment; nothing has been aggregated before the first round."""
        if self._module is None or (mode is CheckpointMode.POST_AGGREGATION and not self._round):
            return False
        return bool(self._module.checkpointers(mode))

    def needs_score(self, mode: CheckpointMode) -> bool:
        """Whether that takes a validation."""
        return self.needs(mode) and self._module is not None and any(_needs_score(keeper) for keeper in self._module.checkpointers(mode))

    def judge(self, mode: CheckpointMode, metrics: Mapping[str, float]) -> list[str]:
        """Hand the plan's model to the checkpointers of a moment.

        Args:
            mode: the moment.
            metrics: of the validation of this model; empty where there was none.

        Returns:
            For users: what was kept, and what could not be.
        """
        if self._module is None or not self.needs(mode):
            return []
        loss, remarks = self._loss() if self.needs_score(mode) else (math.nan, [])
        before = [_stamp(keeper) for keeper in self._module.checkpointers(mode)]
        try:
            self._module.maybe_checkpoint(self._plan.training_state().model, loss, dict(metrics), mode)
        except Exception as error:  # a score_fn is the plan's own code; what fails here does not undo a training
            logger.warning("a checkpoint failed", exc_info=True)
            remarks.append(f"FB314: {mode} checkpoint: {error if isinstance(error, FedbiomedError) else type(error).__name__}")
        kept = [keeper for keeper, stamp in zip(self._module.checkpointers(mode), before, strict=True) if _stamp(keeper) != stamp]
        return remarks + [f"kept {_describe(keeper)} ({mode})" for keeper in kept]

    def load_state(self) -> list[str]:
        """Give the plan the state of the latest round before this one, if there is one; returns remarks for users."""
        if self._module is None or self._module.state_checkpointer is None:
            return []
        number = max((number for number in self._state_rounds() if number < self._round), default=None)
        if number is None:
            return []
        try:
            state = self._module.maybe_load_state(_state_name(number)) or {}
            names, training = self._attributes(), self._plan.training_state()
            before = snapshot_attributes(self._plan, names)
            restored_attributes(self._plan, names, state.get("attributes", {}))
            try:
                training.restore(state.get("training", {}))
            except FedbiomedError:
                restored_attributes(self._plan, names, before)
                raise
            self._plan.take_counters(training.counters)
        except FedbiomedError as error:
            logger.warning("the training begins anew", exc_info=True)
            return [f"FB314: the state of round {number} is not used, the training begins anew: {error}"]
        return []

    def save_state(self) -> list[str]:
        """Keep the plan's state for the next round, and forget old ones; returns remarks for users."""
        if self._module is None or self._module.state_checkpointer is None:
            return []
        try:
            state = {
                "training": self._plan.training_state().snapshot(),
                "attributes": snapshot_attributes(self._plan, self._attributes()),
            }
            self._module.save_state(_state_name(self._round), state)
        except FedbiomedError as error:
            logger.warning("the state cannot be kept", exc_info=True)
            return [f"FB314: the state of this round cannot be kept, the next one begins anew: {error}"]
        for number in sorted(self._state_rounds())[:-_KEPT_STATES]:
            self._state_folder().joinpath(f"{_state_name(number)}.mpk").unlink(missing_ok=True)
        return []

    def _from_hook(self) -> ClientCheckpointAndStateModule | None:
        module = call_user(self._plan, "checkpointing")
        if module is None:
            return None
        if not isinstance(module, ClientCheckpointAndStateModule):
            raise FedbiomedTrainingPlanError(
                f"FB605: checkpointing() must return a ClientCheckpointAndStateModule or None, not {type(module).__name__}"
            )
        for keeper in module.checkpointers():
            if not isinstance(keeper, Checkpointer):
                raise FedbiomedTrainingPlanError(f"FB605: checkpointing() may use Checkpointers only, not a {type(keeper).__name__}")
            self._require_inside(keeper.checkpoint_path)
        if module.state_checkpointer is not None:
            if not isinstance(module.state_checkpointer, PerRoundStateCheckpointer):
                kind = type(module.state_checkpointer).__name__
                raise FedbiomedTrainingPlanError(f"FB605: the state checkpointer must be a PerRoundStateCheckpointer, not a {kind}")
            self._require_inside(module.state_checkpointer.checkpoint_dir / "state")
        return module

    def _require_inside(self, path: Path) -> None:
        if self._folder is None or not path.resolve().is_relative_to(self._folder):
            raise FedbiomedTrainingPlanError(f"FB605: checkpoints lie in self.checkpoint_dir, {path.name} would not: use that folder")

    def _loss(self) -> tuple[float, list[str]]:
        try:
            return float(call_user(self._plan, "validation_loss")), []
        except (FedbiomedError, TypeError, ValueError) as error:  # the hook may be the plan's own and give anything
            return math.nan, [f"FB314: checkpoints are judged without a loss: {error}"]

    def _attributes(self) -> tuple[str, ...]:
        keeper = self._module.state_checkpointer if self._module is not None else None
        return keeper.snapshot_attrs if isinstance(keeper, PerRoundStateCheckpointer) else ()

    def _state_folder(self) -> Path:
        keeper = self._module.state_checkpointer if self._module is not None else None
        return keeper.checkpoint_dir if isinstance(keeper, PerRoundStateCheckpointer) else Path()

    def _state_rounds(self) -> list[int]:
        return [int(found[1]) for path in self._state_folder().glob("state_round_*.mpk") if (found := _STATE.fullmatch(path.name))]


class ValidationMeans:
    """A `history_monitor` that also works out the mean of each value over the samples of one validation.

    Args:
        monitor: hears everything, too.
    """

    def __init__(self, monitor: HistoryMonitor) -> None:
        self._monitor = monitor
        self._sums: dict[str, float] = {}
        self._samples: dict[str, int] = {}

    def add_scalar(self, *, metric: Mapping[str, float], batch_samples: int, **where: Any) -> None:
        """See `HistoryMonitor`."""
        self._monitor.add_scalar(metric=metric, batch_samples=batch_samples, **where)
        for name, value in metric.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * batch_samples
            self._samples[name] = self._samples.get(name, 0) + batch_samples

    def means(self) -> dict[str, float]:
        """Mean over samples of each value, by name."""
        return {name: total / self._samples[name] for name, total in self._sums.items() if self._samples[name]}


def _needs_score(keeper: object) -> bool:
    return not isinstance(keeper, Checkpointer) or keeper.needs_score


def _state_name(round_: int) -> str:
    return f"state_round_{round_:06d}"


def _stamp(keeper: Any) -> tuple[int, int] | None:
    """Which file lies there: each one kept is a new one."""
    try:
        found = keeper.checkpoint_path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _describe(keeper: Any) -> str:
    return f"{keeper.checkpoint_path.name}{f', {keeper.description}' if keeper.description else ''}"
