"""Terms and key agreement: what cannot be is refused by each node, whoever proposes it."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.exceptions import (
    FedbiomedCertificateError,
    FedbiomedSecaggCrypterError,
    FedbiomedSecaggError,
    FedbiomedSecureAggregationError,
)
from fedbiomed.common.secagg.agreement import KeyShare, NodeAgreement, ResearcherAgreement, session_sid, signed_share
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.quantise import better_clip, mean_of, quantise, weighted
from fedbiomed.common.secagg.terms import Scheme, least_threshold
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity
from fedbiomed.common.security.peers import MemoryPeers
from tests.support.secagg import RESEARCHER, agreed, ids, terms


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"members": ("node_0",), "threshold": 2}, "two nodes or more"),
        ({"members": ("node_1", "node_0")}, "sorted"),
        ({"members": ("node_0", "node_0", "node_1")}, "different"),
        ({"members": ("node_0", RESEARCHER)}, "different ids"),
        ({"members": ("no/id", "node_0"), "threshold": 2}, "different ids"),
        ({"threshold": 1}, "between 2 and 3"),
        ({"threshold": 4}, "between 2 and 3"),
        ({"threshold": 2, "distrusts_researcher": True}, "between 3 and 3"),
        ({"threshold": 2, "scheme": Scheme.JOYE_LIBERT}, "between 3 and 3"),
        ({"bits": 33}, "8 to 32 bits"),
        ({"max_weight": 0}, "1 or more"),
        ({"max_weight": 2**32 // 3 + 1}, "weights up to 1431655765"),
    ],
)
def test_terms_that_cannot_be_are_refused(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(FedbiomedSecaggError, match=reason):
        terms(3, **changed)


def test_the_highest_sum_fits_into_the_ring() -> None:
    # 3 * 1431655765 * (2**32 - 1) = (2**32 - 1)**2 < 2**64
    assert terms(3, max_weight=1431655765).highest_sum == (2**32 - 1) ** 2


def test_thresholds() -> None:
    assert [least_threshold(n) for n in range(2, 8)] == [2, 2, 3, 3, 4, 4]
    # of n nodes, 2 t - n are in both of two sets: more than n / 3
    assert [least_threshold(n, distrusts_researcher=True) for n in range(2, 8)] == [2, 3, 3, 4, 5, 5]
    assert least_threshold(5, scheme=Scheme.JOYE_LIBERT) == 5


def test_each_pair_has_one_key_that_no_other_pair_has() -> None:
    made = agreed(terms(4))
    keys = {frozenset((a, b)): made.sessions[a].pair_keys[b] for a in ids(4) for b in ids(4) if a != b}
    assert len(set(keys.values())) == len(keys) == 6
    assert all(made.sessions[b].pair_keys[a] == made.sessions[a].pair_keys[b] for a in ids(4) for b in ids(4) if a != b)
    assert {session.sid for session in made.sessions.values()} == {made.sid}
    assert made.sid != agreed(made.terms).sid  # other nonces, another session


class Table:
    """Three nodes at the same offer, with nonces and shares exchanged."""

    def __init__(self) -> None:
        self.terms = terms(3)
        self.identities = {n: Identity.drawn() for n in ids(3)}
        self.peers = MemoryPeers()
        self.researcher = ResearcherAgreement(Identity.drawn(), self.terms)
        self.nodes = {n: NodeAgreement(n, self.identities[n], self.researcher.offer, self.peers) for n in ids(3)}
        self.nonces = {n: node.nonce for n, node in self.nodes.items()}
        self.shares = {n: node.key_share(self.nonces) for n, node in self.nodes.items()}

    def forged(self, node: str, public: bytes, identity: Identity) -> KeyShare:
        """A share that this identity signed for a node's name."""
        private = X25519PrivateKey.generate()
        share = signed_share(node, identity, self.terms, session_sid(self.terms, self.nonces), private)
        return replace(share, public=public) if public else share


def test_shares_that_were_changed_are_refused() -> None:
    table = Table()
    node, good = table.nodes["node_0"], table.shares
    wrong = {
        "not signed": good | {"node_1": replace(good["node_1"], public=X25519PrivateKey.generate().public_key().public_bytes_raw())},
        "not signed by": good | {"node_1": replace(good["node_1"], signature=bytes(64))},
        "needed": {n: share for n, share in good.items() if n != "node_2"},
        "is that of": good | {"node_1": good["node_2"]},
        "replaced": good | {"node_0": table.forged("node_0", b"", table.identities["node_0"])},
        "the same key": good | {"node_1": table.forged("node_1", b"", table.identities["node_2"])},
    }
    for reason, shares in wrong.items():
        with pytest.raises(FedbiomedSecaggError, match=reason):
            node.session(shares)
    assert node.session(good).sid == table.researcher.sid(table.nonces, good)


def test_one_public_key_for_two_nodes_is_refused() -> None:
    table, private = Table(), X25519PrivateKey.generate()
    sid = session_sid(table.terms, table.nonces)
    double = {n: signed_share(n, table.identities[n], table.terms, sid, private) for n in ("node_1", "node_2")}
    with pytest.raises(FedbiomedSecaggError, match="two nodes show the same key"):
        table.nodes["node_0"].session(table.shares | double)


def test_a_signed_key_of_low_order_is_refused() -> None:
    table = Table()
    sid, public, identity = session_sid(table.terms, table.nonces), b"\x01" + bytes(31), table.identities["node_1"]
    signature = identity.sign(joined("fbm-secagg-share-v1", sid, "node_1", public, table.terms.digest))
    bad = KeyShare(node_id="node_1", identity=identity.public, public=public, signature=signature)
    with pytest.raises(FedbiomedSecaggCrypterError, match="low order"):
        table.nodes["node_0"].session(table.shares | {"node_1": bad})


def test_another_identity_than_the_pinned_one_is_refused() -> None:
    table = Table()
    table.peers.admit("node_1", table.identities["node_1"].public)
    with pytest.raises(FedbiomedCertificateError, match="node_1 shows the key"):
        table.nodes["node_0"].session(table.shares | {"node_1": table.forged("node_1", b"", Identity.drawn())})
    with pytest.raises(FedbiomedCertificateError, match=f"{RESEARCHER} shows the key"):
        NodeAgreement("node_0", table.identities["node_0"], ResearcherAgreement(Identity.drawn(), table.terms).offer, table.peers)


def test_nonces_that_were_changed_are_refused() -> None:
    table, drawn = Table(), {n: bytes([i]) * 16 for i, n in enumerate(ids(3))}
    fresh = NodeAgreement("node_0", table.identities["node_0"], table.researcher.offer, table.peers)
    wrong = {
        "replaced": drawn,
        "are needed": {"node_0": fresh.nonce},
        "there twice": dict.fromkeys(ids(3), fresh.nonce),
        "of another length": drawn | {"node_1": b"short"},
    }
    for reason, nonces in wrong.items():
        with pytest.raises(FedbiomedSecaggError, match=reason):
            fresh.key_share(nonces)
    fresh.key_share(drawn | {"node_0": fresh.nonce})
    with pytest.raises(FedbiomedSecaggError, match="other nonces"):
        fresh.key_share(table.nonces | {"node_0": fresh.nonce})


def test_a_node_joins_what_it_consents_to_only() -> None:
    identity, researcher = Identity.drawn(), Identity.drawn()
    pair = ResearcherAgreement(researcher, terms(2)).offer
    with pytest.raises(FedbiomedSecaggError, match="consent of both operators"):
        NodeAgreement("node_0", identity, pair, MemoryPeers())
    assert NodeAgreement("node_0", identity, pair, MemoryPeers(), allows_two=True).nonce
    offer = ResearcherAgreement(researcher, terms(3)).offer
    with pytest.raises(FedbiomedSecaggError, match="not among the members"):
        NodeAgreement("node_7", identity, offer, MemoryPeers())
    for changed in ({"terms": terms(3)}, {"reveal_key": bytes(32)}, {"signature": bytes(64)}):
        with pytest.raises(FedbiomedSecaggError, match="not signed"):
            NodeAgreement("node_0", identity, replace(offer, **changed), MemoryPeers())  # type: ignore[arg-type]


def test_quantised_values_by_hand() -> None:
    # C = 1, R = 255: z = round((x + 1) * 127.5); -1 -> 0, 0 -> 127.5 -> 128 (to even), 1 -> 255, 0.2 -> 153; 3 and -2 are clipped
    update = {"b": np.array([[-1.0, 0.0], [1.0, 0.2]]), "a": np.array([3.0, -2.0], np.float32)}
    layout = Layout.of(update)
    quantised = quantise(update, layout, 1.0, 8)
    assert quantised.values.tolist() == [255, 0, 0, 128, 255, 153]
    assert quantised.clipped == pytest.approx(2 / 6)
    assert weighted(quantised.values, 3).tolist() == [3, 765, 0, 0, 384, 765, 459]


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("clip", [0.01, 3.0])
def test_the_error_of_the_mean_is_bounded(bits: int, clip: float) -> None:
    rng = np.random.default_rng(bits)
    updates = [{"w": rng.uniform(-clip, clip, 5000)} for _ in range(3)]
    layout, weights = Layout.of(updates[0]), [1, 17, 100]
    sums = sum(
        (weighted(quantise(u, layout, clip, bits).values, w) for u, w in zip(updates, weights, strict=True)), np.zeros(5001, np.uint64)
    )
    plain = sum(w * u["w"] for u, w in zip(updates, weights, strict=True)) / 118
    total, mean = mean_of(sums, layout, clip, bits, most=300)
    assert total == 118
    assert np.abs(mean["w"] - plain).max() <= clip / 2 ** (bits - 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_with_its_name(bad: float) -> None:
    update = {"layer.weight": np.zeros(4), "layer.bias": np.array([0.0, bad])}
    with pytest.raises(FedbiomedSecureAggregationError, match=r"'layer\.bias' holds NaN or infinite"):
        quantise(update, Layout.of(update), 1.0, 32)


def test_other_names_shapes_and_ranges_are_refused() -> None:
    layout = Layout((("w", (2,)),))
    for update in ({"v": np.zeros(2)}, {"w": np.zeros(3)}, {"w": np.zeros(2, complex)}):
        with pytest.raises(FedbiomedSecureAggregationError):
            quantise(update, layout, 1.0, 32)
    for clip in (0, -1.0, float("nan"), float("inf"), True, "3"):
        with pytest.raises(FedbiomedSecureAggregationError, match="clipping range"):
            quantise({"w": np.zeros(2)}, layout, clip, 32)  # type: ignore[arg-type]
    with pytest.raises(FedbiomedSecureAggregationError, match="no values"):
        Layout.of({})
    with pytest.raises(FedbiomedSecureAggregationError, match="has 2 values, 3 are needed"):
        mean_of(np.zeros(2, np.uint64), layout, 1.0, 32, most=1)


def test_a_better_range_is_proposed() -> None:
    assert better_clip(1.0, []) == better_clip(1.0, [0.0, 0.001]) == 1.0
    assert better_clip(1.0, [0.0, 0.0011]) == 2.0
    assert better_clip(1.0, [0.2, 0.0]) == 4.0
