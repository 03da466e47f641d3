"""The secrets of LOM-R by which vectors are masked, and how they are shared.

Two levels, so that what is revealed or shared has one size whatever a round sends: S_uv = Expand(K_uv, "pair" || r || a) and the self
seed b_u open one attempt of one round; the stream of a purpose p and chunk c has the key Expand(S_uv or b_u, label || r || a || p || c).
Revealing K_uv, or a key for each purpose and chunk, was refused: the first would open other rounds, the second would
make as many shares as there are chunks.

Beside its self seed a node shares each of its pair secrets. Without these, the vector of a node that dies after its upload could not be
freed from the masks that it had with a node which never uploaded. Only shares of what would be revealed anyway are ever given out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.terms import Purpose, Terms
from fedbiomed.common.security import shamir
from fedbiomed.common.security.derivation import derived_key
from fedbiomed.common.security.keystream import Stream
from fedbiomed.common.security.sealing import seal, unseal

_SHARE = "share"


@dataclass(frozen=True, slots=True)
class Place:
    """Which attempt of which round of which session.

    Args:
        sid: SID' of the session.
        round, attempt: both count from 0.
    """

    sid: bytes
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Shares:
    """One node's shares of the secrets of another one, the owner.

    Args:
        self_seed: of the owner's self seed.
        pairs: of the owner's pair secrets, by the other node of the pair.
    """

    self_seed: bytes
    pairs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Revealed:
    """What one node tells the researcher, under encryption, to open a sum.

    Args:
        self_seed: its own.
        pairs: its pair secrets with the nodes that are not in the sum.
        shares: its shares of the secrets of the others in the sum, by owner.
    """

    self_seed: bytes
    pairs: Mapping[str, bytes]
    shares: Mapping[str, Shares]


def pair_secret(pair_key: bytes, place: Place, bound: bytes = b"") -> bytes:
    """S_uv, the secret of a pair for one attempt; the masks of nodes whose `bound` differs do not cancel."""
    return derived_key(pair_key, "pair", place.round, place.attempt, bound)


def self_stream(self_seed: bytes, place: Place, purpose: Purpose, *, is_added: bool) -> Stream:
    """A node's own mask."""
    return Stream(lambda chunk: derived_key(self_seed, "self", place.round, place.attempt, purpose.value, chunk), is_added)


def pair_stream(secret: bytes, place: Place, purpose: Purpose, *, is_added: bool) -> Stream:
    """The mask of a pair."""
    return Stream(lambda chunk: derived_key(secret, "pair", place.round, place.attempt, purpose.value, chunk), is_added)


def adds(node_id: str, peer: str) -> bool:
    """Whether a node adds the mask that it has with a peer; the peer then subtracts it."""
    return peer.encode() > node_id.encode()


def masks_of(node_id: str, self_seed: bytes, pairs: Mapping[str, bytes], place: Place, purpose: Purpose) -> list[Stream]:
    """PRG(b_u) + sum over v > u of PRG(s_uv) - sum over v < u of PRG(s_uv)."""
    own = self_stream(self_seed, place, purpose, is_added=True)
    return [own, *(pair_stream(secret, place, purpose, is_added=adds(node_id, peer)) for peer, secret in pairs.items())]


def sealed_shares(  # noqa: PLR0917  all of them say what is shared
    terms: Terms, owner: str, keys: Mapping[str, bytes], place: Place, self_seed: bytes, bound: bytes = b""
) -> dict[str, bytes]:
    """The owner's secrets of an attempt, shared among all other members, each share readable by its receiver only.

    Args:
        terms: of the session.
        owner: whose secrets they are.
        keys: K_uv of the owner by the other member.
        place: of the secrets.
        self_seed: b_u.
        bound: see `pair_secret`.

    Returns:
        Sealed shares by receiver.
    """
    count = len(terms.members)
    own = shamir.split(self_seed, terms.threshold, count)
    pairs = {peer: shamir.split(pair_secret(key, place, bound), terms.threshold, count) for peer, key in keys.items()}
    return {
        receiver: seal(
            derived_key(key, _SHARE, place.round, place.attempt, owner, receiver),
            msgpack.packb([own[index], {peer: shares[index] for peer, shares in pairs.items()}]),
            *(place.sid, owner, receiver),
        )
        for index, receiver in enumerate(terms.members)
        if (key := keys.get(receiver)) is not None
    }


def opened_shares(owner: str, receiver: str, key: bytes, place: Place, sealed: bytes) -> Shares:
    """The shares that an owner gave to a receiver.

    Raises:
        FedbiomedSecaggCrypterError: they do not open.
        FedbiomedSecureAggregationError: they are not of that form.
    """
    content = unseal(derived_key(key, _SHARE, place.round, place.attempt, owner, receiver), sealed, place.sid, owner, receiver)
    return _shares(_unpacked(content), owner)


def packed(revealed: Revealed) -> bytes:
    """What a node reveals, as bytes."""
    shares = {owner: [given.self_seed, dict(given.pairs)] for owner, given in revealed.shares.items()}
    content: bytes = msgpack.packb([revealed.self_seed, dict(revealed.pairs), shares])
    return content


def unpacked(content: bytes, node_id: str) -> Revealed:
    """What `packed` gave.

    Raises:
        FedbiomedSecureAggregationError: it is not of that form.
    """
    match _unpacked(content):
        case [bytes(seed), dict(pairs), dict(shares)] if len(seed) == shamir.SECRET_BYTES and _is_table(pairs, shamir.SECRET_BYTES):
            return Revealed(seed, pairs, {owner: _shares(given, node_id) for owner, given in shares.items()})
    raise round_error(f"what {node_id} reveals is malformed")


def _shares(content: object, whose: str) -> Shares:
    match content:
        case [bytes(own), dict(pairs)] if len(own) == shamir.SHARE_BYTES and _is_table(pairs, shamir.SHARE_BYTES):
            return Shares(own, pairs)
    raise round_error(f"the shares of {whose} are malformed")


def _is_table(given: Mapping[object, object], size: int) -> bool:
    return all(isinstance(name, str) and isinstance(value, bytes) and len(value) == size for name, value in given.items())


def _unpacked(content: bytes) -> object:
    try:
        return msgpack.unpackb(content)
    except (ValueError, msgpack.UnpackException) as error:
        raise FedbiomedSecaggCrypterError("FB624: the content of a sealed message is no msgpack") from error
