"""States of whatever has one, by name, in files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing import checkpoint_file
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedTypeError

_KIND = "state"


class PerRoundStateCheckpointer:
    """Keeps states by name, one file each, in place of the one before.

    Args:
        checkpoint_dir: the folder; made when a state is first kept.
        snapshot_attrs: names of the attributes of an object that belong to its state, for saving by object.

    Raises:
        FedbiomedTypeError: no path, or no names of attributes.
    """

    def __init__(self, checkpoint_dir: str | Path, snapshot_attrs: Sequence[str] = ()) -> None:
        self.checkpoint_dir = checkpoint_file.checkpoint_path(checkpoint_dir, "state").parent
        if isinstance(snapshot_attrs, str) or not all(isinstance(name, str) and name.isidentifier() for name in snapshot_attrs):
            raise FedbiomedTypeError(f"snapshot_attrs must be a list of names of attributes, not {snapshot_attrs!r:.120}")
        self.snapshot_attrs = tuple(snapshot_attrs)

    def save_checkpoint(self, checkpoint_name: str, state: Mapping[str, Any]) -> None:
        """Keep a state.

        Args:
            checkpoint_name: a plain file name.
            state: what the Serializer carries.

        Raises:
            FedbiomedTypeError: it is no dict.
            FedbiomedCheckpointError: it cannot be written; the one before stays.
        """
        if not isinstance(state, Mapping):
            raise FedbiomedTypeError(f"a state is a dict, not a {type(state).__name__}")
        checkpoint_file.write(self._path(checkpoint_name), _KIND, {"state": dict(state)})

    def load_checkpoint(self, checkpoint_name: str) -> dict[str, Any]:
        """The state of that name.

        Raises:
            FedbiomedCheckpointError: there is none, or the file is damaged.
            FedbiomedVersionError: another version wrote it.
        """
        path = self._path(checkpoint_name)
        state = checkpoint_file.read(path, _KIND).get("state")
        if not isinstance(state, dict):
            raise FedbiomedCheckpointError(f"{path} holds no state")
        return state

    def checkpoint_exists(self, checkpoint_name: str) -> bool:
        """Whether there is a state of that name."""
        return self._path(checkpoint_name).is_file()

    def _path(self, checkpoint_name: str) -> Path:
        return checkpoint_file.checkpoint_path(self.checkpoint_dir, checkpoint_name)
