"""Save and restore what the random generators of this process will draw next: Python's, numpy's, and torch's where it is loaded."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedValueError
from fedbiomed.common.serializer import Serializer


def save(path: Path) -> None:
    """Write the states of the global generators (on the CPU) to a file."""
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
    if "torch" in sys.modules:
        import torch

        states["torch"] = torch.get_rng_state()
    Serializer.dump(states, path)


def restore(path: Path) -> None:
    """Set the global generators to the states in a file.

    Raises:
        FedbiomedBreakpointError: the file does not hold such states.
    """
    try:
        states = Serializer.load(path)
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        if "torch" in states:
            import torch

            torch.set_rng_state(states["torch"])
    except (FedbiomedValueError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: {path} does not hold states of random generators: {error}") from error
