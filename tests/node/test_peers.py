"""The node's book of keys, and what secure aggregation keeps on the node: both outlive the process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedCertificateError, FedbiomedNodeStoreError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg.ledger import RoundRecord
from fedbiomed.common.secagg.lom_messages import Notice
from fedbiomed.common.secagg.lom_node import LomNode, Part
from fedbiomed.common.secagg.quantise import Quantised
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.security.identity import Identity
from fedbiomed.node.peers import PeerBook
from fedbiomed.node.secagg_ledger import StoredLedger
from fedbiomed.node.store import NodeStore
from tests.support.node_cli import refused, told, told_json
from tests.support.secagg import agreed, ids, terms

FIRST, SECOND = Identity(b"1" * 32), Identity(b"2" * 32)


def test_the_first_key_is_pinned_and_another_one_refused_and_noted(tmp_path: Path) -> None:
    with NodeStore(tmp_path / "db") as store:
        book = PeerBook(store, now=lambda: 7.0)
        book.admit("node_1", FIRST.public)
        book.admit("node_1", FIRST.public)
        with pytest.raises(FedbiomedCertificateError, match=f"{SECOND.fingerprint}, but {FIRST.fingerprint} is pinned"):
            book.admit("node_1", SECOND.public)
    with NodeStore(tmp_path / "db") as store:
        book = PeerBook(store)
        assert book.all() == [
            {
                "peer_id": "node_1",
                "fingerprint": FIRST.fingerprint,
                "is_trusted": False,
                "pinned_at": 7.0,
                "refused_fingerprint": SECOND.fingerprint,
                "refused_at": 7.0,
            }
        ]
        book.trust("node_1", SECOND.fingerprint.upper().replace("-", " "))
        book.admit("node_1", SECOND.public)
        with pytest.raises(FedbiomedCertificateError, match="is pinned"):
            book.admit("node_1", FIRST.public)
        book.forget("node_1")
        book.admit("node_1", FIRST.public)


def test_a_key_may_be_pinned_before_it_is_seen(tmp_path: Path) -> None:
    with NodeStore(tmp_path / "db") as store:
        book = PeerBook(store)
        assert book.trust("node_1", FIRST.fingerprint)["is_trusted"] is True
        with pytest.raises(FedbiomedCertificateError, match="is pinned"):
            book.admit("node_1", SECOND.public)
        for peer_id, wanted in (("node/1", FIRST.fingerprint), ("node_1", "abcd"), ("node_1", FIRST.fingerprint[:-1] + "x")):
            with pytest.raises(FedbiomedCertificateError):
                book.trust(peer_id, wanted)
        with pytest.raises(FedbiomedCertificateError, match="no key of 'node_2'"):
            book.forget("node_2")


def test_the_operator_sees_the_fingerprint_and_decides_on_those_of_others(tmp_path: Path) -> None:
    site = tmp_path / "site"
    told("create", "--dir", site)
    key = site / "etc" / "identity.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert told_json("status", "--dir", site)["fingerprint"] == Identity(bytes.fromhex(key.read_text())).fingerprint
    assert told("peers", "list", "--dir", site).startswith("no keys")
    with NodeStore(site / "var" / "node.sqlite") as store:
        PeerBook(store).admit("node_1", FIRST.public)
        with pytest.raises(FedbiomedCertificateError):
            PeerBook(store).admit("node_1", SECOND.public)
    listed = told("peers", "list", "--dir", site)
    assert f"node_1   {FIRST.fingerprint}  first seen  {SECOND.fingerprint}" in listed
    assert told("peers", "trust", "node_1", "--dir", site) == f"node_1 {SECOND.fingerprint}"
    assert [(row["is_trusted"], row["refused_fingerprint"]) for row in told_json("peers", "list", "--dir", site)] == [(True, None)]
    assert "64 hex digits" in refused("peers", "trust", "node_1", "abc", "--dir", site)
    assert told("peers", "forget", "node_1", "--dir", site) == "forgot node_1"
    assert "no key of 'node_1'" in refused("peers", "forget", "node_1", "--dir", site)


def test_records_and_kept_updates_outlive_the_process(tmp_path: Path) -> None:
    record = RoundRecord(sid=b"s" * 32, round=3, attempt=1, weight=7, self_seed=b"x" * 32)
    values = {purpose: Quantised(np.arange(5, dtype=np.uint32) * index, 0.25) for index, purpose in enumerate(Purpose)}
    with NodeStore(tmp_path / "db") as store:
        ledger = StoredLedger(store, tmp_path / "kept")
        assert (ledger.record(b"s" * 32, 3), ledger.values(b"s" * 32, 3)) == (None, {})
        ledger.save(record)
        ledger.keep_values(b"s" * 32, 3, values)
    with NodeStore(tmp_path / "db") as store:
        ledger = StoredLedger(store, tmp_path / "kept")
        assert ledger.record(b"s" * 32, 3) == record
        assert ledger.record(b"s" * 32, 2) is None
        found = ledger.values(b"s" * 32, 3)
        assert {purpose: (q.values.tolist(), q.clipped) for purpose, q in found.items()} == {
            purpose: (q.values.tolist(), 0.25) for purpose, q in values.items()
        }
        closed = replace(record, self_seed=None, accepted=b"h" * 32, has_revealed=True, is_closed=True)
        ledger.save(closed)
        assert ledger.record(b"s" * 32, 3) == closed
        (tmp_path / "kept" / f"{(b's' * 32).hex()}_3" / "aux.npz").write_bytes(b"broken")
        with pytest.raises(FedbiomedNodeStoreError, match="cannot read the kept update"):
            ledger.values(b"s" * 32, 3)
        ledger.drop_values(b"s" * 32, 3)
        assert list((tmp_path / "kept").iterdir()) == []


def test_a_node_that_starts_again_refuses_what_it_refused(tmp_path: Path) -> None:
    told_of = agreed(terms(3))
    session, identity = told_of.sessions["node_0"], told_of.identities["node_0"]

    def node(store: NodeStore) -> LomNode:
        return LomNode(session, identity, StoredLedger(store, tmp_path / "kept"))

    part = {Purpose.WEIGHTS: Part({"w": np.zeros(3)}, 1.0)}
    survivors = SurvivorSet(sid=session.sid, round=0, attempt=1, nodes=ids(3))
    notice = Notice(survivors=survivors, digest=survivors.digest, shares={})
    with NodeStore(tmp_path / "db") as store:
        first = node(store).protect(0, 0, part, 2)
    with NodeStore(tmp_path / "db") as store:
        with pytest.raises(FedbiomedSecureAggregationError, match="used already"):
            node(store).protect(0, 0, part, 2)
        again = node(store).protect_again(0, 1)
        assert not np.any(again.vectors[Purpose.WEIGHTS] == first.vectors[Purpose.WEIGHTS])
        node(store).reveal(notice)
    with NodeStore(tmp_path / "db") as store:
        with pytest.raises(FedbiomedSecureAggregationError, match="opened already"):
            node(store).protect_again(0, 2)
        node(store).close(0)
        assert StoredLedger(store, tmp_path / "kept").values(session.sid, 0) == {}
