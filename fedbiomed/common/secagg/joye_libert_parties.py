"""Nodes and researcher of Joye and Libert's scheme: keys once per session, one message per round, and no sum without all nodes.

first member        Modulus: drawn, its factors forgotten, signed; by a node, since who knows the factors could read much of what is hidden
each node           its key in additive shares, one for each other member, sealed
each node           the sum of the shares that it got, sealed to the researcher: all these sums give the server key, and nothing else
each round          protect -> HiddenUpload; the researcher opens the sum when all have come
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.errors import round_error, setup_error
from fedbiomed.common.secagg.joye_libert import HiddenSum, Packing
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.ledger import Ledger, RoundRecord
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.quantise import quantise, weighted
from fedbiomed.common.secagg.terms import Purpose, Scheme, Terms
from fedbiomed.common.security.derivation import derived_key
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity, is_signed
from fedbiomed.common.security.keystream import Words
from fedbiomed.common.security.sealing import seal, seal_to, unseal, unseal_from

_SHARE, _SUM = "joye-libert-share", "joye-libert-sum"
Rows = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulus:
    """The session's public modulus.

    Args:
        value: N.
        signature: of the first member.
    """

    value: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenUpload:
    """A node's hidden vectors.

    Args:
        node_id: whose.
        sid, round, attempt: which attempt.
        blocks: by purpose, a row per block.
        clipped: fraction of clipped values, by purpose.
        digest: SHA-256 of the blocks.
    """

    node_id: str
    sid: bytes
    round: int
    attempt: int
    blocks: Mapping[Purpose, Rows] = field(repr=False)
    clipped: Mapping[Purpose, float]
    digest: bytes


def signed_modulus(session: Session, identity: Identity, bits: int = joye_libert.LEAST_BITS) -> Modulus:
    """Draw the modulus; the first member does.

    Raises:
        FedbiomedSecaggError: this node is not the first, or fewer than 2048 bits.
    """
    if session.node_id != session.terms.members[0]:
        raise setup_error(f"{session.terms.members[0]} draws the modulus, not {session.node_id}")
    value = joye_libert.drawn_modulus(bits)
    return Modulus(value=value, signature=identity.sign(_modulus_content(session.sid, value)))


class JoyeLibertNode:
    """One node in one session.

    Args:
        session: as agreed.
        identity: the node's key pair.
        ledger: what it remembers of its rounds.
        modulus: as the first member drew it.
        key: its secret key of this session; None to draw one.

    Raises:
        FedbiomedSecaggError: the session is of another scheme, or the modulus is not signed or not sound.
    """

    def __init__(self, session: Session, identity: Identity, ledger: Ledger, modulus: Modulus, key: int | None = None) -> None:
        _require_scheme(session.terms)
        if not is_signed(session.identities[session.terms.members[0]], modulus.signature, _modulus_content(session.sid, modulus.value)):
            raise setup_error(f"the modulus is not signed by {session.terms.members[0]}")
        self._session, self._identity, self._ledger = session, identity, ledger
        self._modulus = joye_libert.checked_modulus(modulus.value)
        self._packing = Packing.of(session.terms, self._modulus)
        self._bits = joye_libert.share_bits(self._modulus, len(session.terms.members))
        self.key = joye_libert.drawn_key(self._modulus) if key is None else key
        *others, self._own = joye_libert.additive_shares(self.key, len(session.terms.members), self._bits)
        self._others = dict(zip(session.pair_keys, others, strict=True))

    def key_shares(self) -> dict[str, bytes]:
        """This node's key in additive shares, sealed, by receiver; one stays here."""
        me = self._session.node_id
        return {
            peer: seal(_share_key(key, me, peer), self._others[peer].to_bytes(self._bits // 8, "big"), self._session.sid, me, peer)
            for peer, key in self._session.pair_keys.items()
        }

    def share_sum(self, shares: Mapping[str, bytes]) -> bytes:
        """The sum of this node's shares of all keys, sealed to the researcher.

        Args:
            shares: what each other member sealed for this node.

        Raises:
            FedbiomedSecaggError: shares are missing.
            FedbiomedSecaggCrypterError: one does not open.
        """
        session, me = self._session, self._session.node_id
        if shares.keys() != session.pair_keys.keys():
            raise setup_error(f"shares of {sorted(session.pair_keys)!r:.120} are needed, there are those of {sorted(shares)!r:.120}")
        total = self._own
        for peer, sealed in shares.items():
            total += int.from_bytes(unseal(_share_key(session.pair_keys[peer], peer, me), sealed, session.sid, peer, me), "big")
        content = (total % (1 << self._bits)).to_bytes(self._bits // 8, "big")
        return seal_to(session.reveal_key, content, _SUM, session.sid, me)

    def protect(self, round_: int, attempt: int, parts: Mapping[Purpose, Part], weight: int) -> HiddenUpload:
        """Quantise and hide an update.

        Args:
            round_, attempt: both count from 0; an attempt must be higher than the last one of its round.
            parts: what is sent, by purpose.
            weight: number of samples, 1 to the session's highest.

        Raises:
            FedbiomedSecureAggregationError: the attempt was used, or weight or values cannot be.
        """
        session = self._session
        record = self._ledger.record(session.sid, round_)
        if min(round_, attempt) < 0 or (record is not None and (record.is_closed or attempt <= record.attempt)):
            raise round_error(
                f"attempt {attempt} of round {round_} cannot be, was used already or is closed: what hides it does not serve twice"
            )
        if type(weight) is not int or not 1 <= weight <= session.terms.max_weight:
            raise round_error(f"the node counts by 1 to {session.terms.max_weight} samples, not {weight!r:.40}")
        values = {p: quantise(part.update, Layout.of(part.update), part.clip, session.terms.bits) for p, part in parts.items()}
        self._ledger.save(RoundRecord(sid=session.sid, round=round_, attempt=attempt, weight=weight, self_seed=None))
        place = Place(session.sid, round_, attempt)
        blocks = {
            purpose: joye_libert.hidden(weighted(q.values, weight), self._packing, self._modulus, self.key, place=place, purpose=purpose)
            for purpose, q in values.items()
        }
        return HiddenUpload(
            node_id=session.node_id,
            sid=session.sid,
            round=round_,
            attempt=attempt,
            blocks=blocks,
            clipped={purpose: q.clipped for purpose, q in values.items()},
            digest=_digest(blocks),
        )

    def close(self, round_: int) -> None:
        """Let no further attempt of a round be."""
        record = self._ledger.record(self._session.sid, round_)
        if record is not None:
            self._ledger.save(replace(record, is_closed=True))


def server_key(terms: Terms, sid: bytes, modulus: int, sums: Mapping[str, bytes], reveal_private: X25519PrivateKey) -> int:
    """sk_0 = -sum sk_u, of what `share_sum` of all nodes gave.

    Raises:
        FedbiomedSecaggError: a node's is missing.
        FedbiomedSecaggCrypterError: one does not open.
    """
    if sums.keys() != set(terms.members):
        raise setup_error(f"sums of {list(terms.members)!r:.120} are needed, there are those of {sorted(sums)!r:.120}")
    bits = joye_libert.share_bits(modulus, len(terms.members))
    parts = [int.from_bytes(unseal_from(reveal_private, sealed, _SUM, sid, node), "big") for node, sealed in sums.items()]
    return -(sum(parts) % (1 << bits))


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenAttempt:
    """What an attempt of a round needs to know on the researcher's side.

    Args:
        terms, sid: of the session.
        round, attempt: both count from 0.
        sizes: number of values by purpose, without the weight.
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


class JoyeLibertServer:
    """One attempt of one round on the researcher's side."""

    def __init__(self, attempt: HiddenAttempt) -> None:
        _require_scheme(attempt.terms)
        packing = Packing.of(attempt.terms, attempt.modulus)
        self._attempt = attempt
        self._sums = {purpose: HiddenSum(size + 1, packing, attempt.modulus) for purpose, size in attempt.sizes.items()}
        self.clipped: dict[str, Mapping[Purpose, float]] = {}

    def take_upload(self, upload: HiddenUpload) -> None:
        """Add a node's vectors to the hidden sum.

        Raises:
            FedbiomedSecureAggregationError: it is of another attempt or node, came twice, or is damaged.
        """
        attempt, place = self._attempt, (upload.sid, upload.round, upload.attempt)
        if place != (attempt.sid, attempt.round, attempt.attempt):
            raise round_error(f"the vectors of {upload.node_id} are of another session, round or attempt: {upload.round}, {upload.attempt}")
        if upload.node_id not in attempt.terms.members or upload.node_id in self.clipped:
            raise round_error(f"{upload.node_id} is no member of the session, or its vectors are there already")
        if upload.blocks.keys() != self._sums.keys() or upload.digest != _digest(upload.blocks):
            raise round_error(f"the vectors of {upload.node_id} are damaged, or of other purposes")
        for purpose, rows in upload.blocks.items():
            self._sums[purpose].add(rows, upload.node_id)
        self.clipped[upload.node_id] = upload.clipped

    def open(self) -> dict[Purpose, Words]:
        """The sums [W, S_1, ..., S_d] by purpose, exact. `quantise.mean_of` checks them and makes the mean.

        Raises:
            FedbiomedSecureAggregationError: a node is missing, so nobody can open the sum; or a key is wrong.
        """
        attempt = self._attempt
        missing = [node for node in attempt.terms.members if node not in self.clipped]
        if missing:
            raise round_error(
                f"vectors of {missing[:5]!r:.120} are missing; with the scheme joye_libert nobody can open the sum of the others. "
                "Repeat the round with all nodes, or choose the scheme lom, which bears losses"
            )
        place = Place(attempt.sid, attempt.round, attempt.attempt)
        return {purpose: hidden.opened(attempt.server_key, place, purpose) for purpose, hidden in self._sums.items()}


def _require_scheme(terms: Terms) -> None:
    if terms.scheme is not Scheme.JOYE_LIBERT:
        raise setup_error(f"a session of {terms.scheme} was given where one of {Scheme.JOYE_LIBERT} is needed")


def _modulus_content(sid: bytes, value: int) -> bytes:
    return joined("fbm-joye-libert-modulus-v1", sid, value.to_bytes(-(-value.bit_length() // 8), "big"))


def _share_key(pair_key: bytes, owner: str, receiver: str) -> bytes:
    return derived_key(pair_key, _SHARE, owner, receiver)


def _digest(blocks: Mapping[Purpose, Rows]) -> bytes:
    hashed = hashlib.sha256()
    for purpose in sorted(blocks):
        rows = np.ascontiguousarray(blocks[purpose])
        hashed.update(joined(purpose.value, *rows.shape))
        hashed.update(rows.data)
    return hashed.digest()
