"""What a strategy is. Deriving from it and defining `sample_nodes` is enough."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedStrategyError


class TrainingData(Protocol):
    """What a strategy needs of a `FederatedDataSet`."""

    def data(self) -> dict[str, dict[str, Any]]:
        """Description of the dataset of each node."""

    def node_ids(self) -> list[str]:
        """All nodes."""

    def sample_sizes(self) -> list[int]:
        """Rows of each node, in the order of `node_ids`."""


class Strategy(ABC):
    """Says who is asked in a round, by what each reply counts, and whether there were enough.

    The loop calls `sample_nodes`, `accept` for each reply as it comes, and `check_round` at the close. A strategy of one's own may
    instead override `refine`, which judges all replies of a round at once.

    Args:
        data: the nodes and their datasets; may be set later.
    """

    def __init__(self, data: TrainingData | None = None) -> None:
        self._data = data

    def set_data(self, data: TrainingData | None) -> None:
        """Tell which nodes and datasets there are."""
        self._data = data

    @abstractmethod
    def sample_nodes(self, round_i: int) -> list[str]:
        """Nodes to ask in a round, counted from 0.

        Raises:
            FedbiomedStrategyError: there are not enough.
        """

    def configure(self, round_i: int, args: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """What the nodes are told in a training round; called after `sample_nodes` of that round.

        Args:
            round_i: counted from 0.
            args: small arguments of the aggregator, by node.

        Returns:
            These, with what this strategy adds; here nothing.
        """
        return args

    def accept(self, reply: Mapping[str, Any]) -> float | str:
        """Judge one reply without reading its parameters.

        Args:
            reply: `success`, `msg` and `sample_size` count here.

        Returns:
            By what it counts (its number of samples), or the reason why it does not.
        """
        if not reply.get("success"):
            return str(reply.get("msg") or "the node reported a failure without a reason")
        size = reply.get("sample_size")
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
            return f"it trained on {size!r:.40} samples"
        return float(size)

    def check_round(self, round_i: int, sampled: Sequence[str], answered: Sequence[str], failures: Mapping[str, str]) -> None:
        """At the close of a round: were there enough good replies? Here: from every node that was asked.

        Args:
            round_i: counted from 0.
            sampled: nodes that were asked.
            answered: nodes whose reply was good.
            failures: the reason for each of the others, as far as it is known.

        Raises:
            FedbiomedStrategyError: not enough; names the nodes and reasons.
        """
        self._require(round_i, sampled, answered, failures, needed=len(sampled))

    def refine(
        self, training_replies: Iterable[Mapping[str, Any]], round_i: int
    ) -> tuple[dict[str, Any], dict[str, float], int, dict[str, Any]]:
        """Judge all replies of a round at once.

        Args:
            training_replies: one per node, as in `Responses`.
            round_i: counted from 0.

        Returns:
            By node: parameters, weights (shares of all samples) and encryption factors; and before the last, the number of all samples.

        Raises:
            FedbiomedStrategyError: as `check_round`.
        """
        replies = {str(reply["node_id"]): reply for reply in training_replies}
        verdicts = {node_id: self.accept(reply) for node_id, reply in replies.items()}
        sizes = {node_id: verdict for node_id, verdict in verdicts.items() if not isinstance(verdict, str)}
        failures = {node_id: verdict for node_id, verdict in verdicts.items() if isinstance(verdict, str)}
        self.check_round(round_i, self._expected(round_i, list(replies)), list(sizes), failures)
        total = sum(sizes.values())
        return (
            {node_id: replies[node_id]["params"] for node_id in sizes},
            {node_id: size / total for node_id, size in sizes.items()},
            int(total),
            {node_id: replies[node_id].get("encryption_factor") for node_id in sizes},
        )

    def save_state_breakpoint(self) -> dict[str, Any]:
        """State from which `load_state_breakpoint` goes on: `class`, `module`, `parameters` and `fds`, all JSON."""
        return {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "parameters": self._parameters(),
            "fds": {} if self._data is None else self._data.data(),
        }

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """Take over what `save_state_breakpoint` gave, but for the data set, which is handed in by `set_data`.

        Raises:
            FedbiomedBreakpointError: it is the state of another strategy.
        """
        if state.get("class") != type(self).__name__:
            raise FedbiomedBreakpointError(f"the state of a {state.get('class')!r:.80} cannot be given to a {type(self).__name__}")

    def _parameters(self) -> dict[str, Any]:
        """Settings of this strategy for the breakpoint."""
        return {}

    def _expected(self, round_i: int, replied: list[str]) -> list[str]:
        """Nodes that were asked, as far as this strategy can tell afterwards: who is drawn at random is not known again."""
        return replied

    def _require(self, round_i: int, sampled: Sequence[str], answered: Sequence[str], failures: Mapping[str, str], needed: int) -> None:
        good = [node_id for node_id in sampled if node_id in set(answered)]
        if good and len(good) >= needed:
            return
        missing = [node_id for node_id in sampled if node_id not in set(good)]
        reasons = "; ".join(f"{node_id}: {failures.get(node_id, 'no answer')}" for node_id in missing)
        code = _code(bool(good), all(node_id in failures for node_id in missing))
        enough = "" if not good else f", {needed} are needed"
        raise FedbiomedStrategyError(f"{code.name}: {len(good)} of {len(sampled)} nodes answered round {round_i}{enough}: {reasons}")


def _code(are_some_good: bool, are_all_known: bool) -> ErrorNumbers:  # two facts, one table
    if not are_some_good:
        return ErrorNumbers.FB407
    return ErrorNumbers.FB409 if are_all_known else ErrorNumbers.FB408
