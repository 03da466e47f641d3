"""Save and restore what the random generators of this process will draw next, as a file of a breakpoint."""

from pathlib import Path

from fedbiomed.common.checkpointing.random_states import restore_random, snapshot_random
from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedCheckpointError, FedbiomedValueError
from fedbiomed.common.serializer import Serializer


def save(path: Path) -> None:
    """Write the states of the global generators to a file."""
    Serializer.dump(snapshot_random(), path)


def restore(path: Path) -> None:
    """Set the global generators to the states in a file.

    Raises:
        FedbiomedBreakpointError: the file does not hold such states.
    """
    try:
        restore_random(Serializer.load(path))
    except (FedbiomedValueError, FedbiomedCheckpointError, OSError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: {path} does not hold states of random generators: {error}") from error
