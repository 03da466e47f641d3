"""Whose vectors are in the sum: one set per session, round and attempt, named by its hash."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.terms import Terms, Weighting
from fedbiomed.common.security.framing import joined

LEAST_OF_TWO_WEIGHTINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorSet:
    """The nodes whose vectors came whole before the researcher closed the attempt.

    Args:
        sid: SID' of the session.
        round, attempt: of the experiment; both count from 0.
        nodes: ids, sorted by their bytes.
    """

    sid: bytes
    round: int
    attempt: int
    nodes: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it: what nodes sign."""
        return hashlib.sha256(joined("fbm-secagg-survivors-v1", self.sid, self.round, self.attempt, *self.nodes)).digest()

    def check(self, terms: Terms, weightings: Collection[Weighting] = ()) -> None:
        """Check that it can be a set of this session.

        Args:
            terms: of the session.
            weightings: by what nodes count in the sums that are opened together.

        Raises:
            FedbiomedSecureAggregationError: too few nodes, unknown ones, one twice, or not sorted.
        """
        if list(self.nodes) != sorted(set(self.nodes), key=str.encode):
            raise round_error(f"survivors must be different and sorted by their bytes, not {list(self.nodes)!r:.120}")
        unknown = sorted(set(self.nodes) - set(terms.members))
        if unknown:
            raise round_error(f"{unknown[:5]!r:.120} are no members of the session")
        if len(self.nodes) < terms.threshold:
            raise round_error(
                f"{len(self.nodes)} of {len(terms.members)} nodes are left, {terms.threshold} are needed; nothing is revealed"
            )
        if len(set(weightings)) > 1 and len(self.nodes) < LEAST_OF_TWO_WEIGHTINGS:
            raise round_error(
                f"{len(self.nodes)} nodes are left: their updates would follow from two sums that weigh them by samples and alike; "
                f"{LEAST_OF_TWO_WEIGHTINGS} are needed, or an aggregator by which nodes count alike; nothing is revealed"
            )
