"""The module that a training asks at its fixed moments: which models to keep, and its state."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from fedbiomed.common.checkpointing.snapshot import restored_attributes, snapshot_attributes
from fedbiomed.common.exceptions import FedbiomedTypeError, FedbiomedValueError


class CheckpointMode(StrEnum):
    """When a model is judged: trained here and not aggregated yet, or aggregated and not trained further yet."""

    PRE_AGGREGATION = "pre_aggregation"
    POST_AGGREGATION = "post_aggregation"


class ModelKeeper(Protocol):
    """What a slot needs of a checkpointer; see `Checkpointer`."""

    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> Any:
        """Keep the model, if it is to be kept."""


class StateKeeper(Protocol):
    """What the module needs of a state checkpointer; see `PerRoundStateCheckpointer`."""

    def save_checkpoint(self, checkpoint_name: str, state: Mapping[str, Any]) -> None:
        """Keep a state."""

    def load_checkpoint(self, checkpoint_name: str) -> dict[str, Any]:
        """The state of that name."""

    def checkpoint_exists(self, checkpoint_name: str) -> bool:
        """Whether there is one."""


Slot = ModelKeeper | Sequence[ModelKeeper] | None


class ClientCheckpointAndStateModule:
    """Hands models to the checkpointers of a moment, and keeps states.

    Args:
        pre_aggregation: one checkpointer or several, for the locally trained model.
        post_aggregation: the same, for the aggregated model before it is trained further.
        state_checkpointer: keeps states; None: there are none.

    Raises:
        FedbiomedTypeError: something in a slot is no checkpointer.
        FedbiomedValueError: two checkpointers write to one path.
    """

    def __init__(self, pre_aggregation: Slot = None, post_aggregation: Slot = None, state_checkpointer: StateKeeper | None = None) -> None:
        self._slots: dict[CheckpointMode, tuple[ModelKeeper, ...]] = {
            CheckpointMode.PRE_AGGREGATION: keepers_of(CheckpointMode.PRE_AGGREGATION, pre_aggregation),
            CheckpointMode.POST_AGGREGATION: keepers_of(CheckpointMode.POST_AGGREGATION, post_aggregation),
        }
        refuse_shared_paths(self.checkpointers())
        self.state_checkpointer = checked_state_keeper(state_checkpointer)

    def checkpointers(self, mode: CheckpointMode | None = None) -> tuple[ModelKeeper, ...]:
        """Those of a moment, or all."""
        if mode is None:
            return tuple(keeper for keepers in self._slots.values() for keeper in keepers)
        return self._slots[_checked_mode(mode)]

    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any], mode: CheckpointMode) -> None:
        """Hand a model to the checkpointers of a moment, which decide; an empty slot does nothing.

        Args:
            model: a `Model`, a torch module, or parameters by name.
            loss: of a validation.
            metrics: of a validation, by name.
            mode: the moment.

        Raises:
            FedbiomedValueError: an unknown mode.
            FedbiomedCheckpointError: a model cannot be kept.
        """
        ask_all(self.checkpointers(_checked_mode(mode)), model, loss, metrics)

    def save_state(self, state_checkpoint_name: str, state: Mapping[str, Any]) -> None:
        """Keep a state under a name, in place of the one before.

        Raises:
            FedbiomedValueError: there is no state checkpointer.
            FedbiomedCheckpointError: it cannot be written.
        """
        self._states().save_checkpoint(state_checkpoint_name, state)

    def maybe_load_state(self, state_checkpoint_name: str) -> dict[str, Any] | None:
        """The state of that name, None where there is none.

        Raises:
            FedbiomedValueError: there is no state checkpointer.
            FedbiomedCheckpointError: the file is damaged.
        """
        keeper = self._states()
        return keeper.load_checkpoint(state_checkpoint_name) if keeper.checkpoint_exists(state_checkpoint_name) else None

    def save_object(self, state_checkpoint_name: str, subject: object, snapshot_attrs: Sequence[str] | None = None) -> None:
        """Keep attributes of an object.

        Args:
            state_checkpoint_name: a fixed name, so that the next process finds it.
            subject: whose attributes they are.
            snapshot_attrs: their names; None: those of the state checkpointer.

        Raises:
            FedbiomedValueError: there is no state checkpointer, or no attribute is named.
            FedbiomedCheckpointError: an attribute is missing or has no state that can be kept.
        """
        self.save_state(state_checkpoint_name, snapshot_attributes(subject, self._attributes(snapshot_attrs)))

    def maybe_load_object(self, state_checkpoint_name: str, subject: object, snapshot_attrs: Sequence[str] | None = None) -> bool:
        """Give an object the attributes that `save_object` kept; returns False, and changes nothing, where there are none.

        Raises:
            FedbiomedValueError: there is no state checkpointer, or no attribute is named.
            FedbiomedCheckpointError: what was kept does not fit to the object, which stays as it was.
        """
        names = self._attributes(snapshot_attrs)
        state = self.maybe_load_state(state_checkpoint_name)
        if state is None:
            return False
        restored_attributes(subject, names, state)
        return True

    def _states(self) -> StateKeeper:
        if self.state_checkpointer is None:
            raise FedbiomedValueError("there is no state checkpointer: give the module one (state_checkpointer=...)")
        return self.state_checkpointer

    def _attributes(self, names: Sequence[str] | None) -> tuple[str, ...]:
        chosen = tuple(getattr(self._states(), "snapshot_attrs", ()) if names is None else names)
        if not chosen:
            raise FedbiomedValueError("no attribute is named: give snapshot_attrs here or to the state checkpointer")
        return chosen


def ask_all(keepers: Sequence[ModelKeeper], model: Any, loss: float, metrics: Mapping[str, Any]) -> None:
    """Hand a model to each checkpointer; where one fails the others are asked all the same, then the first error is raised."""
    errors = []
    for keeper in keepers:
        try:
            keeper.maybe_checkpoint(model, loss, metrics)
        except Exception as error:  # noqa: BLE001  a score_fn, which is the user's own code, may raise anything; raised below
            errors.append(error)
    if errors:
        raise errors[0]


def keepers_of(place: str, given: Slot) -> tuple[ModelKeeper, ...]:
    """The checkpointers of a slot.

    Raises:
        FedbiomedTypeError: one of them is none.
    """
    keepers: tuple[Any, ...] = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    for keeper in keepers:
        if isinstance(keeper, type) or not callable(getattr(keeper, "maybe_checkpoint", None)):
            raise FedbiomedTypeError(f"{place} takes a checkpointer or several, not {keeper!r:.80}")
    return keepers


def refuse_shared_paths(keepers: Sequence[ModelKeeper]) -> None:
    """No two checkpointers may write to one file.

    Raises:
        FedbiomedValueError: two do.
    """
    given = [getattr(keeper, "checkpoint_path", None) for keeper in keepers]
    paths = [Path(path).resolve() for path in given if isinstance(path, str | Path)]
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise FedbiomedValueError(f"two checkpointers write to {', '.join(twice)}: give each a name of its own")


def checked_state_keeper(given: Any) -> StateKeeper | None:
    """A state checkpointer, or None.

    Raises:
        FedbiomedTypeError: something else.
    """
    wanted = ("save_checkpoint", "load_checkpoint", "checkpoint_exists")
    if given is not None and (isinstance(given, type) or not all(callable(getattr(given, name, None)) for name in wanted)):
        raise FedbiomedTypeError(f"state_checkpointer must be a state checkpointer or None, not {given!r:.80}")
    keeper: StateKeeper | None = given
    return keeper


def _checked_mode(mode: Any) -> CheckpointMode:
    try:
        return CheckpointMode(mode)
    except ValueError as error:
        raise FedbiomedValueError(f"the mode of a checkpoint is one of {', '.join(CheckpointMode)}, not {mode!r:.80}") from error
