"""Nodes and researcher in a round of Joye and Libert's scheme: one message per node, and no sum without all nodes.

protect -> Upload    the attempt is on record as used before anything is hidden; the researcher opens the sum when all have come

There is no second step in which a node could refuse to open: who holds the server key opens the sum of a round as soon as all uploads
are there. So an attempt is not repeated: where a node is missing the round fails, and the next one has other keys.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.joye_libert import Check, Context, HiddenSum, Packing
from fedbiomed.common.secagg.joye_libert_keys import NodeKeys, require_scheme
from fedbiomed.common.secagg.ledger import Ledger, RoundRecord
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.lom_messages import Upload, vectors_digest
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose, Terms, Weighting
from fedbiomed.common.security.keystream import Words

logger = logging.getLogger(__name__)
LONG_S = 5.0
_MANY_BLOCKS = 64  # fewer are done sooner than it is known how long they take


class JoyeLibertNode:
    """One node in one session.

    Args:
        session: as agreed.
        ledger: what it remembers of its rounds.
        keys: its keys of this session.

    Raises:
        FedbiomedSecaggError: the session is of another scheme.
    """

    def __init__(self, session: Session, ledger: Ledger, keys: NodeKeys) -> None:
        require_scheme(session.terms)
        self._session, self._ledger, self._keys = session, ledger, keys
        self._packing = Packing.of(session.terms, keys.modulus.value)

    def protect(
        self, round_: int, attempt: int, parts: Mapping[Purpose, Part], weight: int, bound: bytes = b""
    ) -> Callable[[Check], Upload]:
        """Quantise an update, and put it on record that it is to be hidden.

        Args:
            round_, attempt: both count from 0; a round is answered once in a session, and the same content may be hidden again.
            parts: what is sent, by purpose.
            weight: number of samples, 1 to the session's highest.
            bound: see `joye_libert.Context`.

        Returns:
            What hides it: that takes long, and calls its argument now and then, which may end it by raising.

        Raises:
            FedbiomedSecureAggregationError: the round was answered otherwise or closed, weight or values cannot be, or two sums
                with different weights would tell the updates of so few nodes.
        """
        session = self._session
        if min(round_, attempt) < 0:
            raise round_error(f"rounds and attempts count from 0; {round_}, {attempt} were asked")
        if type(weight) is not int or not 1 <= weight <= session.terms.max_weight:
            raise round_error(f"the node counts by 1 to {session.terms.max_weight} samples, not {weight!r:.40}")
        if not parts:
            raise round_error("there is nothing to protect")
        self._everyone(round_, attempt).check(session.terms, {part.weighting for part in parts.values()})
        values = {purpose: part.unquantised(session.terms.bits) for purpose, part in parts.items()}
        vectors = {purpose: unquantised.words(weight) for purpose, unquantised in values.items()}
        record = RoundRecord(
            sid=session.sid,
            round=round_,
            attempt=attempt,
            weight=weight,
            self_seed=None,
            accepted=vectors_digest(vectors),  # the one content that may be hidden in this round
            bound=bound,
        )
        self._require_new(record)
        self._ledger.save(record)
        clipped = {purpose: unquantised.clipped for purpose, unquantised in values.items()}
        return lambda check: self._hidden(record, vectors, clipped, check)

    def _hidden(self, record: RoundRecord, vectors: Mapping[Purpose, Words], clipped: Mapping[Purpose, float], check: Check) -> Upload:
        modulus, place = self._keys.modulus.value, Place(record.sid, record.round, record.attempt)
        long_s = hiding_seconds(self._session.terms, modulus, {purpose: vector.size - 1 for purpose, vector in vectors.items()})
        if long_s >= LONG_S:
            logger.info("round %d: hiding this update by joye_libert takes about %.0f s", record.round, long_s)
        found = {
            purpose: joye_libert.hidden(vector, self._packing, modulus, self._keys.key, Context(place, purpose, record.bound), check=check)
            for purpose, vector in vectors.items()
        }
        return Upload(
            node_id=self._session.node_id,
            sid=record.sid,
            round=record.round,
            attempt=record.attempt,
            vectors=found,
            shares={},
            clipped=clipped,
            digest=vectors_digest(found),
            bound=record.bound,
        )

    def _everyone(self, round_: int, attempt: int) -> SurvivorSet:
        return SurvivorSet(sid=self._session.sid, round=round_, attempt=attempt, nodes=self._session.terms.members)

    def close(self, round_: int) -> None:
        """Let no further attempt of a round be."""
        record = self._ledger.record(self._session.sid, round_)
        if record is not None:
            self._ledger.save(replace(record, is_closed=True))

    def _require_new(self, record: RoundRecord) -> None:
        """The same content again, after a restart, gives the same vectors again, and tells nothing more."""
        if self._ledger.record(record.sid, record.round) not in (None, record):
            reason = f"round {record.round} was answered already in this session, or closed: what hides an update does not serve twice"
            logger.warning("secure aggregation: refused researcher %s: %s", self._session.terms.researcher_id, reason)
            raise round_error(f"{reason}; run again, new keys are agreed on then")


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenAttempt:
    """What an attempt of a round needs to know on the researcher's side.

    Args:
        terms, sid: of the session.
        round, attempt: both count from 0.
        sizes: number of values by purpose, without the weight.
        weightings: by what nodes count in these sums.
        modulus: N.
        server_key: sk_0.
    """

    terms: Terms
    sid: bytes
    round: int
    attempt: int
    sizes: Mapping[Purpose, int]
    modulus: int
    server_key: int = field(repr=False)
    weightings: frozenset[Weighting] = frozenset({Weighting.SAMPLES})


class JoyeLibertServer:
    """One attempt of one round on the researcher's side."""

    def __init__(self, attempt: HiddenAttempt) -> None:
        require_scheme(attempt.terms)
        packing = Packing.of(attempt.terms, attempt.modulus)
        self._attempt = attempt
        self._bound = b""
        self._sums = {purpose: HiddenSum(size + 1, packing, attempt.modulus) for purpose, size in attempt.sizes.items()}
        self.clipped: dict[str, Mapping[Purpose, float]] = {}

    def take_upload(self, upload: Upload) -> None:
        """Add a node's vectors to the hidden sum.

        Raises:
            FedbiomedSecureAggregationError: it is of another attempt or node, came twice, is damaged, or was made of another order than
                the first one: no sum would open with it.
        """
        attempt, place = self._attempt, (upload.sid, upload.round, upload.attempt)
        if place != (attempt.sid, attempt.round, attempt.attempt):
            raise round_error(f"the vectors of {upload.node_id} are of another session, round or attempt: {upload.round}, {upload.attempt}")
        if upload.node_id not in attempt.terms.members or upload.node_id in self.clipped:
            raise round_error(f"{upload.node_id} is no member of the session, or its vectors are there already")
        is_whole = upload.vectors.keys() == self._sums.keys() and all(self._sums[p].fits(v) for p, v in upload.vectors.items())
        if not is_whole or upload.digest != vectors_digest(upload.vectors):
            raise round_error(f"the vectors of {upload.node_id} are damaged, or of other purposes or sizes")
        if self.clipped and upload.bound != self._bound:
            raise round_error(f"{upload.node_id} was told another order than {next(iter(self.clipped))}: its vectors open with no others")
        self._bound = upload.bound
        for purpose, vector in upload.vectors.items():
            self._sums[purpose].add(vector)
        self.clipped[upload.node_id] = upload.clipped

    @property
    def can_open(self) -> bool:
        """Whether all nodes' vectors are there."""
        return self.clipped.keys() == set(self._attempt.terms.members)

    def close(self) -> SurvivorSet:
        """Who is in the sum: all nodes.

        Raises:
            FedbiomedSecureAggregationError: a node is missing, so nobody can open the sum.
        """
        attempt = self._attempt
        missing = [node for node in attempt.terms.members if node not in self.clipped]
        if missing:
            raise missing_error(attempt.round, dict.fromkeys(missing, "no update came"))
        survivors = SurvivorSet(sid=attempt.sid, round=attempt.round, attempt=attempt.attempt, nodes=attempt.terms.members)
        survivors.check(attempt.terms, attempt.weightings)
        return survivors

    def open(self) -> dict[Purpose, Words]:
        """The sums [W, S_1, ..., S_d] by purpose, exact. `quantise.mean_of` checks them and makes the mean.

        Raises:
            FedbiomedSecureAggregationError: a node is missing, so nobody can open the sum; or a key is wrong.
        """
        self.close()
        attempt = self._attempt
        place = Place(attempt.sid, attempt.round, attempt.attempt)
        return {p: hidden.opened(attempt.server_key, Context(place, p, self._bound)) for p, hidden in self._sums.items()}


def missing_error(round_: int, reasons: Mapping[str, str]) -> FedbiomedSecureAggregationError:
    """The error of a round in which nodes are missing.

    Args:
        round_: counted from 0.
        reasons: why, by node.
    """
    told = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
    return round_error(
        f"the sum of round {round_} does not open: with the scheme joye_libert all nodes must answer, and nothing was opened ({told}). "
        "Run again: new keys are agreed on with the nodes that are there; or leave a node out (set_nodes), or choose the scheme lom"
    )


def hiding_seconds(terms: Terms, modulus: int, sizes: Mapping[Purpose, int]) -> float:
    """About how long hiding an update, or opening a sum, takes on a machine like this one; 0 for a few blocks.

    Args:
        terms: of the session.
        modulus: N.
        sizes: number of values by purpose, without the weight.
    """
    blocks = sum(Packing.of(terms, modulus).blocks(size + 1) for size in sizes.values())
    return 0.0 if blocks < _MANY_BLOCKS else blocks * joye_libert.seconds_per_block(modulus)
