"""The keys of a session: each pair of nodes agrees on one, unseen by the researcher who carries the messages.

    researcher -> nodes    Offer: the terms, the key towards which sums are revealed, signed
    nodes -> researcher    nonces; researcher -> nodes all of them: the session's name is bound to what each node drew
    nodes -> researcher    KeyShare: an X25519 public key, signed; researcher -> nodes all of them

SID' = SHA-256(SID || sorted nonces); K_uv = HKDF(X25519(a_u, A_v), salt SID', "fbm-secagg-v1" || min(u, v) || max(u, v)). Signatures cover
the digest of the terms beside (SID', u, A_u), so that no two nodes can be told different terms.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.common.secagg.terms import SESSION_BYTES, Terms
from fedbiomed.common.security.derivation import agreed_key
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity, is_signed
from fedbiomed.common.security.peers import Peers
from fedbiomed.common.security.sealing import PUBLIC_BYTES, exchanged

_LABEL = "fbm-secagg-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The researcher's proposal of a session.

    Args:
        terms: as proposed.
        identity: the researcher's Ed25519 public key.
        reveal_key: X25519 public key of this session, towards which nodes encrypt what opens a sum.
        signature: of the researcher over terms and reveal key.
    """

    terms: Terms
    identity: bytes
    reveal_key: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature covers."""
        return joined("fbm-secagg-offer-v1", self.terms.digest, self.reveal_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShare:
    """A node's half of its pair keys.

    Args:
        node_id: whose.
        identity: the node's Ed25519 public key.
        public: X25519 public key of this session.
        signature: of the node.
    """

    node_id: str
    identity: bytes
    public: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a node knows of an agreed session.

    Args:
        terms: as agreed.
        sid: SID', 32 bytes.
        node_id: who knows it.
        reveal_key: the researcher's X25519 public key.
        identities: Ed25519 public keys of all members.
        pair_keys: K_uv by the other member's id; secret.
    """

    terms: Terms
    sid: bytes
    node_id: str
    reveal_key: bytes
    identities: Mapping[str, bytes]
    pair_keys: Mapping[str, bytes] = field(repr=False)


class NodeAgreement:
    """A node's side of the agreement; each step may be repeated with the same input, and is refused with another.

    Args:
        node_id: this node.
        identity: its key pair.
        offer: what the researcher proposes.
        peers: keys that are pinned.
        allows_two: the operator's consent to sessions of two nodes, where each learns the other's update from the sum.

    Raises:
        FedbiomedSecaggError: the node is no member, does not consent, or the offer is not signed by its researcher.
        FedbiomedCertificateError: another key is pinned for the researcher.
    """

    def __init__(self, node_id: str, identity: Identity, offer: Offer, peers: Peers, *, allows_two: bool = False) -> None:
        terms = offer.terms
        if node_id not in terms.members:
            raise setup_error(f"{node_id} is not among the members {list(terms.members)!r:.120}")
        if len(terms.members) == 2 and not allows_two:
            raise setup_error(
                "with two nodes each learns the other's update from the sum; three are needed, or the consent of both operators"
            )
        if not is_signed(offer.identity, offer.signature, offer.signed):
            raise setup_error(f"the offer of {terms.researcher_id} is not signed with the key that it shows")
        peers.admit(terms.researcher_id, offer.identity)
        self._node_id, self._identity, self._offer, self._peers = node_id, identity, offer, peers
        self._private = X25519PrivateKey.generate()
        self._nonces: dict[str, bytes] | None = None
        self.nonce = os.urandom(SESSION_BYTES)

    def key_share(self, nonces: Mapping[str, bytes]) -> KeyShare:
        """This node's signed public key.

        Args:
            nonces: of all members.

        Raises:
            FedbiomedSecaggError: not those of all members, one is there twice, this node's own is another, or others were given before.
        """
        if self._nonces is not None and self._nonces != dict(nonces):
            raise setup_error("other nonces were given before; a new session is needed")
        session_sid(self._offer.terms, nonces)
        if nonces[self._node_id] != self.nonce:
            raise setup_error(f"the nonce of {self._node_id} was replaced on its way")
        self._nonces = dict(nonces)
        return signed_share(self._node_id, self._identity, self._offer.terms, self._sid, self._private)

    @property
    def _sid(self) -> bytes:
        return session_sid(self._offer.terms, self._nonces or {})

    def session(self, shares: Mapping[str, KeyShare]) -> Session:
        """The session, with a key for each other member.

        Raises:
            FedbiomedSecaggError: shares are missing or too many, one is not signed, keys are there twice, or this node's own was replaced.
            FedbiomedSecaggCrypterError: a public key is of low order.
            FedbiomedCertificateError: another key is pinned for a member.
        """
        terms, sid = self._offer.terms, self._sid
        checked_shares(terms, sid, shares)
        if shares[self._node_id].public != self._private.public_key().public_bytes_raw():
            raise setup_error(f"the key of {self._node_id} was replaced on its way")
        keys = {}
        for peer, share in shares.items():
            self._peers.admit(peer, share.identity)
            if peer != self._node_id:
                first, second = sorted((self._node_id, peer), key=str.encode)
                keys[peer] = agreed_key(exchanged(self._private, share.public), sid, _LABEL, first, second)
        return Session(
            terms=terms,
            sid=sid,
            node_id=self._node_id,
            reveal_key=self._offer.reveal_key,
            identities={peer: share.identity for peer, share in shares.items()},
            pair_keys=keys,
        )


class ResearcherAgreement:
    """The researcher's side: makes the offer and carries nonces and shares.

    Args:
        identity: the researcher's key pair.
        terms: to propose.
    """

    def __init__(self, identity: Identity, terms: Terms) -> None:
        self.reveal_private = X25519PrivateKey.generate()
        public = self.reveal_private.public_key().public_bytes_raw()
        unsigned = Offer(terms=terms, identity=identity.public, reveal_key=public, signature=b"")
        self.offer = Offer(terms=terms, identity=identity.public, reveal_key=public, signature=identity.sign(unsigned.signed))

    def sid(self, nonces: Mapping[str, bytes], shares: Mapping[str, KeyShare]) -> bytes:
        """SID', once all nonces and shares are there.

        Raises:
            FedbiomedSecaggError: they are not those of all members, or a share is not signed.
        """
        sid = session_sid(self.offer.terms, nonces)
        checked_shares(self.offer.terms, sid, shares)
        return sid


def session_sid(terms: Terms, nonces: Mapping[str, bytes]) -> bytes:
    """SID' = SHA-256(SID || sorted nonces).

    Raises:
        FedbiomedSecaggError: the nonces are not those of all members, or one is there twice.
    """
    if nonces.keys() != set(terms.members):
        raise setup_error(f"nonces of {list(terms.members)!r:.120} are needed, there are those of {sorted(nonces)!r:.120}")
    if len(set(nonces.values())) < len(nonces) or any(len(nonce) != SESSION_BYTES for nonce in nonces.values()):
        raise setup_error(f"each node draws a nonce of {SESSION_BYTES} bytes of its own; one is of another length or there twice")
    return hashlib.sha256(joined(terms.session, *sorted(nonces.values()))).digest()


def signed_share(node_id: str, identity: Identity, terms: Terms, sid: bytes, private: X25519PrivateKey) -> KeyShare:
    """A node's public key of a session, signed."""
    public = private.public_key().public_bytes_raw()
    signature = identity.sign(_share_content(terms, sid, node_id, public))
    return KeyShare(node_id=node_id, identity=identity.public, public=public, signature=signature)


def checked_shares(terms: Terms, sid: bytes, shares: Mapping[str, KeyShare]) -> None:
    """Check that each member gave one signed key of its own.

    Raises:
        FedbiomedSecaggError: not so.
    """
    if shares.keys() != set(terms.members):
        raise setup_error(f"keys of {list(terms.members)!r:.120} are needed, there are those of {sorted(shares)!r:.120}")
    for peer, share in shares.items():
        if share.node_id != peer or len(share.public) != PUBLIC_BYTES:
            raise setup_error(f"the key of {peer} is that of {share.node_id!r:.80}, or not of {PUBLIC_BYTES} bytes")
        if not is_signed(share.identity, share.signature, _share_content(terms, sid, peer, share.public)):
            raise setup_error(f"the key of {peer} is not signed by it for these terms")
    for kind in ("public", "identity"):
        if len({getattr(share, kind) for share in shares.values()}) < len(shares):
            raise setup_error("two nodes show the same key")


def _share_content(terms: Terms, sid: bytes, node_id: str, public: bytes) -> bytes:
    return joined("fbm-secagg-share-v1", sid, node_id, public, terms.digest)
