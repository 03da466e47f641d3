"""Joye and Libert's scheme: the sum over all nodes is exact, trailing zeros included, and no other sum opens."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError, FedbiomedSecaggError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.joye_libert import Context, Packing
from fedbiomed.common.secagg.joye_libert_keys import (
    KeySum,
    Modulus,
    NodeKeys,
    drawn_keys,
    keys_as_bytes,
    keys_of_bytes,
    sealed_shares,
    server_key,
    signed_modulus,
    with_sum,
)
from fedbiomed.common.secagg.joye_libert_parties import HiddenAttempt, JoyeLibertNode, JoyeLibertServer, hiding_seconds
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.ledger import MemoryLedger
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.lom_messages import Upload
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.quantise import mean_of
from fedbiomed.common.secagg.terms import Purpose, Scheme, Weighting
from tests.support.secagg import Agreed, agreed, ids, terms

# 60 values of 16 + 7 + 2 = 25 bits with the weight: 81 per block of 2047 bits, so one block, whose end is zeros (all nodes clip at -1)
VALUES = {node: [0.5, -0.25 * index, *[-1.0] * 58] for index, node in enumerate(ids(3))}
SIZES = {Purpose.WEIGHTS: 60}


class JoyeLibertParties:
    """Three nodes and a researcher with their keys."""

    def __init__(self) -> None:
        self.agreed: Agreed = agreed(terms(3, scheme=Scheme.JOYE_LIBERT, bits=16))
        sessions, identities = self.agreed.sessions, self.agreed.identities
        self.modulus = signed_modulus(sessions["node_0"], identities["node_0"])
        self.drawn: Mapping[str, NodeKeys] = {n: drawn_keys(sessions[n], self.modulus) for n in ids(3)}
        shares = {n: sealed_shares(sessions[n], self.drawn[n]) for n in ids(3)}
        self.shares_for = {n: {peer: shares[peer][n] for peer in ids(3) if peer != n} for n in ids(3)}
        self.keys = {n: with_sum(sessions[n], identities[n], self.drawn[n], self.shares_for[n])[0] for n in ids(3)}
        self.sums = {n: keys.key_sum for n, keys in self.keys.items() if keys.key_sum is not None}
        self.nodes = {n: JoyeLibertNode(sessions[n], MemoryLedger(), self.keys[n]) for n in ids(3)}
        self.server_key = self.opened_key(self.sums)

    def opened_key(self, sums: Mapping[str, KeySum]) -> int:
        """The server key, of the nodes' sums of shares."""
        told = self.agreed
        identities = {n: identity.public for n, identity in told.identities.items()}
        return server_key(told.terms, told.sid, identities, self.modulus.value, sums, told.researcher.reveal_private)

    def server(self, round_: int = 0, sizes: Mapping[Purpose, int] = SIZES) -> JoyeLibertServer:
        """The researcher's side of a round."""
        return JoyeLibertServer(
            HiddenAttempt(
                terms=self.agreed.terms,
                sid=self.agreed.sid,
                round=round_,
                attempt=0,
                sizes=sizes,
                modulus=self.modulus.value,
                server_key=self.server_key,
            )
        )

    def upload(self, node: str, round_: int = 0, bound: bytes = b"", weighting: Weighting = Weighting.SAMPLES) -> Upload:
        """A node's hidden values; the weight is 1 more than its number."""
        weight, part = ids(3).index(node) + 1, Part({"w": np.array(VALUES[node])}, 1.0, weighting)
        return self.nodes[node].protect(round_, 0, {Purpose.WEIGHTS: part}, weight, bound)(lambda: None)


@pytest.fixture(scope="module")
def parties() -> JoyeLibertParties:
    return JoyeLibertParties()


def test_the_sum_of_all_is_exact_and_of_fewer_does_not_open(parties: JoyeLibertParties) -> None:
    server, uploads = parties.server(), {n: parties.upload(n) for n in ids(3)}
    for n in ids(2):
        server.take_upload(uploads[n])
    with pytest.raises(FedbiomedSecureAggregationError, match="all nodes must answer, and nothing was opened \\(node_2"):
        server.open()
    with pytest.raises(FedbiomedSecureAggregationError, match="there already"):
        server.take_upload(uploads["node_1"])
    damaged = {Purpose.WEIGHTS: uploads["node_2"].vectors[Purpose.WEIGHTS] ^ np.uint64(1)}
    short = {Purpose.WEIGHTS: uploads["node_2"].vectors[Purpose.WEIGHTS][:-1]}
    for changed in ({"vectors": damaged}, {"vectors": short}, {"vectors": {}}, {"round": 1}, {"node_id": "node_9"}):
        with pytest.raises(FedbiomedSecureAggregationError):
            server.take_upload(replace(uploads["node_2"], **changed))  # type: ignore[arg-type]
    assert not server.can_open
    server.take_upload(uploads["node_2"])
    assert server.close().nodes == ids(3)
    sums = server.open()[Purpose.WEIGHTS]
    codes = {n: [round((x + 1.0) * (65535 / 2)) for x in VALUES[n]] for n in ids(3)}
    assert sums.tolist() == [6, *(sum((i + 1) * codes[n][j] for i, n in enumerate(ids(3))) for j in range(60))]
    total, mean = mean_of(sums, Layout((("w", (60,)),)), 1.0, 16, most=300)
    assert total == 6
    plain = sum((i + 1) * np.array(VALUES[n]) for i, n in enumerate(ids(3))) / 6
    assert np.abs(mean["w"] - plain).max() <= 1 / 2**15


def test_a_product_without_a_node_does_not_open(parties: JoyeLibertParties) -> None:
    # also where the researcher passes by the check of its own side
    hidden = joye_libert.HiddenSum(61, Packing.of(parties.agreed.terms, parties.modulus.value), parties.modulus.value)
    for n in ids(2):
        hidden.add(parties.upload(n, round_=1).vectors[Purpose.WEIGHTS])
    with pytest.raises(FedbiomedSecureAggregationError, match="does not open"):
        hidden.opened(parties.server_key, Context(Place(parties.agreed.sid, 1, 0), Purpose.WEIGHTS))


def test_nodes_that_were_told_different_orders_have_no_sum(parties: JoyeLibertParties) -> None:
    uploads = {n: parties.upload(n, 3, b"another" if n == "node_1" else b"the order") for n in ids(3)}
    server = parties.server(3)
    server.take_upload(uploads["node_0"])
    with pytest.raises(FedbiomedSecureAggregationError, match="node_1 was told another order than node_0"):
        server.take_upload(uploads["node_1"])
    server.take_upload(replace(uploads["node_1"], bound=b"the order"))  # as a node that lies about it
    server.take_upload(uploads["node_2"])
    with pytest.raises(FedbiomedSecureAggregationError, match="does not open"):
        server.open()


def test_nodes_count_alike_where_that_is_the_rule(parties: JoyeLibertParties) -> None:
    server = parties.server(7)
    for n in ids(3):
        server.take_upload(parties.upload(n, 7, weighting=Weighting.NODES))
    total, mean = mean_of(server.open()[Purpose.WEIGHTS], Layout((("w", (60,)),)), 1.0, 16, most=300)
    assert total == 3
    assert np.abs(mean["w"] - sum(np.array(VALUES[n]) for n in ids(3)) / 3).max() <= 1 / 2**15


def test_a_round_is_answered_once(parties: JoyeLibertParties, caplog: pytest.LogCaptureFixture) -> None:
    first = parties.upload("node_0", round_=2)
    again = parties.upload("node_0", round_=2)  # as after a restart
    assert again.digest == first.digest
    part = {Purpose.WEIGHTS: Part({"w": np.zeros(60)}, 1.0)}
    for attempt in (0, 1):
        with pytest.raises(FedbiomedSecureAggregationError, match="answered already"):
            parties.nodes["node_0"].protect(2, attempt, part, 1)
    assert caplog.text.count("refused researcher researcher_1") == 2
    parties.nodes["node_0"].close(2)
    for wrong in ((2, 0, part, 1), (-1, 0, part, 1), (5, 0, part, 101), (5, 0, {}, 1)):
        with pytest.raises(FedbiomedSecureAggregationError):
            parties.nodes["node_0"].protect(*wrong)  # type: ignore[arg-type]


def test_hiding_ends_when_it_is_not_wanted_any_more(parties: JoyeLibertParties) -> None:
    def unwanted() -> None:
        raise InterruptedError

    hide = parties.nodes["node_0"].protect(4, 0, {Purpose.WEIGHTS: Part({"w": np.zeros(60)}, 1.0)}, 1)
    with pytest.raises(InterruptedError):
        hide(unwanted)


def test_the_server_key_is_minus_the_sum_of_the_keys(parties: JoyeLibertParties) -> None:
    assert parties.server_key == -sum(keys.key for keys in parties.keys.values())
    with pytest.raises(FedbiomedSecaggError, match="are needed"):
        parties.opened_key({"node_0": parties.sums["node_0"]})
    signature = parties.sums["node_0"].signature
    for forged in (
        parties.sums["node_1"],
        replace(parties.sums["node_1"], signature=signature),
        replace(parties.sums["node_0"], signature=b""),
    ):
        with pytest.raises(FedbiomedSecaggError, match="node_0 is not signed by it"):
            parties.opened_key({**parties.sums, "node_0": forged})


def test_shares_are_summed_once_and_read_by_their_receiver_only(parties: JoyeLibertParties) -> None:
    sessions, identities = parties.agreed.sessions, parties.agreed.identities
    mine, session, identity = parties.shares_for["node_0"], sessions["node_0"], identities["node_0"]
    with pytest.raises(FedbiomedSecaggError, match="are needed"):
        with_sum(session, identity, parties.drawn["node_0"], {})
    for other in (parties.shares_for["node_1"]["node_2"], mine["node_1"]):  # meant for another node; of another owner
        with pytest.raises(FedbiomedSecaggCrypterError):
            with_sum(session, identity, parties.drawn["node_0"], {**mine, "node_2": other})
    keys = parties.keys["node_0"]
    assert with_sum(session, identity, keys, mine) == (keys, keys.key_sum)
    with pytest.raises(FedbiomedSecaggError, match="other shares were summed before"):
        with_sum(session, identity, keys, {**mine, "node_2": b"other"})
    assert keys.shares == {}
    with pytest.raises(FedbiomedSecaggError, match="agreed on already"):
        sealed_shares(session, keys)
    for kept in (parties.drawn["node_0"], keys):
        assert keys_of_bytes(keys_as_bytes(kept)) == kept
        assert str(kept.key) not in repr(kept)


def test_a_modulus_must_be_large_composite_and_signed_by_the_first_node(parties: JoyeLibertParties) -> None:
    sessions, identities = parties.agreed.sessions, parties.agreed.identities
    assert joye_libert.checked_modulus(parties.modulus.value).bit_length() >= 2048
    prime = 2**2203 - 1  # a Mersenne prime
    for unsound, reason in (
        (2**1024 + 643, "2048 to 8192 bits"),
        (2**9000 + 1, "2048 to 8192 bits"),
        (prime, "two large primes"),
        (prime**2, "two large primes"),
        (3 * prime, "two large primes"),
    ):
        with pytest.raises(FedbiomedSecaggError, match=reason):
            joye_libert.checked_modulus(unsound)
    with pytest.raises(FedbiomedSecaggError, match="2048 bits or more"):
        joye_libert.drawn_modulus(1024)
    with pytest.raises(FedbiomedSecaggError, match="draws the modulus"):
        signed_modulus(sessions["node_1"], identities["node_1"])
    for other in (replace(parties.modulus, value=parties.modulus.value + 2), Modulus(value=parties.modulus.value, signature=bytes(64))):
        with pytest.raises(FedbiomedSecaggError, match="not signed by node_0"):
            drawn_keys(sessions["node_1"], other)


def test_nodes_that_were_told_different_moduli_cannot_read_each_others_shares(parties: JoyeLibertParties) -> None:
    sessions, identities = parties.agreed.sessions, parties.agreed.identities
    other = drawn_keys(sessions["node_1"], signed_modulus(sessions["node_0"], identities["node_0"]))
    shares = {**parties.shares_for["node_2"], "node_1": sealed_shares(sessions["node_1"], other)["node_2"]}
    with pytest.raises(FedbiomedSecaggCrypterError):
        with_sum(sessions["node_2"], identities["node_2"], parties.drawn["node_2"], shares)


def test_hashes_and_shares(parties: JoyeLibertParties) -> None:
    modulus = parties.modulus.value
    places = [Place(sid, r, a) for sid in (b"a", b"b") for r in (0, 1) for a in (0, 1)]
    contexts = [Context(place, p, bound) for place in places for p in Purpose for bound in (b"", b"x")]
    hashes = {joye_libert.hash_to_group(modulus, context, block) for context in contexts for block in (0, 1)}
    assert len(hashes) == 2 * len(contexts)
    assert max(h.bit_length() for h in hashes) > 2 * modulus.bit_length() - 10  # over the whole group
    shares = joye_libert.additive_shares(5, 4, 64)
    assert (len(shares), sum(shares) % 2**64) == (4, 5)


def test_packing_and_its_cost(parties: JoyeLibertParties) -> None:
    # 32 + bits(100) 7 + ceil(log2 3) 2 = 41 bits; floor(2047 / 41) = 49
    packing = Packing.of(terms(3), 1 << 2047)
    assert (packing.width, packing.per_block, packing.blocks(49), packing.blocks(50)) == (41, 49, 1, 2)
    assert hiding_seconds(parties.agreed.terms, parties.modulus.value, SIZES) == 0.0  # a single block
    assert hiding_seconds(parties.agreed.terms, parties.modulus.value, {Purpose.WEIGHTS: 10**9}) > 60
