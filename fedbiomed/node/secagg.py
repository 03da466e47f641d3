"""A node's part in secure aggregation: it agrees on sessions, masks updates, and helps to open sums, or refuses.

Masks are made in the node's own process. The training process, which runs the plan's code, never sees a key.
"""

import hashlib
import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.common.messages import secagg as messages
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.messages.secagg import bytes_of, text_of
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.common.secagg import joye_libert, packets
from fedbiomed.common.secagg.agreement import KeyShare, NodeAgreement, Offer, Session
from fedbiomed.common.secagg.beside import SOURCES, flattened
from fedbiomed.common.secagg.errors import round_error, setup_error
from fedbiomed.common.secagg.joye_libert_parties import JoyeLibertNode
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.lom_messages import Notice, Upload
from fedbiomed.common.secagg.lom_node import LomNode, Part
from fedbiomed.common.secagg.part_rules import rule_of
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose, Scheme
from fedbiomed.common.secagg.update import digest_of, parts_of, ruled
from fedbiomed.common.secagg.wire import SecaggOrder, write_masked
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity, made_identity
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.transport import FileStore
from fedbiomed.node.peers import PeerBook
from fedbiomed.node.secagg_joye_libert import JoyeLibertKeys
from fedbiomed.node.secagg_ledger import StoredLedger
from fedbiomed.node.secagg_sessions import SessionBook
from fedbiomed.node.state import NodeStates
from fedbiomed.node.store import NodeStore

logger = logging.getLogger(__name__)
_MAX_PENDING = 32
_MAY_LEAVE = frozenset(
    {"model_weights", "researcher_id", "job_id", "state_id", "node_id", "encrypted", "encryption_factor", "optimizer_args"}
)
_SHARED = "shared_"  # an aggregator's files of such names are the same for all nodes


class NodeSecagg:
    """Sessions of one node; used by the thread of orders and by that of questions.

    Args:
        config: of the node.
        store: its database.
        files: the repository, for what is too large for a message.
    """

    def __init__(self, config: NodeConfig, store: NodeStore, files: FileStore) -> None:
        self._config, self._files = config, files
        self._book, self._peers = SessionBook(store), PeerBook(store)
        self._ledger = StoredLedger(store, config.var / "secagg")
        self._states = NodeStates.of(config, store)
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, tuple[Offer, NodeAgreement]] = OrderedDict()
        self._identity: Identity | None = None
        self._joye_libert = JoyeLibertKeys(self._book, self._session_of, identity=self._own, files=files, folder=config.var)

    def handlers(self) -> dict[type[Request], Callable[[Any], list[Reply]]]:
        """What answers each request."""
        return {
            messages.SecaggOffer: self._answered(self._offer),
            messages.SecaggNonces: self._answered(self._nonces),
            messages.SecaggKeys: self._answered(self._keys),
            messages.SecaggSurvivors: self._answered(self._survivors),
            messages.SecaggAgain: self._answered(self._again),
            messages.SecaggClose: self._answered(self._close),
            **{kind: self._answered(act) for kind, act in self._joye_libert.actions().items()},
        }

    def check(self, request: TrainRequest) -> None:
        """Refuse an order whose secure aggregation this node does not take part in, or one that lacks it where it must have it.

        Raises:
            FedbiomedSecureAggregationError: which of both, and what to do.
        """
        if request.secagg is None:
            if self._config.force_secure_aggregation:
                raise round_error("this node trains with secure aggregation only, and the order has none: set_secagg(True)")
            return
        self._require_on()
        self._node_of(SecaggOrder.of(request.secagg).sid, request.researcher_id, request.job_id)

    def protect(self, request: TrainRequest, folder: Path, weight: int, check: Callable[[], None] = lambda: None) -> Path:
        """Put the masked update in the place of a training's result.

        Args:
            request: the order.
            folder: with `params.mpk` and `result.mpk`; the latter is deleted when the masked one is there.
            weight: number of samples that were trained on.
            check: called now and then where it takes long; what it raises ends it.

        Returns:
            The new file. One that is there already, from before a restart, is taken as it is.

        Raises:
            FedbiomedSecureAggregationError: the update holds what may not leave, does not fit to the model, or cannot be masked.
        """
        masked, result = folder / "masked.mpk", folder / "result.mpk"
        if not masked.is_file():
            order = SecaggOrder.of(request.secagg or {})
            content, sent = Serializer.load(result), Serializer.load(folder / "params.mpk")
            parts = _parts(content, sent["model_weights"], order)
            upload = self._protected(request, order, parts, weight, check)
            write_masked(upload, {key: content[key] for key in ("researcher_id", "job_id", "node_id", "state_id")}, masked)
        result.unlink(missing_ok=True)
        return masked

    def _protected(
        self, request: TrainRequest, order: SecaggOrder, parts: Mapping[Purpose, Part], weight: int, check: Callable[[], None]
    ) -> Upload:
        """What is quick is done under the lock: other sessions go on while an update is hidden block by block."""
        with self._lock:
            node = self._node_of(order.sid, request.researcher_id, request.job_id)
            protected = node.protect(request.round, order.attempt, parts, weight, _told(request, order))
        return protected if isinstance(protected, Upload) else protected(check)

    def tidy(self) -> None:
        """Delete sessions of long ago."""
        with self._lock:
            for sid in self._book.old():
                self._end(sid)

    def _answered(self, act: Callable[[Any], Reply]) -> Callable[[Any], list[Reply]]:
        """An action under the lock."""

        def answer(request: Request) -> list[Reply]:
            with self._lock:
                return [act(request)]

        return answer

    def _offer(self, request: messages.SecaggOffer) -> Reply:
        self._require_on()
        offer = packets.offer_of(request)
        known = self._pending.get(request.terms.session)
        if offer.terms.scheme is Scheme.JOYE_LIBERT:
            joye_libert.library()  # what is not installed is told before keys are drawn
        if known is None:
            if offer.terms.threshold < self._config.minimum_nodes_in_sum:
                raise setup_error(
                    f"sums of {offer.terms.threshold} nodes could be opened, this node helps to open sums of "
                    f"{self._config.minimum_nodes_in_sum} or more: SecureAggregation(minimum_nodes={self._config.minimum_nodes_in_sum})"
                )
            allows_two = self._config.allow_two_node_sums
            known = offer, NodeAgreement(self._config.id, self._own(), offer, self._peers, allows_two=allows_two)
            self._pending[request.terms.session] = known
            while len(self._pending) > _MAX_PENDING:
                self._pending.popitem(last=False)
        elif known[0] != offer:
            raise setup_error("another offer of the same session was made before; a new session is needed")
        return messages.SecaggNonce(**self._envelope(request), nonce=text_of(known[1].nonce))

    def _nonces(self, request: messages.SecaggNonces) -> Reply:
        agreement = self._agreement(request.session, request.researcher_id)
        share = agreement.key_share({node: bytes_of(nonce) for node, nonce in request.nonces.items()})
        told = {"identity": text_of(share.identity), "public": text_of(share.public), "signature": text_of(share.signature)}
        return messages.SecaggKeyShare(**self._envelope(request), **told)

    def _keys(self, request: messages.SecaggKeys) -> Reply:
        shares: dict[str, KeyShare] = {node: packets.share_of(node, told) for node, told in request.shares.items()}
        session = self._agreement(request.session, request.researcher_id).session(shares)
        self._book.save(session, self._book.keys(session.sid))
        logger.info("secure aggregation: agreed with %s on a session of %d nodes", request.researcher_id, len(session.terms.members))
        return messages.SecaggReady(**self._envelope(request), sid=text_of(session.sid))

    def _survivors(self, request: messages.SecaggSurvivors) -> Reply:
        node, least = self._lom_node_of(bytes_of(request.sid), request.researcher_id), self._config.minimum_nodes_in_sum
        if len(request.nodes) < least:
            raise round_error(f"a sum of {len(request.nodes)} nodes is to be opened, this node helps to open sums of {least} or more")
        survivors = SurvivorSet(sid=bytes_of(request.sid), round=request.round, attempt=request.attempt, nodes=request.nodes)
        with tempfile.TemporaryDirectory(prefix="secagg_", dir=self._config.var) as folder:
            shares = packets.shares_of(request, self._files, Path(folder))
            notice = Notice(survivors=survivors, digest=bytes_of(request.digest), shares=shares)
            if request.signatures is None and node.needs_signatures:
                return messages.SecaggSignature(**self._envelope(request), signature=text_of(node.consent(notice)))
            reveal = node.reveal(notice, {peer: bytes_of(signature) for peer, signature in (request.signatures or {}).items()})
            sealed, file = packets.in_message_or_file(reveal.sealed, self._files, Path(folder), request.researcher_id)
        told = {"digest": text_of(reveal.digest), "signature": text_of(reveal.signature)}
        return messages.SecaggReveal(**self._envelope(request), **told, sealed=sealed, sealed_file=file)

    def _again(self, request: messages.SecaggAgain) -> Reply:
        sid = bytes_of(request.sid)
        upload = self._lom_node_of(sid, request.researcher_id).protect_again(request.round, request.attempt)
        job_id = self._job_of(sid)
        state_id = self._states.last_of(job_id, request.round)
        origin = {"researcher_id": request.researcher_id, "job_id": job_id, "node_id": self._config.id, "state_id": state_id}
        with tempfile.TemporaryDirectory(prefix="secagg_", dir=self._config.var) as folder:
            path = Path(folder) / "masked.mpk"
            write_masked(upload, origin, path)
            ref = self._files.put(path, experiment=job_id, readers=(request.researcher_id,))
        return messages.SecaggMasked(**self._envelope(request), result=ref)

    def _close(self, request: messages.SecaggClose) -> Reply:
        sid = bytes_of(request.sid)
        session = self._book.get(sid)
        if session is not None and session.terms.researcher_id == request.researcher_id:
            if request.round is None:
                self._end(sid)
            else:
                self._node_of(sid, request.researcher_id).close(request.round)
        return messages.SecaggClosed(**self._envelope(request))

    def _end(self, sid: bytes) -> None:
        """Delete a session; with its agreement, or the same keys could be agreed on again, and what was done with them was forgotten."""
        session = self._book.get(sid)
        if session is not None:
            self._pending.pop(text_of(session.terms.session), None)
        for round_ in self._book.rounds(sid):
            self._ledger.drop_values(sid, round_)
        self._book.drop(sid)

    def _node_of(self, sid: bytes, researcher_id: str, job_id: str | None = None) -> LomNode | JoyeLibertNode:
        session = self._session_of(sid, researcher_id, job_id)
        if session.terms.scheme is Scheme.JOYE_LIBERT:
            return JoyeLibertNode(session, self._ledger, self._joye_libert.of(sid))
        return LomNode(session, self._own(), self._ledger)

    def _lom_node_of(self, sid: bytes, researcher_id: str) -> LomNode:
        node = self._node_of(sid, researcher_id)
        if not isinstance(node, LomNode):
            raise round_error("with the scheme joye_libert a node answers a round once, and reveals nothing: run the round again")
        return node

    def _session_of(self, sid: bytes, researcher_id: str, job_id: str | None = None) -> Session:
        session = self._book.get(sid)
        if session is None:
            raise round_error("this node does not know the session, or has closed it: run again, a new one is agreed on")
        if session.terms.researcher_id != researcher_id or job_id not in (None, session.terms.experiment_id):
            raise round_error("the session is that of another researcher or job")
        return session

    def _job_of(self, sid: bytes) -> str:
        session = self._book.get(sid)
        return "" if session is None else session.terms.experiment_id

    def _agreement(self, session: str, researcher_id: str) -> NodeAgreement:
        offer, agreement = self._pending.get(session, (None, None))
        if offer is None or agreement is None or offer.terms.researcher_id != researcher_id:
            raise setup_error("this node knows no offer of that session; offer it anew")
        return agreement

    def _own(self) -> Identity:
        if self._identity is None:
            self._identity = made_identity(self._config.identity)
        return self._identity

    def _require_on(self) -> None:
        if not self._config.secure_aggregation:
            raise FedbiomedSecureAggregationError(
                f"FB417: secure aggregation is switched off on node {self._config.id}; its operator sets secure_aggregation = true, "
                "or leave the node out (set_nodes)"
            )

    def _envelope(self, request: Request) -> dict[str, str]:
        return {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": self._config.id}


def _told(request: TrainRequest, order: SecaggOrder) -> bytes:
    """Digest of what all nodes of a round must have been told alike: model, plan, what goes beside them, and how updates are rounded."""
    rules = [rule.told for rule in order.parts]
    shared = [ref.sha256 for name, ref in sorted(request.aggregator_files.items()) if name.startswith(_SHARED)]
    beside = [str(len(rules)), str(len(shared)), *shared, *(ref.sha256 for ref in request.aux_files)]
    return hashlib.sha256(
        joined("fbm-secagg-order-v2", request.params.sha256, request.plan.sha256, request.plan_class, order.layout, *rules, *beside)
    ).digest()


def _parts(content: Mapping[str, Any], sent: Mapping[str, Any], order: SecaggOrder) -> dict[Purpose, Part]:
    """A result in the parts that the order asks for, and nothing else.

    Raises:
        FedbiomedSecureAggregationError: it holds what may not leave, or does not fit to the researcher's model or what it sums beside.
    """
    rule = rule_of(order.parts, Purpose.AUX)
    made = _what_may_leave(content, beside=() if rule is None else SOURCES)
    if digest_of(made) != order.layout:
        raise round_error("names, types or shapes of the node's parameters are not those of the researcher's model")
    parts = parts_of(made, sent, order.parts)
    if rule is not None:
        beside = flattened(content)
        if not beside or Layout.of(beside).digest.hex() != rule.layout:
            raise round_error(
                f"the auxiliary variables of this node are {', '.join(sorted(beside))[:200] or 'absent'}: not those, or not of the shapes, "
                "that the researcher sums; let the plan's optimizer have the modules that belong to agg_optimizer, and make a step at least"
            )
        parts[Purpose.AUX] = ruled(Purpose.AUX, beside, order.parts)
    if parts.keys() != {rule.purpose for rule in order.parts}:
        raise round_error("the order has rules for other parts than those of this node's update")
    return parts


def _what_may_leave(content: Mapping[str, Any], beside: Collection[str]) -> dict[str, Any]:
    """The parameters of a result; everything else that tells of single nodes is refused by name, but for what is summed beside."""
    for name, value in content.items():
        found = sorted(key for key, part in value.items() if part) if isinstance(value, Mapping) and name == "optim_aux_var" else value
        if name not in _MAY_LEAVE and name not in beside and found:
            raise round_error(
                f"beside its parameters the update of this node holds {name!r:.80} ({', '.join(map(str, found))[:200]}), which secure "
                "aggregation does not hide: choose an aggregator and an optimizer without it, or switch secure aggregation off"
            )
    made = content.get("model_weights")
    if not isinstance(made, dict):
        raise round_error("the training left no parameters by name")
    return made
