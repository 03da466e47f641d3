"""The keys of a session of Joye and Libert's scheme, once the nodes have agreed on it: a modulus, a key per node, and minus their sum.

first member -> all         Modulus: drawn, its factors forgotten, signed; by a node: who knows the factors could read what is hidden
each node -> each other     an additive share of its key, sealed under the pair's key; the researcher carries it
each node -> researcher     the sum of the shares that it got, sealed and signed: all these sums give the server key, and nothing else

Shares are sealed under keys that depend on the modulus: nodes that were told different ones cannot read each other's.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.common.secagg.terms import Scheme, Terms
from fedbiomed.common.security.derivation import derived_key
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity, is_signed
from fedbiomed.common.security.sealing import seal, seal_to, unseal, unseal_from

_SHARE, _SUM = "joye-libert-share", "joye-libert-sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulus:
    """The session's public modulus.

    Args:
        value: N.
        signature: of the first member.
    """

    value: int
    signature: bytes

    @property
    def content(self) -> bytes:
        """N as bytes, the highest first."""
        return _bytes(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySum:
    """The sum of the shares that a node got.

    Args:
        sealed: readable by the researcher only.
        signature: of the node.
    """

    sealed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKeys:
    """What a node holds beside its session.

    Args:
        modulus: as the first member drew it.
        key: sk_u.
        shares: of that key, by member, its own among them; none any more once the node has given its sum.
        summed: digest of the sealed shares in that sum; empty before.
        key_sum: that sum; None before.
    """

    modulus: Modulus
    key: int = field(repr=False)
    shares: Mapping[str, int] = field(repr=False)
    summed: bytes = b""
    key_sum: KeySum | None = None


def signed_modulus(session: Session, identity: Identity, bits: int = joye_libert.LEAST_BITS) -> Modulus:
    """Draw the modulus; the first member does.

    Raises:
        FedbiomedSecaggError: this node is not the first, fewer than 2048 bits, or gmpy2 is not installed.
    """
    if session.node_id != session.terms.members[0]:
        raise setup_error(f"{session.terms.members[0]} draws the modulus, not {session.node_id}")
    value = joye_libert.drawn_modulus(bits)
    return Modulus(value=value, signature=identity.sign(_modulus_content(session.sid, value)))


def checked_modulus(terms: Terms, sid: bytes, identities: Mapping[str, bytes], modulus: Modulus) -> Modulus:
    """A modulus as the first member of a session drew it.

    Raises:
        FedbiomedSecaggError: the session is of another scheme, or the modulus is not signed or not sound.
    """
    require_scheme(terms)
    if not is_signed(identities[terms.members[0]], modulus.signature, _modulus_content(sid, modulus.value)):
        raise setup_error(f"the modulus is not signed by {terms.members[0]}")
    joye_libert.checked_modulus(modulus.value)
    return modulus


def drawn_keys(session: Session, modulus: Modulus) -> NodeKeys:
    """Draw a node's key of a session, and share it.

    Raises:
        FedbiomedSecaggError: see `checked_modulus`.
    """
    checked_modulus(session.terms, session.sid, session.identities, modulus)
    key, members = joye_libert.drawn_key(modulus.value), session.terms.members
    shares = joye_libert.additive_shares(key, len(members), joye_libert.share_bits(modulus.value, len(members)))
    return NodeKeys(modulus=modulus, key=key, shares=dict(zip(members, shares, strict=True)))


def sealed_shares(session: Session, keys: NodeKeys) -> dict[str, bytes]:
    """The shares of a node's key for the others, by receiver; each can be read by its receiver only.

    Raises:
        FedbiomedSecaggError: the node has given its sum already.
    """
    if not keys.shares:
        raise setup_error("the keys of this session are agreed on already")
    me, value = session.node_id, keys.modulus.value
    return {
        peer: seal(_share_key(key, value, me, peer), _packed(keys.shares[peer], session.terms, value), session.sid, me, peer)
        for peer, key in session.pair_keys.items()
    }


def with_sum(session: Session, identity: Identity, keys: NodeKeys, shares: Mapping[str, bytes]) -> tuple[NodeKeys, KeySum]:
    """Sum the shares that a node got with the one that it kept.

    Args:
        session, identity, keys: of the node.
        shares: what each other member sealed for this node.

    Returns:
        The keys, with the sum and without shares, and that sum. The same shares again give the same sum again.

    Raises:
        FedbiomedSecaggError: shares are missing, or others were summed before.
        FedbiomedSecaggCrypterError: one does not open.
    """
    if shares.keys() != session.pair_keys.keys():
        raise setup_error(f"shares of {sorted(session.pair_keys)!r:.120} are needed, there are those of {sorted(shares)!r:.120}")
    summed = hashlib.sha256(joined(*(part for peer in sorted(shares) for part in (peer, shares[peer])))).digest()
    if keys.key_sum is not None:
        if keys.summed != summed:
            raise setup_error("other shares were summed before: a second sum would tell more than the sum of all keys; run again")
        return keys, keys.key_sum
    me, value = session.node_id, keys.modulus.value
    total = keys.shares[me]
    for peer, sealed in shares.items():
        key = _share_key(session.pair_keys[peer], value, peer, me)
        total += int.from_bytes(unseal(key, sealed, session.sid, peer, me), "big")
    sealed = seal_to(session.reveal_key, _packed(total, session.terms, value), _SUM, session.sid, me)
    signature = identity.sign(_sum_content(session.sid, me, value, sealed))
    key_sum = KeySum(sealed=sealed, signature=signature)
    return replace(keys, shares={}, summed=summed, key_sum=key_sum), key_sum


def server_key(  # noqa: PLR0917  all of them say whose sums they are
    terms: Terms, sid: bytes, identities: Mapping[str, bytes], modulus: int, sums: Mapping[str, KeySum], reveal_private: X25519PrivateKey
) -> int:
    """sk_0 = -sum sk_u, of what all nodes summed.

    Raises:
        FedbiomedSecaggError: a node's sum is missing, or not signed by it.
        FedbiomedSecaggCrypterError: one does not open.
    """
    if sums.keys() != set(terms.members):
        raise setup_error(f"sums of {list(terms.members)!r:.120} are needed, there are those of {sorted(sums)!r:.120}")
    total = 0
    for node, told in sums.items():
        if not is_signed(identities[node], told.signature, _sum_content(sid, node, modulus, told.sealed)):
            raise setup_error(f"the sum of shares of {node} is not signed by it")
        total += int.from_bytes(unseal_from(reveal_private, told.sealed, _SUM, sid, node), "big")
    return -(total % (1 << joye_libert.share_bits(modulus, len(terms.members))))


def keys_as_bytes(keys: NodeKeys) -> bytes:
    """For the node's database."""
    key_sum = None if keys.key_sum is None else [keys.key_sum.sealed, keys.key_sum.signature]
    modulus = [keys.modulus.content, keys.modulus.signature]
    shares = {member: _bytes(share) for member, share in keys.shares.items()}
    content: bytes = msgpack.packb([modulus, _bytes(keys.key), shares, keys.summed, key_sum])
    return content


def keys_of_bytes(content: bytes) -> NodeKeys:
    """What `keys_as_bytes` gave.

    Raises:
        ValueError, TypeError, msgpack.UnpackException: it is not of that form.
    """
    (value, signature), key, shares, summed, key_sum = msgpack.unpackb(content)
    return NodeKeys(
        modulus=Modulus(value=int.from_bytes(value, "big"), signature=signature),
        key=int.from_bytes(key, "big"),
        shares={member: int.from_bytes(share, "big") for member, share in shares.items()},
        summed=summed,
        key_sum=None if key_sum is None else KeySum(sealed=key_sum[0], signature=key_sum[1]),
    )


def require_scheme(terms: Terms) -> None:
    """Refuse a session of another scheme.

    Raises:
        FedbiomedSecaggError: it is one.
    """
    if terms.scheme is not Scheme.JOYE_LIBERT:
        raise setup_error(f"a session of {terms.scheme} was given where one of {Scheme.JOYE_LIBERT} is needed")


def _modulus_content(sid: bytes, value: int) -> bytes:
    return joined("fbm-joye-libert-modulus-v1", sid, _bytes(value))


def _sum_content(sid: bytes, node: str, modulus: int, sealed: bytes) -> bytes:
    return joined("fbm-joye-libert-sum-v1", sid, node, _bytes(modulus), sealed)


def _share_key(pair_key: bytes, modulus: int, owner: str, receiver: str) -> bytes:
    return derived_key(pair_key, _SHARE, owner, receiver, _bytes(modulus))


def _packed(share: int, terms: Terms, modulus: int) -> bytes:
    """A share as bytes of one length."""
    bits = joye_libert.share_bits(modulus, len(terms.members))
    return (share % (1 << bits)).to_bytes(bits // 8, "big")


def _bytes(value: int) -> bytes:
    return value.to_bytes(-(-value.bit_length() // 8), "big")
