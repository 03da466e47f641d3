"""What the random generators of this process will draw next: Python's, numpy's, and torch's where it is loaded."""

import contextlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedCheckpointError

State = dict[str, Any]


def snapshot_random() -> State:
    """States of the global generators; those of GPUs where they were used."""
    states: State = {"python": random.getstate(), "numpy": np.random.get_state()}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random(states: Mapping[str, Any]) -> None:
    """Set the global generators.

    Raises:
        FedbiomedCheckpointError: these are no such states; the generators are as before.
    """
    before = snapshot_random()
    try:
        _set(states)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        _set(before)
        raise FedbiomedCheckpointError(f"these are no states of random generators: {error!s:.300}") from error


@contextlib.contextmanager
def random_kept() -> Iterator[None]:
    """A block that draws random numbers, of which what comes after it does not know: the global generators are as before."""
    before = snapshot_random()
    try:
        yield
    finally:
        _set(before)


def _set(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "torch" in states:
        import torch  # heavy, and only where it was used

        torch.set_rng_state(states["torch"])
        if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
