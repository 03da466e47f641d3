"""A node's part in secure aggregation: what it masks, what it keeps, what it refuses."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import (
    FedbiomedConfigError,
    FedbiomedMessageError,
    FedbiomedNodeStoreError,
    FedbiomedSecaggError,
    FedbiomedSecureAggregationError,
)
from fedbiomed.common.messages import secagg as messages
from fedbiomed.common.messages.secagg import bytes_of, text_of
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.common.secagg import packets
from fedbiomed.common.secagg.agreement import NodeAgreement, ResearcherAgreement, Session
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.part_rules import PartRule
from fedbiomed.common.secagg.terms import Purpose, Weighting
from fedbiomed.common.secagg.update import digest_of
from fedbiomed.common.secagg.wire import SecaggOrder, read_masked
from fedbiomed.common.security.identity import Identity
from fedbiomed.common.security.peers import MemoryPeers
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.secagg import NodeSecagg, _told
from fedbiomed.node.secagg_ledger import StoredLedger
from fedbiomed.node.secagg_reports import share_done
from fedbiomed.node.secagg_sessions import SessionBook
from fedbiomed.node.state import NodeStates
from fedbiomed.node.store import NodeStore
from fedbiomed.node.task import RoundReport
from tests.support.orders import node_config, train_request
from tests.support.secagg import RESEARCHER, LomParties, rules, terms

SENT = {"w": np.zeros(2, np.float32), "steps": np.asarray([3])}
MADE = {"w": np.asarray([0.5, -0.25], np.float32), "steps": np.asarray([7])}
RULES = rules(MADE)
ASKED = {"request_id": "request_1", "researcher_id": RESEARCHER, "issued_at": 1.0, "expires_at": 2.0}


class Desk:
    """A node of an agreed session."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.parties = LomParties(terms(3))
        self.session: Session = self.parties.agreed.sessions["node_0"]
        self.config: NodeConfig = node_config(root, id="node_0", **settings)
        self.store = NodeStore(self.config.database)
        SessionBook(self.store).save(self.session)
        self.files = MemoryFileStore(MemoryFiles(), "node_0")
        self.folder = root / "order"
        self.folder.mkdir()

    def node(self) -> NodeSecagg:
        """As after a start."""
        return NodeSecagg(self.config, self.store, self.files)

    def order(self, **changes: Any) -> TrainRequest:
        """An order of the session, whose files are there."""
        told = SecaggOrder(sid=self.session.sid, attempt=0, layout=digest_of(MADE), parts=RULES).as_dict()
        Serializer.dump({"model_weights": SENT}, self.folder / "params.mpk")
        self.result()
        return train_request("node_0", researcher_id=RESEARCHER, job_id="exp_1", secagg={**told, **changes})

    def result(self, **more: Any) -> None:
        """What a training leaves."""
        ids = {"researcher_id": RESEARCHER, "job_id": "exp_1", "node_id": "node_0", "state_id": "state_1"}
        content = {**ids, "model_weights": MADE, "optimizer_args": {"num_updates": 9}, "optim_aux_var": {}, "encrypted": False, **more}
        Serializer.dump(content, self.folder / "result.mpk")

    def ask(self, request: Any) -> Any:
        """The answer to a request."""
        return self.node().handlers()[type(request)](request)[0]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """With the settings of a new node."""
    made = Desk(tmp_path)
    yield made
    made.store.close()


def test_the_masked_file_takes_the_place_of_the_result_once(desk: Desk) -> None:
    request = desk.order()
    path = desk.node().protect(request, desk.folder, 30)
    assert not (desk.folder / "result.mpk").exists()
    before = path.read_bytes()
    assert desk.node().protect(request, desk.folder, 30).read_bytes() == before  # after a restart: the same masks, not others
    upload = read_masked(path, "node_0", "exp_1")
    assert {purpose: vector.size for purpose, vector in upload.vectors.items()} == {Purpose.WEIGHTS: 3, Purpose.METRICS: 2}
    content = Serializer.load(path)
    assert "model_weights" not in content
    assert "optimizer_args" not in content


def test_a_restart_between_masking_and_writing_does_not_mask_twice(desk: Desk) -> None:
    request = desk.order()
    desk.node().protect(request, desk.folder, 30).unlink()
    desk.result()
    with pytest.raises(FedbiomedSecureAggregationError, match="used already"):
        desk.node().protect(request, desk.folder, 30)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"told": {"loss": 0.5}}, "'told' (loss)"),
        ({"optim_aux_var": {"scaffold": {"delta": 1}}}, "'optim_aux_var' (scaffold)"),
        ({"gradients": [1.0]}, "'gradients'"),
        ({"model_weights": [1.0]}, "no parameters by name"),
        ({"model_weights": {"w": MADE["w"]}}, "names, types or shapes"),
        ({"model_weights": {**MADE, "w": MADE["w"].astype(np.float64)}}, "names, types or shapes"),
    ],
)
def test_nothing_else_leaves(desk: Desk, more: dict[str, Any], part: str) -> None:
    request = desk.order()
    desk.result(**more)
    with pytest.raises(FedbiomedSecureAggregationError) as caught:
        desk.node().protect(request, desk.folder, 30)
    assert part in str(caught.value)
    assert not (desk.folder / "masked.mpk").exists()


def test_orders_of_others_are_refused(desk: Desk) -> None:
    node, request = desk.node(), desk.order()
    node.check(request)
    for changes in ({"job_id": "exp_2"}, {"researcher_id": "researcher_2"}):
        with pytest.raises(FedbiomedSecureAggregationError, match="another researcher or job"):
            node.check(replace(request, **changes))
    unknown = SecaggOrder(sid=bytes(32), attempt=0, layout="", parts=RULES).as_dict()
    first, *rest = unknown["parts"]
    with pytest.raises(FedbiomedSecureAggregationError, match="does not know the session"):
        node.check(replace(request, secagg=unknown))
    bad_parts = [[{**first, key: value}, *rest] for key, value in (("clip", -1), ("purpose", "x"), ("weighting", "x"), ("layout", ""))]
    bad_parts += [[first, first], [{"clip": 1.0}], "x"]
    wrongs = [{**unknown, "sid": "x"}, {**unknown, "layout": "x"}, {**unknown, "more": 1}, {}]
    for wrong in (*wrongs, *({**unknown, "parts": parts} for parts in bad_parts)):
        with pytest.raises(FedbiomedSecureAggregationError):
            node.check(replace(request, secagg=wrong))


def test_a_close_deletes_what_was_kept(desk: Desk) -> None:
    desk.node().protect(desk.order(), desk.folder, 30)
    kept = desk.config.var / "secagg"
    assert len(list(kept.iterdir())) == 1
    sid = text_of(desk.session.sid)
    desk.ask(messages.SecaggClose(**{**ASKED, "researcher_id": "researcher_2"}, sid=sid, round=None))
    assert SessionBook(desk.store).get(desk.session.sid) == desk.session
    desk.ask(messages.SecaggClose(**ASKED, sid=sid, round=None))
    assert SessionBook(desk.store).get(desk.session.sid) is None
    assert list(kept.iterdir()) == []


def test_a_closed_session_cannot_be_revived(tmp_path: Path) -> None:
    parties = LomParties(terms(3)).agreed  # only for the others' identities
    wanted = terms(3)
    researcher = ResearcherAgreement(Identity.drawn(), wanted)
    others = {n: NodeAgreement(n, parties.identities[n], researcher.offer, MemoryPeers()) for n in ("node_1", "node_2")}
    config = node_config(tmp_path, id="node_0")
    with NodeStore(config.database) as store:
        handlers = NodeSecagg(config, store, MemoryFileStore(MemoryFiles(), "node_0")).handlers()
        offer, session = researcher.offer, text_of(wanted.session)
        told = {"identity": text_of(offer.identity), "reveal_key": text_of(offer.reveal_key), "signature": text_of(offer.signature)}
        offered = messages.SecaggOffer(**ASKED, terms=packets.terms_told(wanted), **told)
        own: Any = handlers[messages.SecaggOffer](offered)[0]
        nonces = {"node_0": bytes_of(own.nonce), **{node: agreement.nonce for node, agreement in others.items()}}
        asked = messages.SecaggNonces(**ASKED, session=session, nonces={node: text_of(nonce) for node, nonce in nonces.items()})
        share: Any = handlers[messages.SecaggNonces](asked)[0]
        shares = {"node_0": {"identity": share.identity, "public": share.public, "signature": share.signature}}
        for node, agreement in others.items():
            key = agreement.key_share(nonces)
            shares[node] = {"identity": text_of(key.identity), "public": text_of(key.public), "signature": text_of(key.signature)}
        keys = messages.SecaggKeys(**ASKED, session=session, shares=shares)
        ready: Any = handlers[messages.SecaggKeys](keys)[0]
        assert handlers[messages.SecaggKeys](keys)[0] == ready  # a step may be repeated
        handlers[messages.SecaggClose](messages.SecaggClose(**ASKED, sid=ready.sid, round=None))
        with pytest.raises(FedbiomedSecaggError, match="knows no offer"):
            handlers[messages.SecaggKeys](keys)
        assert SessionBook(store).get(bytes_of(ready.sid)) is None


def test_the_kept_update_is_masked_anew(desk: Desk) -> None:
    first = read_masked(desk.node().protect(desk.order(), desk.folder, 30), "node_0", "exp_1")
    again = desk.ask(messages.SecaggAgain(**ASKED, sid=text_of(desk.session.sid), round=0, attempt=1))
    desk.files.get(again.result, desk.folder / "again.mpk")
    upload = read_masked(desk.folder / "again.mpk", "node_0", "exp_1")
    assert (upload.attempt, upload.clipped) == (1, first.clipped)
    for purpose, vector in upload.vectors.items():
        assert not np.any(vector == first.vectors[purpose])


def test_small_sums_are_not_opened(tmp_path: Path) -> None:
    desk = Desk(tmp_path, minimum_nodes_in_sum=3)
    place = {"sid": text_of(desk.session.sid), "round": 0, "attempt": 0, "nodes": ("node_0", "node_1")}
    request = messages.SecaggSurvivors(**ASKED, **place, digest="", shares={}, shares_file=None, signatures=None)
    with pytest.raises(FedbiomedSecureAggregationError, match="helps to open sums of 3 or more"):
        desk.ask(request)
    desk.store.close()


def test_an_agreement_needs_its_offer(desk: Desk) -> None:
    with pytest.raises(FedbiomedSecaggError, match="knows no offer"):
        desk.ask(messages.SecaggNonces(**ASKED, session="AA==", nonces={}))
    offer = messages.SecaggOffer(**ASKED, terms=packets.terms_told(terms(3)), identity="AA==", reveal_key="AA==", signature="AA==")
    with pytest.raises(FedbiomedSecaggError, match="not signed"):
        desk.ask(offer)
    with pytest.raises(FedbiomedSecaggError, match="does not know the scheme 'other'"):
        desk.ask(replace(offer, terms=replace(offer.terms, scheme="other")))


def test_many_shares_travel_in_a_file(tmp_path: Path) -> None:
    shared = MemoryFiles()
    mine, theirs = MemoryFileStore(shared, "researcher_1"), MemoryFileStore(shared, "node_0")
    shares = {f"node_{index}": bytes([index]) * 2000 for index in range(40)}
    told, file = packets.shares_told(shares, mine, tmp_path, "node_0")
    assert told == {}
    place = {"sid": "", "round": 0, "attempt": 0, "nodes": ("node_0",)}
    message = messages.SecaggSurvivors(**ASKED, **place, digest="", shares=told, shares_file=file, signatures=None)
    assert packets.shares_of(message, theirs, tmp_path) == shares
    sealed, where = packets.in_message_or_file(b"x" * 50_000, theirs, tmp_path, "researcher_1")
    ids = {"request_id": "request_1", "researcher_id": RESEARCHER, "node_id": "node_0"}
    reveal = messages.SecaggReveal(**ids, digest="", signature="", sealed=sealed, sealed_file=where)
    assert packets.reveal_of(reveal, mine, tmp_path).sealed == b"x" * 50_000
    assert packets.shares_told({"node_1": b"abc"}, mine, tmp_path, "node_0") == ({"node_1": text_of(b"abc")}, None)


def test_what_is_no_base64_is_refused() -> None:
    with pytest.raises(FedbiomedMessageError, match="base64"):
        bytes_of("%%%")


def test_old_sessions_go(desk: Desk) -> None:
    SessionBook(desk.store, now=lambda: time.time() - 31 * 86400).save(desk.session)
    desk.node().tidy()
    assert SessionBook(desk.store).get(desk.session.sid) is None


def test_a_damaged_session_is_told(desk: Desk) -> None:
    with desk.store.transaction() as connection:
        connection.execute("UPDATE secagg_sessions SET content = x'00'")
    with pytest.raises(FedbiomedNodeStoreError, match="cannot be read"):
        SessionBook(desk.store).get(desk.session.sid)


@pytest.mark.parametrize("settings", [{"minimum_nodes_in_sum": 1}, {"secure_aggregation": False, "force_secure_aggregation": True}])
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(FedbiomedConfigError):
        node_config(tmp_path, **settings)


def test_progress_tells_a_share_and_no_number():
    report = RoundReport(phase="TRAINING", iteration=7, num_iterations=40, epoch=2, metrics={"Loss": 1.5}, samples=70, num_samples=400)
    told = share_done(report)
    assert (told.iteration, told.num_iterations, told.samples, told.num_samples) == (18, 100, 0, 0)
    assert (told.epoch, told.metrics) == (2, {"Loss": 1.5})
    unknown = share_done(RoundReport(phase="TRAINING", iteration=7, num_iterations=0, epoch=None, metrics={}))
    assert (unknown.iteration, unknown.num_iterations) == (0, 0)


DELTA = {"w": np.asarray([0.25, -0.125], np.float32)}
AUX = PartRule(
    purpose=Purpose.AUX,
    clip=0.5,
    weighting=Weighting.NODES,
    layout=Layout((("optimizer/scaffold/delta/w", (2,)), ("told/training_loss", ()))).digest.hex(),
)


def test_what_goes_beside_the_parameters_is_masked_by_its_own_rule(desk: Desk) -> None:
    request = desk.order(parts=[rule.as_dict() for rule in (*RULES, AUX)])
    beside = {"optim_aux_var": {"scaffold": {"delta": DELTA, "clients": ["an id"]}}, "told": {"training_loss": 0.75}}
    desk.result(**beside)
    NodeStates.of(desk.config, desk.store).save("state_1", "exp_1", 0)
    path = desk.node().protect(request, desk.folder, 30)
    content, upload = Serializer.load(path), read_masked(path, "node_0", "exp_1")
    assert "an id" not in repr(content)
    assert not {"optim_aux_var", "told", "sent"} & content.keys()
    assert upload.vectors[Purpose.AUX].size == 4
    assert upload.clipped[Purpose.AUX] == pytest.approx(1 / 3)
    ledger = StoredLedger(desk.store, desk.config.var / "secagg")
    kept = ledger.values(desk.session.sid, 0)
    assert kept[Purpose.AUX].words(30)[0] == 1
    assert kept[Purpose.WEIGHTS].words(30)[0] == 30
    assert ledger.weightings(desk.session.sid, 0) == set(Weighting)
    again = desk.ask(messages.SecaggAgain(**ASKED, sid=text_of(desk.session.sid), round=0, attempt=1))
    desk.files.get(again.result, desk.folder / "again.mpk")
    assert read_masked(desk.folder / "again.mpk", "node_0", "exp_1").state_id == "state_1"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({}, "are absent: not those"),
        ({"optim_aux_var": {"scaffold": {"delta": DELTA}}}, "optimizer/scaffold/delta/w: not those"),
        ({"optim_aux_var": {"scaffold": {"delta": {"w": np.ones(3)}}}, "told": {"training_loss": 1.0}}, "or not of the shapes"),
        ({"optim_aux_var": {"scaffold": {"delta": {"w": np.array([1.0, np.nan])}}}, "told": {"training_loss": 1.0}}, "NaN"),
        ({"optim_aux_var": {"scaffold": {"delta": DELTA}}, "told": {"training_loss": 1.0}, "gradients": [1.0]}, "'gradients'"),
    ],
)
def test_what_goes_beside_must_be_what_is_summed(desk: Desk, more: dict[str, Any], part: str) -> None:
    request = desk.order(parts=[rule.as_dict() for rule in (*RULES, AUX)])
    desk.result(**more)
    with pytest.raises(FedbiomedSecureAggregationError) as caught:
        desk.node().protect(request, desk.folder, 30)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (desk.folder / "masked.mpk").exists()


def test_rules_for_other_parts_are_refused(desk: Desk) -> None:
    first, *rest = (rule.as_dict() for rule in RULES)
    for parts, said in ((rest, "has other names or shapes"), ([{**first, "layout": "0" * 64}, *rest], "has other names or shapes")):
        with pytest.raises(FedbiomedSecureAggregationError, match=said):
            desk.node().protect(desk.order(parts=parts), desk.folder, 30)


def test_masks_of_nodes_that_were_told_different_things_beside_the_model_do_not_cancel(desk: Desk) -> None:
    request, order = desk.order(), SecaggOrder.of(desk.order().secagg or {})
    ref = request.params
    told = [
        _told(changed, order)
        for changed in (
            request,
            replace(request, aux_files=(ref,)),
            replace(request, aggregator_files={"shared_control": ref}),
        )
    ]
    other = SecaggOrder.of({**order.as_dict(), "parts": [{**rule.as_dict(), "weighting": "nodes"} for rule in RULES]})
    assert len({*told, _told(request, other)}) == 4
    assert _told(replace(request, aggregator_files={"own_control": ref}), order) == told[0]  # one node's own
