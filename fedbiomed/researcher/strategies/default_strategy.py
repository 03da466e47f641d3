"""All nodes take part in every round."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.researcher.strategies.strategy import Strategy, TrainingData


class DefaultStrategy(Strategy):
    """Asks all nodes in every round (McMahan et al. 2017, arXiv:1602.05629). Exchanged: nothing of its own. Stays on the nodes: data.

    Args:
        data: the nodes and their datasets; may be set later.
        min_nodes: how many good replies are enough; None: every node must answer well.

    Raises:
        FedbiomedUserInputError: `min_nodes` is not None or an integer of 1 or more.
    """

    def __init__(self, data: TrainingData | None = None, min_nodes: int | None = None) -> None:
        super().__init__(data)
        self.min_nodes = _checked(min_nodes)

    def sample_nodes(self, round_i: int) -> list[str]:
        """All nodes of the data set.

        Raises:
            FedbiomedStrategyError: there is no data set, it has no nodes, or fewer than `min_nodes`.
        """
        nodes = [] if self._data is None else list(self._data.node_ids())
        if len(nodes) < (self.min_nodes or 1):
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB402.value}: round {round_i} needs {self.min_nodes or 1} nodes or more, the data set has {len(nodes)}; "
                "check tags and nodes of the experiment, or lower min_nodes"
            )
        return nodes

    def check_round(self, round_i: int, sampled: Sequence[str], answered: Sequence[str], failures: Mapping[str, str]) -> None:
        """At the close of a round: have all nodes, or `min_nodes` of them, answered well?

        Raises:
            FedbiomedStrategyError: not enough; names the nodes and reasons.
        """
        self._require(round_i, sampled, answered, failures, needed=self.min_nodes or len(sampled))

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """Take over `min_nodes`; the data set is handed in by `set_data`."""
        super().load_state_breakpoint(state)
        self.min_nodes = _checked((state.get("parameters") or {}).get("min_nodes"))

    def _parameters(self) -> dict[str, Any]:
        return {"min_nodes": self.min_nodes}

    def _expected(self, round_i: int, replied: list[str]) -> list[str]:
        return replied if self._data is None else list(self._data.node_ids())


def _checked(min_nodes: Any) -> int | None:
    if min_nodes is not None and (type(min_nodes) is not int or min_nodes < 1):
        raise FedbiomedUserInputError(
            f"{ErrorNumbers.FB414.value}: min_nodes must be None or an integer of 1 or more, not {min_nodes!r:.80}"
        )
    return min_nodes
