"""LOM-R without a network: sums are exact for each pattern of losses that is allowed, and refused for the others."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.ledger import MemoryLedger
from fedbiomed.common.secagg.lom_masks import Place, pair_secret, pair_stream, self_stream
from fedbiomed.common.secagg.lom_messages import Notice, vectors_digest
from fedbiomed.common.secagg.lom_node import LomNode, Part
from fedbiomed.common.secagg.quantise import mean_of, quantise, weighted
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.security.keystream import Words, keystream
from tests.support.secagg import LomParties, ids, terms

VALUES = {node: [0.1 * index, -0.5, 1.0] for index, node in enumerate(ids(6))}
WEIGHT = {node: index + 1 for index, node in enumerate(ids(6))}
SIZES = {Purpose.WEIGHTS: 3}
HERE, SILENT, GONE = "reveals", "dies after its upload", "dies before its upload"


def expected(nodes: list[str], values: dict[str, list[float]] = VALUES) -> list[int]:
    """[W, S_1 ...] by Python's integers: z = round((x + 1) * (2**32 - 1) / 2), weighted."""
    codes = {n: [round((x + 1.0) * ((2**32 - 1) / 2.0)) for x in values[n]] for n in nodes}
    sums = [sum(WEIGHT[n] * codes[n][i] for n in nodes) for i in range(3)]
    return [sum(WEIGHT[n] for n in nodes), *sums]


def outcome(parties: LomParties, fates: tuple[str, ...], round_: int) -> list[int] | None:
    """The opened sum, or None where the researcher's side refuses."""
    server = parties.server(SIZES, round_)
    nodes = parties.agreed.terms.members
    for node, fate in zip(nodes, fates, strict=True):
        if fate != GONE:
            server.take_upload(parties.upload(node, VALUES[node], WEIGHT[node], round_))
    try:
        return [int(value) for value in parties.opened(server, [n for n, fate in zip(nodes, fates, strict=True) if fate == HERE])]
    except FedbiomedSecureAggregationError:
        return None


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_each_pattern_of_losses_opens_exactly_or_is_refused(count: int) -> None:
    parties = LomParties(terms(count))
    least = max(2, count // 2 + 1)
    for round_, fates in enumerate(itertools.product((HERE, SILENT, GONE), repeat=count)):
        uploaded = [n for n, fate in zip(ids(count), fates, strict=True) if fate != GONE]
        is_allowed = fates.count(HERE) >= least  # then at least as many uploaded
        assert outcome(parties, fates, round_) == (expected(uploaded) if is_allowed else None), fates


def test_a_second_attempt_masks_the_kept_update_anew() -> None:
    parties = LomParties(terms(4))
    first = {n: parties.upload(n, VALUES[n], WEIGHT[n]) for n in ids(4)}
    server = parties.server(SIZES, attempt=1)
    for n in ids(3):  # the fourth was lost before anybody revealed
        again = parties.nodes[n].protect_again(0, 1)
        assert not np.any(again.vectors[Purpose.WEIGHTS] == first[n].vectors[Purpose.WEIGHTS])
        server.take_upload(again)
    assert [int(v) for v in parties.opened(server, ids(3))] == expected(list(ids(3)))


@pytest.mark.parametrize("gone", [(), ("node_3",), ("node_1", "node_3")])
def test_the_mean_of_several_purposes_is_close_to_the_plain_one(gone: tuple[str, ...]) -> None:
    rng = np.random.default_rng(3)
    clips = {Purpose.WEIGHTS: 3.0, Purpose.AUX: 0.5}
    updates = {
        n: {p: {"a": rng.uniform(-c, c, (7, 3)), "b": rng.uniform(-c, c, 5).astype(np.float32)} for p, c in clips.items()} for n in ids(5)
    }
    parties = LomParties(terms(5, bits=24))
    server = parties.server(dict.fromkeys(clips, 26))
    alive = [n for n in ids(5) if n not in gone]
    for n in alive:
        server.take_upload(parties.nodes[n].protect(0, 0, {p: Part(updates[n][p], c) for p, c in clips.items()}, WEIGHT[n]))
    for n in alive:
        server.take_reveal(parties.nodes[n].reveal(server.notice(n)))
    sums = server.open()
    for purpose, clip in clips.items():
        total, mean = mean_of(sums[purpose], Layout.of(updates["node_0"][purpose]), clip, 24, most=500)
        assert total == sum(WEIGHT[n] for n in alive)
        for name, values in mean.items():
            plain = sum(WEIGHT[n] * updates[n][purpose][name].astype(np.float64) for n in alive) / total
            assert np.abs(values - plain).max() <= clip / 2**23


def test_what_is_uploaded_says_nothing_without_the_seeds() -> None:
    # the same update twice, in two rounds: no vector has a value in common with the other, the codes or the difference of two nodes
    parties = LomParties(terms(3))
    vectors = [parties.upload(n, [0.25] * 1000, 1, round_).vectors[Purpose.WEIGHTS] for n in ids(3) for round_ in (0, 1)]
    code = int(quantise({"w": np.full(1, 0.25)}, Layout((("w", (1,)),)), 1.0, 32).values[0])
    for one, other in itertools.combinations(vectors, 2):
        assert len(np.intersect1d(one, other)) == 0
        assert len(np.unique(one - other)) == 1001
    assert all(code not in vector for vector in vectors)


def ready(count: int = 4, uploaded: int = 4, **changed: object) -> tuple[LomParties, Notice]:
    """Parties whose vectors have come, and the notice for the first node."""
    parties = LomParties(terms(count, **changed))
    server = parties.server(SIZES)
    for n in ids(uploaded):
        server.take_upload(parties.upload(n, VALUES[n], WEIGHT[n]))
    return parties, server.notice("node_0")


def other_set(notice: Notice, nodes: tuple[str, ...], **changed: int) -> Notice:
    """A notice of another set, with the shares that go with it."""
    survivors = replace(notice.survivors, nodes=nodes, **changed)
    return Notice(survivors=survivors, digest=survivors.digest, shares={n: s for n, s in notice.shares.items() if n in nodes})


def test_a_node_accepts_one_survivor_set_per_attempt(caplog: pytest.LogCaptureFixture) -> None:
    parties, notice = ready()
    node = parties.nodes["node_0"]
    signature = node.consent(notice)
    with pytest.raises(FedbiomedSecureAggregationError, match="another survivor set"):
        node.consent(other_set(notice, ids(3)))
    with pytest.raises(FedbiomedSecureAggregationError, match="another survivor set"):
        node.reveal(other_set(notice, ids(3)))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert node.consent(notice) == signature
    node.reveal(notice)
    assert node.reveal(notice).digest == notice.digest  # a repeated question has the answer that it had


def test_a_node_that_has_revealed_refuses_any_further_attempt() -> None:
    parties, notice = ready()
    node = parties.nodes["node_0"]
    node.reveal(notice)
    for again in (lambda: node.protect_again(0, 1), lambda: parties.upload("node_0", VALUES["node_0"], 1, 0, 1)):
        with pytest.raises(FedbiomedSecureAggregationError, match="opened already"):
            again()
    parties.upload("node_0", VALUES["node_0"], 1, 1)  # the next round is another matter


def test_both_masks_of_a_node_are_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    parties, notice = ready()
    shorter = other_set(notice, ids(3))
    both = replace(shorter, shares=notice.shares)  # pair masks with node_3 by its absence, and the share of its self seed
    with pytest.raises(FedbiomedSecureAggregationError, match=r"both self mask and pair masks are asked of \['node_3'\]"):
        parties.nodes["node_0"].reveal(both)
    assert "both self mask" in caplog.text


@pytest.mark.parametrize(
    ("nodes", "changed", "reason"),
    [
        (ids(2), {}, "2 of 4 nodes are left"),
        (("node_1", "node_2", "node_3"), {}, "not in the sum"),
        (("node_0", "node_1", "node_9"), {}, "no members"),
        (("node_1", "node_0", "node_2"), {}, "sorted"),
        (("node_0", "node_0", "node_1"), {}, "different"),
        (ids(4), {"attempt": 1}, "not the one"),
        (ids(4), {"round": 1}, "not the one"),
    ],
)
def test_a_set_that_cannot_be_is_refused(nodes: tuple[str, ...], changed: dict[str, int], reason: str) -> None:
    parties, notice = ready()
    with pytest.raises(FedbiomedSecureAggregationError, match=reason):
        parties.nodes["node_0"].reveal(other_set(notice, nodes, **changed))


def test_a_hash_of_another_set_is_refused() -> None:
    parties, notice = ready()
    with pytest.raises(FedbiomedSecureAggregationError, match="another hash"):
        parties.nodes["node_0"].consent(replace(notice, digest=bytes(32)))


def test_an_attempt_is_used_once_and_in_order() -> None:
    parties = LomParties(terms(3))
    parties.upload("node_0", VALUES["node_0"], 1, 0, 1)
    for attempt in (0, 1):
        with pytest.raises(FedbiomedSecureAggregationError, match="ask for attempt 2"):
            parties.upload("node_0", VALUES["node_0"], 1, 0, attempt)


def test_the_record_is_kept_before_anything_leaves() -> None:
    """A node that starts again with what it remembers goes on where it was, and refuses what it refused."""
    parties = LomParties(terms(4))
    ledger, session, identity = MemoryLedger(), parties.agreed.sessions["node_1"], parties.agreed.identities["node_1"]
    LomNode(session, identity, ledger).protect(5, 0, {Purpose.WEIGHTS: Part({"w": np.zeros(3)}, 1.0)}, 2)
    again = LomNode(session, identity, ledger)
    with pytest.raises(FedbiomedSecureAggregationError, match="used already"):
        again.protect(5, 0, {Purpose.WEIGHTS: Part({"w": np.zeros(3)}, 1.0)}, 2)
    assert again.protect_again(5, 1).attempt == 1
    survivors = SurvivorSet(sid=session.sid, round=5, attempt=1, nodes=ids(4))
    again.consent(Notice(survivors=survivors, digest=survivors.digest, shares={}))
    third = LomNode(session, identity, ledger)
    with pytest.raises(FedbiomedSecureAggregationError, match="another survivor set"):
        third.reveal(other_set(Notice(survivors=survivors, digest=survivors.digest, shares={}), ids(3)))
    third.close(5)
    record = ledger.record(session.sid, 5)
    assert record is not None
    assert (record.self_seed, ledger.values(session.sid, 5)) == (None, {})
    for refused in (
        lambda: third.protect_again(5, 2),
        lambda: third.reveal(Notice(survivors=survivors, digest=survivors.digest, shares={})),
    ):
        with pytest.raises(FedbiomedSecureAggregationError):
            refused()


def test_a_distrusted_researcher_needs_signatures_of_more_than_two_thirds() -> None:
    parties, notice = ready(distrusts_researcher=True)
    node = parties.nodes["node_0"]
    signatures = {n: parties.nodes[n].consent(replace(notice, shares={})) for n in ids(2)}
    for told in (None, signatures, signatures | {"node_2": signatures["node_1"]}):
        with pytest.raises(FedbiomedSecureAggregationError, match=r"[02] nodes signed"):
            node.reveal(notice, told)
    signatures["node_2"] = parties.nodes["node_2"].consent(replace(notice, shares={}))
    assert node.reveal(notice, signatures).node_id == "node_0"


def test_what_the_researcher_takes_must_fit() -> None:
    parties = LomParties(terms(3))
    server = parties.server(SIZES)
    good = parties.upload("node_0", VALUES["node_0"], 1)
    other = {Purpose.WEIGHTS: good.vectors[Purpose.WEIGHTS] + np.uint64(1)}
    floats = {Purpose.WEIGHTS: good.vectors[Purpose.WEIGHTS].astype(np.float64)}
    short = {Purpose.WEIGHTS: good.vectors[Purpose.WEIGHTS][:-1]}
    for bad in (
        replace(good, node_id="node_9"),
        replace(good, round=1),
        replace(good, sid=bytes(32)),
        replace(good, vectors=other),
        replace(good, vectors=floats, digest=vectors_digest(floats)),
        replace(good, vectors=short, digest=vectors_digest(short)),
    ):
        with pytest.raises(FedbiomedSecureAggregationError):
            server.take_upload(bad)
    server.take_upload(good)
    with pytest.raises(FedbiomedSecureAggregationError, match="there already"):
        server.take_upload(good)
    with pytest.raises(FedbiomedSecureAggregationError, match="1 of 3 nodes are left, 2 are needed; nothing is revealed"):
        server.close()
    server.take_upload(parties.upload("node_1", VALUES["node_1"], 1))
    server.close()
    with pytest.raises(FedbiomedSecureAggregationError, match="was closed"):
        server.take_upload(parties.upload("node_2", VALUES["node_2"], 1))
    reveal = parties.nodes["node_0"].reveal(server.notice("node_0"))
    for bad_reveal in (replace(reveal, node_id="node_1"), replace(reveal, digest=bytes(32)), replace(reveal, signature=bytes(64))):
        with pytest.raises(FedbiomedSecureAggregationError):
            server.take_reveal(bad_reveal)
    with pytest.raises(FedbiomedSecaggCrypterError):
        server.take_reveal(replace(reveal, sealed=reveal.sealed[:-1] + bytes([reveal.sealed[-1] ^ 1])))


def test_weights_and_values_that_cannot_be_leave_no_trace() -> None:
    parties = LomParties(terms(3))
    for weight in (0, 101, 1.5, True):
        with pytest.raises(FedbiomedSecureAggregationError, match="counts by 1 to 100"):
            parties.upload("node_0", VALUES["node_0"], weight)  # type: ignore[arg-type]
    with pytest.raises(FedbiomedSecureAggregationError, match="'w' holds NaN"):
        parties.upload("node_0", [0.0, float("nan"), 1.0])
    assert parties.upload("node_0", VALUES["node_0"]).attempt == 0  # the attempt was not used up


def test_a_sum_that_a_mask_is_left_in_does_not_open() -> None:
    layout = Layout((("w", (3,)),))
    for sums, reason in (([0, 0, 0, 0], "weight 0"), ([301, 0, 0, 0], "weight 301"), ([2, 2**33 - 1, 0, 0], "above the highest")):
        with pytest.raises(FedbiomedSecureAggregationError, match=reason):
            mean_of(np.array(sums, np.uint64), layout, 1.0, 32, most=300)
    assert mean_of(np.array([2, 2**33 - 2, 0, 2**32 - 1], np.uint64), layout, 1.0, 32, most=300)[1]["w"] == pytest.approx([1.0, -1.0, 0.0])


def recovered(target: Words, known: Words, plain: Words, codes: Words) -> int:
    """How many of the target's codes come out when the mask of a known plain value is taken for theirs."""
    return max(int(np.isin(target - mask, codes).sum()) for mask in known - plain)


def test_a_known_value_tells_nothing_of_the_others() -> None:
    """The attack on a check value which is masked like a parameter: the researcher knows it, so has its mask."""
    values, weight = np.random.default_rng(5).uniform(-1, 1, 2000), 7
    parts = {Purpose.METRICS: Part({"check": np.full(1, 0.5)}, 1.0), Purpose.WEIGHTS: Part({"w": values}, 1.0)}
    upload = LomParties(terms(3)).nodes["node_0"].protect(0, 0, parts, weight)
    target, check = upload.vectors[Purpose.WEIGHTS], upload.vectors[Purpose.METRICS]
    plain = weighted(quantise(parts[Purpose.WEIGHTS].update, Layout((("w", (2000,)),)), 1.0, 32).values, weight)
    known = weighted(quantise(parts[Purpose.METRICS].update, Layout((("check", (1,)),)), 1.0, 32).values, weight)
    assert recovered(target, check, known, plain) == 0
    assert recovered(target[2:], target[:2], plain[:2], plain[2:]) == 0  # nor does a parameter that is known
    assert recovered(plain + (check[1] - known[1]), check[1:], known[1:], plain) == 2001  # the same attack where the mask is shared


def test_masks_never_repeat() -> None:
    firsts = set()
    for round_, attempt, purpose, chunk in itertools.product(range(18), range(5), Purpose, range(4)):
        place = Place(bytes(32), round_, attempt)
        pair = pair_stream(pair_secret(b"k" * 32, place), place, purpose, is_added=True).key_of(chunk)
        own = self_stream(b"k" * 32, place, purpose, is_added=True).key_of(chunk)
        firsts |= {keystream(key, 4).tobytes() for key in (pair, own)}
    assert len(firsts) == 2 * 18 * 5 * 3 * 4


def test_nodes_that_were_told_different_things_do_not_open_a_sum() -> None:
    parties = LomParties(terms(3))
    server = parties.server({Purpose.WEIGHTS: 2})
    for node, told in zip(ids(3), (b"one model", b"one model", b"another"), strict=True):
        part = {Purpose.WEIGHTS: Part({"w": np.asarray([0.5, -0.5])}, 1.0)}
        server.take_upload(parties.nodes[node].protect(0, 0, part, 1, told))
    sums = parties.opened(server, ids(3))
    with pytest.raises(FedbiomedSecureAggregationError, match="does not open"):
        mean_of(sums, Layout.of({"w": np.zeros(2)}), 1.0, 32, 300)


def test_what_nodes_were_told_goes_into_what_is_revealed_for_the_lost() -> None:
    parties = LomParties(terms(4))
    server = parties.server({Purpose.WEIGHTS: 1})
    for node in ids(4)[:3]:
        server.take_upload(parties.nodes[node].protect(0, 0, {Purpose.WEIGHTS: Part({"w": np.asarray([0.25])}, 1.0)}, 2, b"model"))
    weight, mean = mean_of(parties.opened(server, ids(4)[:3]), Layout.of({"w": np.zeros(1)}), 1.0, 32, 400)
    assert weight == 6
    assert mean["w"] == pytest.approx(0.25, abs=1e-9)
