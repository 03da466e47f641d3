"""All that a training needs to go on after a restart as if there had been none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing import checkpoint_file
from fedbiomed.common.checkpointing.random_states import restore_random, snapshot_random
from fedbiomed.common.checkpointing.snapshot import restored_attributes, snapshot_attributes
from fedbiomed.common.exceptions import FedbiomedCheckpointError

_KIND = "training"
_PARTS = ("model", "optimizers", "schedulers", "generators", "counters")


class TrainingState:
    """Weights and buffers, optimizers (moments, learning rates and all of their groups), schedulers, counters, random states.

    The best scores of checkpointers are not in it: they stand in the checkpointers' own files, which survive on their own.

    >>> import torch
    >>> net = torch.nn.Linear(2, 1)
    >>> state = TrainingState(model=net, optimizers=torch.optim.Adam(net.parameters()), counters={"total_steps": 12})
    >>> taken = state.snapshot()
    >>> state.counters["total_steps"] = 0
    >>> state.restore(taken)
    >>> state.counters
    {'total_steps': 12}

    Args:
        model: a torch module or a `Model`.
        optimizers: a torch optimizer, or a dict or list of them.
        schedulers: what has `state_dict` and `load_state_dict`: a scheduler, or a dict or list of them.
        counters: numbers by name: steps, epochs; read them here after `restore`.
        generators: torch's or numpy's own generators by name, as that of a data loader.
        with_random: whether the global generators of this process belong to it.
    """

    def __init__(
        self,
        *,
        model: Any = None,
        optimizers: Any = None,
        schedulers: Any = None,
        counters: Mapping[str, int | float] | None = None,
        generators: Mapping[str, Any] | None = None,
        with_random: bool = True,
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.schedulers = schedulers
        self.counters: dict[str, int | float] = dict(counters or {})
        self.generators = dict(generators or {})
        self.with_random = with_random

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything, as values that the Serializer carries.

        Raises:
            FedbiomedCheckpointError: a part has a state that cannot be kept, as the function of a `LambdaLR` that is an object.
        """
        state = snapshot_attributes(self, _PARTS)
        return {**state, "random": snapshot_random()} if self.with_random else state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give all parts what `snapshot` took from parts like them.

        Raises:
            FedbiomedCheckpointError: it does not fit; everything is as before.
        """
        if not isinstance(state, Mapping):
            raise FedbiomedCheckpointError(f"the state of a training is a dict, not a {type(state).__name__}")
        if self.with_random and not isinstance(state.get("random"), Mapping):
            raise FedbiomedCheckpointError("the state has no random states")
        before = snapshot_random()
        if self.with_random:
            restore_random(state["random"])
        try:
            restored_attributes(self, _PARTS, state)
        except BaseException:
            restore_random(before)
            raise

    def save(self, path: str | Path) -> None:
        """Write a snapshot to a file, whole or not at all.

        Raises:
            FedbiomedCheckpointError: it cannot be written.
        """
        checkpoint_file.write(Path(path), _KIND, {"state": self.snapshot()})

    def load(self, path: str | Path) -> None:
        """Restore from a file that `save` wrote.

        Raises:
            FedbiomedCheckpointError: there is none, it is damaged, or it does not fit.
            FedbiomedVersionError: another version wrote it.
        """
        self.restore(checkpoint_file.read(Path(path), _KIND).get("state", {}))
