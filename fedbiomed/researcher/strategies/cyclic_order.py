"""One node in each round, every node once in a cycle."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.researcher.strategies.strategy import Strategy, TrainingData


class CyclicOrder(Strategy):
    """Asks one node in each round: of n nodes, round i asks the one at place `i % n` in the order of cycle `i // n`
    (Chang et al. 2018, doi:10.1093/jamia/ocy017). Exchanged: nothing of its own. Stays on the nodes: data.

    Args:
        data: the nodes and their datasets; may be set later.
        order: all nodes, each once: the order of every cycle.
        seed: 0 or more: each cycle has an order of its own, a permutation made from both. Without order and seed, a seed is drawn.

    Attributes:
        order, seed: that are used; one of them is None.

    Raises:
        FedbiomedUserInputError: both are given, the order is no list of different ids, or the seed no integer of 0 or more.
    """

    def __init__(self, data: TrainingData | None = None, order: Sequence[str] | None = None, seed: int | None = None) -> None:
        super().__init__(data)
        if order is not None and seed is not None:
            raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: CyclicOrder takes an order or a seed, not both")
        self.order = None if order is None else _checked_order(order)
        self.seed = None if order is not None else _checked_seed(secrets.randbits(32) if seed is None else seed)

    def cycle_order(self, cycle: int) -> list[str]:
        """All nodes, in the order in which a cycle, counted from 0, asks them.

        Raises:
            FedbiomedStrategyError: there is no data set, it has no nodes, or others than the given order.
        """
        nodes = [] if self._data is None else sorted(self._data.node_ids())
        if not nodes or (self.order is not None and sorted(self.order) != nodes):
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB402.value}: the order of a cycle names each node of the data set once; the order is {self.order}, "
                f"the nodes are {nodes}; give CyclicOrder(order=...) these nodes, or a seed"
            )
        if self.order is not None:
            return list(self.order)
        return [nodes[place] for place in np.random.default_rng([self.seed or 0, cycle]).permutation(len(nodes))]

    def sample_nodes(self, round_i: int) -> list[str]:
        """The one node whose turn it is.

        Raises:
            FedbiomedStrategyError: as `cycle_order`.
        """
        count = len(self.cycle_order(0))
        return [self.cycle_order(round_i // count)[round_i % count]]

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """Take over order and seed; the data set is handed in by `set_data`.

        Raises:
            FedbiomedBreakpointError: it is the state of another strategy, or malformed.
        """
        super().load_state_breakpoint(state)
        try:
            fresh = CyclicOrder(None, **state["parameters"])
        except (KeyError, TypeError, FedbiomedUserInputError) as error:
            raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: the state of CyclicOrder is malformed: {error!r:.200}") from error
        self.order, self.seed = fresh.order, fresh.seed

    def _parameters(self) -> dict[str, Any]:
        return {"order": self.order, "seed": self.seed}


def _checked_order(order: Any) -> list[str]:
    nodes = list(order) if isinstance(order, list | tuple) else []
    if not nodes or not all(isinstance(node_id, str) for node_id in nodes) or len(set(nodes)) < len(nodes):
        raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: order must be a list of different node ids, not {order!r:.200}")
    return nodes


def _checked_seed(seed: Any) -> int:
    if type(seed) is not int or seed < 0:
        raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: seed must be an integer of 0 or more, not {seed!r:.80}")
    return seed
