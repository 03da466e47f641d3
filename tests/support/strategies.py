"""Strategies with which tests reach into the middle of a round."""

from collections.abc import Callable
from typing import Any

from fedbiomed.researcher.strategies import DefaultStrategy


class ActsBeforeReveal(DefaultStrategy):
    """Does something when all masked updates have come and nothing is revealed yet; two nodes are enough."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(min_nodes=2)
        self._act = act

    def check_round(self, *args: Any) -> None:
        """See `Strategy`."""
        super().check_round(*args)
        self._act()
