"""Which aggregated models to keep, on the side that aggregates."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.checkpointing.checkpointer import Checkpointer
from fedbiomed.common.checkpointing.client_module import Slot, StateKeeper, ask_all, checked_state_keeper, keepers_of, refuse_shared_paths
from fedbiomed.common.exceptions import FedbiomedValueError


class ServerCheckpointAndStateModule:
    """Hands aggregated models to its checkpointers.

    An aggregated model is known before anybody has measured it. Checkpointers that need no score hear of it at once
    (`new_model`), the others when its validation has come (`measured_model`); `maybe_checkpoint` tells all of them.

    Args:
        model_checkpointers: one or several.
        state_checkpointer: keeps states by name; None: there are none.

    Raises:
        FedbiomedTypeError: something is no checkpointer.
        FedbiomedValueError: two checkpointers write to one path.
    """

    def __init__(self, model_checkpointers: Slot = None, state_checkpointer: StateKeeper | None = None) -> None:
        self.model_checkpointers = keepers_of("model_checkpointers", model_checkpointers)
        refuse_shared_paths(self.model_checkpointers)
        self.state_checkpointer = checked_state_keeper(state_checkpointer)

    @property
    def needs_score(self) -> bool:
        """Whether a checkpointer decides by loss and metrics."""
        return any(_needs_score(keeper) for keeper in self.model_checkpointers)

    def new_model(self, model: Any) -> None:
        """Hear of a model that was not measured yet.

        Raises:
            FedbiomedCheckpointError: it cannot be kept.
        """
        ask_all([keeper for keeper in self.model_checkpointers if not _needs_score(keeper)], model, float("nan"), {})

    def measured_model(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> None:
        """Hear how a model was found.

        Raises:
            FedbiomedCheckpointError: it cannot be kept, or a metric was not measured.
        """
        ask_all([keeper for keeper in self.model_checkpointers if _needs_score(keeper)], model, loss, metrics)

    def maybe_checkpoint(self, model: Any, loss: float, metrics: Mapping[str, Any]) -> None:
        """Hand a measured model to all checkpointers, which decide.

        Args:
            model: a `Model`, a torch module, or parameters by name.
            loss: aggregated; 0.0 is a loss like any other.
            metrics: aggregated, by name.
        """
        self.new_model(model)
        self.measured_model(model, loss, metrics)

    def save_state(self, state_checkpoint_name: str, state: Mapping[str, Any]) -> None:
        """Keep a state under a name.

        Raises:
            FedbiomedValueError: there is no state checkpointer.
        """
        self._states().save_checkpoint(state_checkpoint_name, state)

    def maybe_load_state(self, state_checkpoint_name: str) -> dict[str, Any] | None:
        """The state of that name, None where there is none.

        Raises:
            FedbiomedValueError: there is no state checkpointer.
        """
        keeper = self._states()
        return keeper.load_checkpoint(state_checkpoint_name) if keeper.checkpoint_exists(state_checkpoint_name) else None

    def _states(self) -> StateKeeper:
        if self.state_checkpointer is None:
            raise FedbiomedValueError("there is no state checkpointer: give the module one (state_checkpointer=...)")
        return self.state_checkpointer


def _needs_score(keeper: object) -> bool:
    return keeper.needs_score if isinstance(keeper, Checkpointer) else True
