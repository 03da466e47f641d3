"""`NodeStateAgent`: which state each node kept in the round before, so that the next order can name it."""

from collections.abc import Iterable, Mapping
from typing import Any

from fedbiomed.common.exceptions import FedbiomedNodeStateAgentError

_KEY = "collection_state_ids"


class NodeStateAgent:
    """Keeps the last `state_id` of each node, None for a node that has none yet.

    Args:
        node_ids: the nodes of the data set.
    """

    def __init__(self, node_ids: Iterable[str] = ()) -> None:
        self._states: dict[str, str | None] = dict.fromkeys(node_ids)

    def get_last_node_states(self) -> dict[str, str | None]:
        """`{node_id: state_id or None}`, a copy."""
        return dict(self._states)

    def update_node_states(self, node_ids: Iterable[str], replies: Iterable[Mapping[str, Any]] = ()) -> None:
        """Take over a changed list of nodes, and what they replied.

        A node that is new begins without a state. A node that is not listed keeps what it had: it may be sampled again.

        Args:
            node_ids: the nodes of this round.
            replies: after a round, with `node_id` and `state_id`; a `state_id` of None (validation only) changes nothing.

        Raises:
            FedbiomedNodeStateAgentError: a reply lacks one of the two, or comes from a node that was not asked.
        """
        states = {**dict.fromkeys(node_ids), **self._states}
        for reply in replies:
            if "node_id" not in reply or "state_id" not in reply:
                raise FedbiomedNodeStateAgentError(f"a reply without node_id or state_id: it has {sorted(reply)}")
            if reply["node_id"] not in states:
                raise FedbiomedNodeStateAgentError(f"a reply of {reply['node_id']!r:.80}, which is none of {sorted(states)}")
            if reply["state_id"] is not None:
                states[reply["node_id"]] = reply["state_id"]
        self._states = states

    def put(self, states: Mapping[str, str | None]) -> None:
        """Put these states in the place of those of their nodes; None where a node has none."""
        self._states = {**self._states, **states}

    def save_state_breakpoint(self) -> dict[str, Any]:
        """`{"collection_state_ids": {node_id: state_id or None}}`."""
        return {_KEY: self.get_last_node_states()}

    def load_state_breakpoint(self, saved_state: Mapping[str, Any]) -> None:
        """Take over what `save_state_breakpoint` gave.

        Raises:
            FedbiomedNodeStateAgentError: not of that form.
        """
        states = saved_state.get(_KEY)
        if not isinstance(states, Mapping):
            raise FedbiomedNodeStateAgentError(f"the saved node states have no {_KEY!r}: {sorted(saved_state)}")
        self._states = dict(states)
