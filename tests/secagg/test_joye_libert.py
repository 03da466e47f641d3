"""Joye and Libert's scheme: the sum over all nodes is exact, trailing zeros included, and no other sum opens."""

from dataclasses import replace

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError, FedbiomedSecaggError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.joye_libert import Packing
from fedbiomed.common.secagg.joye_libert_parties import (
    HiddenAttempt,
    HiddenUpload,
    JoyeLibertNode,
    JoyeLibertServer,
    Modulus,
    server_key,
    signed_modulus,
)
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.ledger import MemoryLedger
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.quantise import mean_of
from fedbiomed.common.secagg.terms import Purpose, Scheme
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
        self.nodes = {n: JoyeLibertNode(sessions[n], identities[n], MemoryLedger(), self.modulus) for n in ids(3)}
        shares = {n: node.key_shares() for n, node in self.nodes.items()}
        self.shares_for = {n: {peer: shares[peer][n] for peer in ids(3) if peer != n} for n in ids(3)}
        self.sums = {n: node.share_sum(self.shares_for[n]) for n, node in self.nodes.items()}
        self.server_key = self.opened_key(self.sums)

    def opened_key(self, sums: dict[str, bytes]) -> int:
        """The server key, of the nodes' sums of shares."""
        told = self.agreed
        return server_key(told.terms, told.sid, self.modulus.value, sums, told.researcher.reveal_private)

    def server(self, round_: int = 0) -> JoyeLibertServer:
        """The researcher's side of a round."""
        given = {"terms": self.agreed.terms, "sid": self.agreed.sid, "modulus": self.modulus.value, "server_key": self.server_key}
        return JoyeLibertServer(HiddenAttempt(round=round_, attempt=0, sizes=SIZES, **given))  # type: ignore[arg-type]

    def upload(self, node: str, round_: int = 0) -> HiddenUpload:
        """A node's hidden values; the weight is 1 more than its number."""
        weight = ids(3).index(node) + 1
        return self.nodes[node].protect(round_, 0, {Purpose.WEIGHTS: Part({"w": np.array(VALUES[node])}, 1.0)}, weight)


@pytest.fixture(scope="module")
def parties() -> JoyeLibertParties:
    return JoyeLibertParties()


def test_the_sum_of_all_is_exact_and_of_fewer_does_not_open(parties: JoyeLibertParties) -> None:
    server, uploads = parties.server(), {n: parties.upload(n) for n in ids(3)}
    for n in ids(2):
        server.take_upload(uploads[n])
    with pytest.raises(FedbiomedSecureAggregationError, match=r"\['node_2'\] are missing"):
        server.open()
    with pytest.raises(FedbiomedSecureAggregationError, match="there already"):
        server.take_upload(uploads["node_1"])
    damaged = {Purpose.WEIGHTS: uploads["node_2"].blocks[Purpose.WEIGHTS] ^ np.uint8(1)}
    for changed in ({"blocks": damaged}, {"round": 1}, {"node_id": "node_9"}):
        with pytest.raises(FedbiomedSecureAggregationError):
            server.take_upload(replace(uploads["node_2"], **changed))  # type: ignore[arg-type]
    server.take_upload(uploads["node_2"])
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
        hidden.add(parties.upload(n, round_=1).blocks[Purpose.WEIGHTS], n)
    with pytest.raises(FedbiomedSecureAggregationError, match="does not open"):
        hidden.opened(parties.server_key, Place(parties.agreed.sid, 1, 0), Purpose.WEIGHTS)


def test_an_attempt_is_used_once(parties: JoyeLibertParties) -> None:
    parties.upload("node_0", round_=2)
    with pytest.raises(FedbiomedSecureAggregationError, match="was used already"):
        parties.upload("node_0", round_=2)
    parties.nodes["node_0"].close(2)
    with pytest.raises(FedbiomedSecureAggregationError, match="was used already"):
        parties.nodes["node_0"].protect(2, 1, {Purpose.WEIGHTS: Part({"w": np.zeros(60)}, 1.0)}, 1)


def test_the_server_key_is_minus_the_sum_of_the_keys(parties: JoyeLibertParties) -> None:
    assert parties.server_key == -sum(node.key for node in parties.nodes.values())
    with pytest.raises(FedbiomedSecaggError, match="are needed"):
        parties.opened_key({"node_0": parties.sums["node_0"]})
    with pytest.raises(FedbiomedSecaggCrypterError):  # one node's sum under another's name
        parties.opened_key(parties.sums | {"node_0": parties.sums["node_1"]})
    with pytest.raises(FedbiomedSecaggError, match="are needed"):
        parties.nodes["node_0"].share_sum({})


def test_a_modulus_must_be_large_composite_and_signed_by_the_first_node(parties: JoyeLibertParties) -> None:
    sessions, identities = parties.agreed.sessions, parties.agreed.identities
    assert joye_libert.checked_modulus(parties.modulus.value).bit_length() >= 2048
    prime = 2**2203 - 1  # a Mersenne prime
    for unsound, reason in (
        (2**1024 + 643, "2048 bits or more"),
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
            JoyeLibertNode(sessions["node_1"], identities["node_1"], MemoryLedger(), other)


def test_hashes_and_shares(parties: JoyeLibertParties) -> None:
    modulus = parties.modulus.value
    places = [(Place(sid, r, a), p, b) for sid in (b"a", b"b") for r in (0, 1) for a in (0, 1) for p in Purpose for b in (0, 1)]
    hashes = {joye_libert.hash_to_group(modulus, place, purpose, block) for place, purpose, block in places}
    assert len(hashes) == len(places)
    assert max(h.bit_length() for h in hashes) > 2 * modulus.bit_length() - 10  # over the whole group
    shares = joye_libert.additive_shares(5, 4, 64)
    assert (len(shares), sum(shares) % 2**64) == (4, 5)


def test_packing() -> None:
    # 32 + bits(100) 7 + ceil(log2 3) 2 = 41 bits; floor(2047 / 41) = 49
    packing = Packing.of(terms(3), 1 << 2047)
    assert (packing.width, packing.per_block, packing.blocks(49), packing.blocks(50)) == (41, 49, 1, 2)
