"""What a node remembers of its rounds, so that no mask serves twice and no round is opened twice, also after a restart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fedbiomed.common.secagg.quantise import Quantised, Unquantised
from fedbiomed.common.secagg.terms import Purpose, Weighting

Kept = Quantised | Unquantised


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What a node did in a round.

    Args:
        sid: SID' of the session.
        round: of the experiment.
        attempt: the highest that was used.
        weight: by which the node counts.
        self_seed: b_u of that attempt; None once the round is closed.
        accepted: digest of the survivor set that the node accepted for that attempt.
        has_revealed: whether it has answered with what opens the sum; no attempt follows.
        is_closed: whether all secrets of the round are deleted.
        bound: what the node was told to do, as a digest; see `LomNode.protect`.
    """

    sid: bytes
    round: int
    attempt: int
    weight: int
    self_seed: bytes | None = field(repr=False)
    accepted: bytes | None = None
    has_revealed: bool = False
    is_closed: bool = False
    bound: bytes = b""


class Ledger(Protocol):
    """Keeps records. What `save` and `keep_values` were given must outlive a crash once they return."""

    def record(self, sid: bytes, round_: int) -> RoundRecord | None:
        """The record of a round, None before its first attempt."""

    def save(self, record: RoundRecord) -> None:
        """Put a record in the place of the round's former one."""

    def keep_values(self, sid: bytes, round_: int, values: Mapping[Purpose, Kept]) -> None:
        """Keep the update of a round, for a further attempt.

        Raises:
            FedbiomedSecureAggregationError: it cannot be quantised.
        """

    def values(self, sid: bytes, round_: int) -> Mapping[Purpose, Kept]:
        """The quantised update of a round; empty where none is kept."""

    def weightings(self, sid: bytes, round_: int) -> set[Weighting]:
        """By what the node counts in the parts of the kept update; empty where none is kept."""

    def drop_values(self, sid: bytes, round_: int) -> None:
        """Delete the quantised update of a round."""


class MemoryLedger:
    """A ledger that goes with the process: for simulations, where nobody restarts. It keeps an update itself, rounded when it is needed."""

    def __init__(self) -> None:
        self._records: dict[tuple[bytes, int], RoundRecord] = {}
        self._values: dict[tuple[bytes, int], Mapping[Purpose, Kept]] = {}

    def record(self, sid: bytes, round_: int) -> RoundRecord | None:
        """See `Ledger`."""
        return self._records.get((sid, round_))

    def save(self, record: RoundRecord) -> None:
        """See `Ledger`."""
        self._records[record.sid, record.round] = record

    def keep_values(self, sid: bytes, round_: int, values: Mapping[Purpose, Kept]) -> None:
        """See `Ledger`."""
        self._values[sid, round_] = values

    def values(self, sid: bytes, round_: int) -> Mapping[Purpose, Kept]:
        """See `Ledger`."""
        return self._values.get((sid, round_), {})

    def weightings(self, sid: bytes, round_: int) -> set[Weighting]:
        """See `Ledger`."""
        return {quantised.weighting for quantised in self.values(sid, round_).values()}

    def drop_values(self, sid: bytes, round_: int) -> None:
        """See `Ledger`."""
        self._values.pop((sid, round_), None)
