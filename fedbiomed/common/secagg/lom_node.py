"""A node's half of LOM-R: masks its update, and reveals what opens one sum of a round, or refuses.

    protect -> Upload        the attempt is on record as used before the masked vectors leave
    consent -> signature     exactly one survivor set per attempt is accepted
    reveal  -> Reveal        once per round; afterwards no further attempt of it
    close                    secrets and the kept update are deleted

After a reveal another attempt would give the researcher the sums with and without a node, and so that node's update.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.ledger import Kept, Ledger, RoundRecord
from fedbiomed.common.secagg.lom_masks import Place, Revealed, Shares, masks_of, opened_shares, packed, pair_secret, sealed_shares
from fedbiomed.common.secagg.lom_messages import Notice, Reveal, Upload, vectors_digest
from fedbiomed.common.secagg.quantise import Unquantised
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose, Scheme, Weighting
from fedbiomed.common.security.identity import Identity, is_signed
from fedbiomed.common.security.keystream import apply_streams
from fedbiomed.common.security.sealing import seal_to

logger = logging.getLogger(__name__)
REVEAL = "reveal"


@dataclass(frozen=True, slots=True)
class Part:
    """What a node sends for one purpose.

    Args:
        update: arrays by name.
        clip: values are cut to plus and minus this.
        weighting: by what the node counts in the sum.
    """

    update: Mapping[str, Any]
    clip: float
    weighting: Weighting = Weighting.SAMPLES

    def unquantised(self, bits: int) -> Unquantised:
        """Ready to be rounded.

        Raises:
            FedbiomedSecureAggregationError: there are no values, or the clip is not a positive number.
        """
        return Unquantised(self.update, self.clip, bits, self.weighting)


class LomNode:
    """One node in one session.

    Args:
        session: as agreed.
        identity: the node's key pair.
        ledger: what it remembers of its rounds.

    Raises:
        FedbiomedSecureAggregationError: the session is of another scheme.
    """

    def __init__(self, session: Session, identity: Identity, ledger: Ledger) -> None:
        if session.terms.scheme is not Scheme.LOM:
            raise round_error(f"a session of {session.terms.scheme} was given where one of {Scheme.LOM} is needed")
        self._session, self._identity, self._ledger = session, identity, ledger

    @property
    def needs_signatures(self) -> bool:
        """Whether a sum is opened only with the signatures of others."""
        return self._session.terms.distrusts_researcher

    def protect(self, round_: int, attempt: int, parts: Mapping[Purpose, Part], weight: int, bound: bytes = b"") -> Upload:
        """Quantise and mask an update.

        Args:
            round_, attempt: both count from 0; an attempt must be higher than the last one of its round.
            parts: what is sent, by purpose.
            weight: number of samples, 1 to the session's highest.
            bound: digest of what all nodes must have been told alike, the parameters from which they started for instance. The masks of
                nodes that were told different things do not cancel, so that nobody can let all but one train a model that cannot learn.

        Raises:
            FedbiomedSecureAggregationError: the attempt was used, the round was revealed or closed, or weight or values cannot be.
        """
        self._require_new(round_, attempt)
        if type(weight) is not int or not 1 <= weight <= self._session.terms.max_weight:
            raise round_error(f"the node counts by 1 to {self._session.terms.max_weight} samples, not {weight!r:.40}")
        if not parts:
            raise round_error("there is nothing to protect")
        bits = self._session.terms.bits
        values = {purpose: part.unquantised(bits) for purpose, part in parts.items()}
        try:
            self._ledger.keep_values(self._session.sid, round_, values)
            return self._masked(round_, attempt, values, weight, bound)
        except FedbiomedSecureAggregationError:
            self._ledger.drop_values(self._session.sid, round_)
            raise

    def protect_again(self, round_: int, attempt: int) -> Upload:
        """Mask the kept update of a round anew, under fresh seeds, without training.

        Raises:
            FedbiomedSecureAggregationError: none is kept, or as `protect`.
        """
        record = self._require_new(round_, attempt)
        values = self._ledger.values(self._session.sid, round_)
        if record is None or not values:
            raise round_error(f"no update of round {round_} is kept")
        return self._masked(round_, attempt, values, record.weight, record.bound)

    def _masked(self, round_: int, attempt: int, values: Mapping[Purpose, Kept], weight: int, bound: bytes) -> Upload:
        session, place = self._session, Place(self._session.sid, round_, attempt)
        vectors = {purpose: kept.words(weight) for purpose, kept in values.items()}
        seed = os.urandom(32)
        self._ledger.save(RoundRecord(sid=session.sid, round=round_, attempt=attempt, weight=weight, self_seed=seed, bound=bound))
        pairs = {peer: pair_secret(key, place, bound) for peer, key in session.pair_keys.items()}
        for purpose, vector in vectors.items():
            apply_streams(vector, masks_of(session.node_id, seed, pairs, place, purpose))
        return Upload(
            node_id=session.node_id,
            sid=session.sid,
            round=round_,
            attempt=attempt,
            vectors=vectors,
            shares=sealed_shares(session.terms, session.node_id, session.pair_keys, place, seed, bound),
            clipped={purpose: kept.clipped for purpose, kept in values.items()},
            digest=vectors_digest(vectors),
        )

    def consent(self, notice: Notice) -> bytes:
        """Accept a survivor set, and sign it; the same one again gives the signature again.

        Raises:
            FedbiomedSecureAggregationError: this node is not in it, it cannot be, another one was accepted, it is not of the last attempt,
                or shares are asked of a node that is not in it.
        """
        record = self._accepted(notice)
        self._ledger.save(replace(record, accepted=notice.digest))
        return self._identity.sign(notice.digest)

    def reveal(self, notice: Notice, signatures: Mapping[str, bytes] | None = None) -> Reveal:
        """What opens the sum over this survivor set; the same one again gives it again.

        Args:
            notice: the survivor set, with shares for this node.
            signatures: of the members over the set's hash; needed where the researcher is not trusted.

        Raises:
            FedbiomedSecureAggregationError: as `consent`; or there are not enough valid signatures.
            FedbiomedSecaggCrypterError: a share was changed on its way.
        """
        record, session = self._accepted(notice), self._session
        if session.terms.distrusts_researcher:
            self._require_signatures(notice.survivors, signatures or {})
        place = Place(session.sid, record.round, record.attempt)
        shares = self._own_shares(notice, place)
        gone = [peer for peer in session.terms.members if peer not in notice.survivors.nodes]
        pairs = {peer: pair_secret(session.pair_keys[peer], place, record.bound) for peer in gone}
        content = packed(Revealed(record.self_seed or b"", pairs, shares))
        self._ledger.save(replace(record, accepted=notice.digest, has_revealed=True))
        sealed = seal_to(session.reveal_key, content, REVEAL, notice.digest, session.node_id)
        return Reveal(node_id=session.node_id, digest=notice.digest, signature=self._identity.sign(notice.digest), sealed=sealed)

    def _own_shares(self, notice: Notice, place: Place) -> dict[str, Shares]:
        """This node's shares of the others in the set: of self seeds, and of pair secrets with nodes that are not in the set."""
        session, survivors = self._session, set(notice.survivors.nodes)
        found = {}
        for owner, sealed in notice.shares.items():
            shares = opened_shares(owner, session.node_id, session.pair_keys[owner], place, sealed)
            pairs = {peer: share for peer, share in shares.pairs.items() if peer not in survivors}
            found[owner] = Shares(shares.self_seed, pairs)
        return found

    def close(self, round_: int) -> None:
        """Delete the secrets of a round and the kept update; no attempt of it follows."""
        record = self._ledger.record(self._session.sid, round_)
        if record is not None:
            self._ledger.save(replace(record, self_seed=None, is_closed=True))
        self._ledger.drop_values(self._session.sid, round_)

    def _require_new(self, round_: int, attempt: int) -> RoundRecord | None:
        if min(round_, attempt) < 0:
            raise round_error(f"rounds and attempts count from 0; {round_}, {attempt} were asked")
        record = self._ledger.record(self._session.sid, round_)
        if record is None:
            return None
        if record.has_revealed or record.is_closed:
            raise self._refusal(f"round {round_} was opened already: attempt {attempt} would tell single updates")
        if attempt <= record.attempt:
            raise self._refusal(
                f"attempt {attempt} of round {round_} was used already: its masks do not serve twice; ask for attempt {record.attempt + 1}"
            )
        return record

    def _accepted(self, notice: Notice) -> RoundRecord:
        survivors, terms = notice.survivors, self._session.terms
        record = self._ledger.record(survivors.sid, survivors.round) if survivors.sid == self._session.sid else None
        if record is None or record.attempt != survivors.attempt or record.is_closed:
            raise self._refusal(f"attempt {survivors.attempt} of round {survivors.round} is not the one that this node takes part in")
        if notice.digest != survivors.digest:
            raise self._refusal("the survivor set has another hash than told")
        survivors.check(terms, self._ledger.weightings(survivors.sid, survivors.round))
        if self._session.node_id not in survivors.nodes:
            raise self._refusal(f"{self._session.node_id} is not in the sum, so it reveals nothing")
        if record.accepted not in (None, notice.digest):
            raise self._refusal(f"another survivor set was accepted for round {survivors.round}, attempt {survivors.attempt}")
        asked = set(notice.shares) - (set(survivors.nodes) - {self._session.node_id})
        if asked:
            raise self._refusal(f"both self mask and pair masks are asked of {sorted(asked)[:5]!r:.120}, which would open single updates")
        return record

    def _require_signatures(self, survivors: SurvivorSet, signatures: Mapping[str, bytes]) -> None:
        identities = self._session.identities
        valid = [peer for peer in survivors.nodes if peer in signatures and is_signed(identities[peer], signatures[peer], survivors.digest)]
        if len(valid) < self._session.terms.threshold:
            raise self._refusal(f"{len(valid)} nodes signed this survivor set, {self._session.terms.threshold} are needed")

    def _refusal(self, reason: str) -> FedbiomedSecureAggregationError:
        """The error, which also the operator is told: the researcher asked for what it must not have."""
        logger.warning("secure aggregation: refused researcher %s: %s", self._session.terms.researcher_id, reason)
        return round_error(reason)
