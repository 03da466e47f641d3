"""A node's part in the scheme `joye_libert`: its keys are agreed on step by step, a round is answered once, and the rest is refused."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError, FedbiomedSecaggError, FedbiomedSecureAggregationError
from fedbiomed.common.messages import joye_libert as messages
from fedbiomed.common.messages.secagg import SecaggAgain, SecaggClose, SecaggOffer, SecaggSurvivors, bytes_of, text_of
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.common.secagg import packets
from fedbiomed.common.secagg.joye_libert_keys import Modulus, drawn_keys, sealed_shares, signed_modulus
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.part_rules import PartRule
from fedbiomed.common.secagg.terms import Purpose, Scheme, Weighting
from fedbiomed.common.secagg.update import digest_of
from fedbiomed.common.secagg.wire import SecaggOrder, read_masked
from fedbiomed.common.security.identity import made_identity
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.secagg import NodeSecagg
from fedbiomed.node.secagg_sessions import SessionBook
from fedbiomed.node.store import NodeStore
from tests.support.orders import node_config, train_request
from tests.support.secagg import RESEARCHER, Agreed, agreed, terms

pytest.importorskip("gmpy2", reason="the scheme joye_libert is an extra")
SENT = {"w": np.zeros(2, np.float32)}
MADE = {"w": np.asarray([0.5, -0.25], np.float32)}
RULE = PartRule(purpose=Purpose.WEIGHTS, clip=1.0, weighting=Weighting.SAMPLES, layout=Layout.of(MADE).digest.hex())
ASKED = {"request_id": "request_1", "researcher_id": RESEARCHER, "issued_at": 1.0, "expires_at": 2.0}


class Parties:
    """An agreed session, with the modulus of `node_0`."""

    def __init__(self) -> None:
        self.agreed: Agreed = agreed(terms(3, scheme=Scheme.JOYE_LIBERT))
        self.modulus = self.drawn()

    def drawn(self) -> Modulus:
        """A modulus that `node_0` signed."""
        return signed_modulus(self.agreed.sessions["node_0"], self.agreed.identities["node_0"])


class Desk:
    """`node_1` of that session."""

    def __init__(self, root: Path, parties: Parties) -> None:
        self.parties, self.session = parties, parties.agreed.sessions["node_1"]
        self.config = node_config(root, id="node_1")
        self.store = NodeStore(self.config.database)
        self.book = SessionBook(self.store)
        self.book.save(self.session)
        self.folder, self.sid = root / "order", text_of(self.session.sid)
        self.folder.mkdir()

    def node(self) -> NodeSecagg:
        """As after a start."""
        return NodeSecagg(self.config, self.store, MemoryFileStore(MemoryFiles(), "node_1"))

    def ask(self, request: Any) -> Any:
        """The answer to a request."""
        return self.node().handlers()[type(request)](request)[0]

    def modulus(self, told: Modulus, **changes: Any) -> messages.SecaggTakeModulus:
        """The request that tells a modulus."""
        content = {"sid": self.sid, "modulus": text_of(told.content), "signature": text_of(told.signature)}
        return messages.SecaggTakeModulus(**{**ASKED, **content, **changes})

    def parts(self, **changes: bytes) -> messages.SecaggPartsOfOthers:
        """The request with the shares of the others, drawn anew."""
        others = {n: self.parties.agreed.sessions[n] for n in ("node_0", "node_2")}
        shares = {n: sealed_shares(session, drawn_keys(session, self.parties.modulus))["node_1"] for n, session in others.items()}
        told = {n: text_of(share) for n, share in {**shares, **changes}.items()}
        return messages.SecaggPartsOfOthers(**ASKED, sid=self.sid, shares=told, shares_file=None)

    def agree(self) -> None:
        """Make the node's keys."""
        self.ask(self.modulus(self.parties.modulus))
        self.ask(self.parts())

    def order(self, made: dict[str, Any] = MADE) -> TrainRequest:
        """An order of the session, whose files are there, and what its training left."""
        Serializer.dump({"model_weights": SENT}, self.folder / "params.mpk")
        ids = {"researcher_id": RESEARCHER, "job_id": "exp_1", "node_id": "node_1", "state_id": "state_1"}
        Serializer.dump({**ids, "model_weights": made, "encrypted": False}, self.folder / "result.mpk")
        told = SecaggOrder(sid=self.session.sid, attempt=0, layout=digest_of(MADE), parts=(RULE,)).as_dict()
        return train_request("node_1", researcher_id=RESEARCHER, job_id="exp_1", secagg=told)


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties()


@pytest.fixture
def desk(tmp_path: Path, parties: Parties) -> Iterator[Desk]:
    made = Desk(tmp_path, parties)
    yield made
    made.store.close()


def test_a_modulus_is_taken_once_and_signed_by_the_first_node(desk: Desk, parties: Parties) -> None:
    unsigned, changed = replace(parties.modulus, signature=bytes(64)), replace(parties.modulus, value=parties.modulus.value + 2)
    for forged in (unsigned, changed):
        with pytest.raises(FedbiomedSecaggError, match="not signed by node_0"):
            desk.ask(desk.modulus(forged))
    assert desk.book.keys(desk.session.sid) is None
    with pytest.raises(FedbiomedSecaggError, match="node_0 draws the modulus"):
        desk.ask(messages.SecaggDraw(**ASKED, sid=desk.sid))
    with pytest.raises(FedbiomedSecaggError, match="no modulus was told"):
        desk.ask(desk.parts())
    first = desk.ask(desk.modulus(parties.modulus))
    assert first.shares.keys() == {"node_0", "node_2"}
    keys = desk.book.keys(desk.session.sid)
    desk.ask(desk.modulus(parties.modulus))  # the same again, after a restart
    assert desk.book.keys(desk.session.sid) == keys
    with pytest.raises(FedbiomedSecaggError, match="another modulus was told before"):
        desk.ask(desk.modulus(parties.drawn()))
    assert desk.book.keys(desk.session.sid) == keys


def test_the_first_node_draws_one_modulus(tmp_path: Path, parties: Parties) -> None:
    config = node_config(tmp_path, id="node_0")
    with NodeStore(config.database) as store:
        session = parties.agreed.sessions["node_0"]
        session = replace(session, identities={**session.identities, "node_0": made_identity(config.identity).public})
        SessionBook(store).save(session)
        node = NodeSecagg(config, store, MemoryFileStore(MemoryFiles(), "node_0"))
        draw = messages.SecaggDraw(**ASKED, sid=text_of(session.sid))
        first, again = (node.handlers()[messages.SecaggDraw](draw)[0] for _ in range(2))
        assert first == again
        assert bytes_of(first.modulus)[0] >= 128  # 2048 bits
        assert len(bytes_of(first.modulus)) == 256


def test_shares_are_summed_once(desk: Desk, parties: Parties) -> None:
    desk.ask(desk.modulus(parties.modulus))
    before = desk.book.keys(desk.session.sid)
    with pytest.raises(FedbiomedSecaggCrypterError):
        desk.ask(desk.parts(node_2=bytes(600)))
    assert desk.book.keys(desk.session.sid) == before
    parts = desk.parts()
    first = desk.ask(parts)
    assert desk.ask(parts) == first
    with pytest.raises(FedbiomedSecaggError, match="other shares were summed before"):
        desk.ask(desk.parts())
    with pytest.raises(FedbiomedSecaggError, match="agreed on already"):
        desk.ask(desk.modulus(parties.modulus))


def test_another_researcher_gets_no_keys(desk: Desk, parties: Parties) -> None:
    for request in (desk.modulus(parties.modulus), desk.parts(), messages.SecaggDraw(**ASKED, sid=desk.sid)):
        with pytest.raises(FedbiomedSecureAggregationError, match="another researcher"):
            desk.ask(replace(request, researcher_id="researcher_2"))


def test_a_round_is_hidden_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    request = desk.order()
    with pytest.raises(FedbiomedSecureAggregationError, match="are not agreed on"):
        desk.node().check(request)
    desk.agree()
    desk.node().check(request)
    path = desk.node().protect(request, desk.folder, 30)
    assert not (desk.folder / "result.mpk").exists()
    upload, before = read_masked(path, "node_1", "exp_1"), path.read_bytes()
    assert upload.vectors[Purpose.WEIGHTS].shape == (64,)  # one block of 4096 bits
    assert desk.node().protect(request, desk.folder, 30).read_bytes() == before  # after a restart
    path.unlink()
    again = desk.order()  # as after a restart while it was being hidden
    assert desk.node().protect(again, desk.folder, 30).read_bytes() == before
    path.unlink()
    other = desk.order({"w": MADE["w"] + 0.25})
    with pytest.raises(FedbiomedSecureAggregationError, match="answered already"):
        desk.node().protect(again, desk.folder, 31)
    with caplog.at_level(logging.WARNING), pytest.raises(FedbiomedSecureAggregationError, match="answered already"):
        desk.node().protect(other, desk.folder, 30)
    assert f"refused researcher {RESEARCHER}" in caplog.text
    assert not path.exists()


def test_what_belongs_to_the_other_scheme_is_refused(desk: Desk) -> None:
    desk.agree()
    place = {"sid": desk.sid, "round": 0, "attempt": 0}
    survivors = SecaggSurvivors(**ASKED, **place, nodes=("node_0", "node_1"), digest="", shares={}, shares_file=None, signatures=None)
    for request in (survivors, SecaggAgain(**ASKED, **{**place, "attempt": 1})):
        with pytest.raises(FedbiomedSecureAggregationError, match="answers a round once"):
            desk.ask(request)
    lom = agreed(terms(3)).sessions["node_1"]
    desk.book.save(lom)
    with pytest.raises(FedbiomedSecaggError, match="a session of lom"):
        desk.ask(messages.SecaggDraw(**ASKED, sid=text_of(lom.sid)))


def test_keys_go_with_their_session(desk: Desk) -> None:
    desk.agree()
    desk.ask(SecaggClose(**ASKED, sid=desk.sid, round=None))
    assert desk.book.keys(desk.session.sid) is None
    with desk.store.transaction() as connection:
        assert connection.execute("SELECT COUNT(*) FROM secagg_sessions").fetchone()[0] == 0


def test_a_node_without_gmpy2_says_what_to_install(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told = packets.terms_told(desk.session.terms)
    offer = SecaggOffer(**ASKED, terms=told, identity="AA==", reveal_key="AA==", signature="AA==")
    monkeypatch.setitem(sys.modules, "gmpy2", None)  # as where it is not installed
    with pytest.raises(FedbiomedSecaggError, match=r"pip install 'fedbiomed\[joye-libert\]'"):
        desk.ask(offer)
