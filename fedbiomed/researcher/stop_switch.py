"""Ending a run from another thread or from within a callback; see `Experiment.stop`."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Stoppable(Protocol):
    """Something that waits for nodes."""

    def stop(self) -> None:
        """Make the one who waits raise `ExperimentStopped`; may be called from any thread."""


class StopSwitch:
    """Remembers that a stop was asked for, and wakes whoever waits in the round of the moment."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._waiting: Stoppable | None = None

    @property
    def is_asked(self) -> bool:
        """Whether a stop was asked for since `reset`."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask for a stop."""
        self._asked.set()
        waiting = self._waiting
        if waiting is not None:
            waiting.stop()

    def reset(self) -> None:
        """Forget what was asked."""
        self._asked.clear()

    @contextlib.contextmanager
    def wakes(self, waiting: Stoppable) -> Iterator[None]:
        """For the length of the block this is what a stop wakes; one that was asked for before counts, too."""
        self._waiting = waiting
        try:
            if self.is_asked:
                waiting.stop()
            yield
        finally:
            self._waiting = None
