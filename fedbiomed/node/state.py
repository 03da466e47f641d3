"""What a node keeps from one round of a job for the next.

Each training round makes a state with an id of its own; the researcher names the former one in its next order. In this version a state
holds no more than its row (optimizers with a state come later), so rows are kept for long: an experiment may go on from an old breakpoint.
"""

import time
import uuid
from collections.abc import Callable

from fedbiomed.common.exceptions import FedbiomedNodeStateManagerError
from fedbiomed.node.store import NodeStore

_KEPT_S = 180 * 86400.0


def new_state_id() -> str:
    """Draw the id of a state."""
    return f"node_state_{uuid.uuid4()}"


class NodeStates:
    """States in the node's database.

    Args:
        store: the database.
        now: seconds since 1970.
    """

    def __init__(self, store: NodeStore, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    def require(self, state_id: str, job_id: str) -> None:
        """Check that a state of this job is there.

        Raises:
            FedbiomedNodeStateManagerError: it is not.
        """
        with self._store.transaction() as connection:
            row = connection.execute("SELECT job_id FROM node_states WHERE state_id = ?", (state_id,)).fetchone()
        if row is None or row["job_id"] != job_id:
            raise FedbiomedNodeStateManagerError(
                f"FB300: this node has no state {state_id} of job {job_id}; it keeps the states of {_KEPT_S / 86400:.0f} days: "
                "start the experiment anew"
            )

    def save(self, state_id: str, job_id: str, round_: int) -> None:
        """Keep the state of a training round that ended well."""
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO node_states (state_id, job_id, round, created_at) VALUES (?, ?, ?, ?)", (state_id, job_id, round_, self._now())
            )

    def tidy(self) -> None:
        """Forget states of long ago."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM node_states WHERE created_at < ?", (self._now() - _KEPT_S,))
