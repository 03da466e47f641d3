"""The researcher's side of a session: agreed with the nodes over the network, then asked to open sums."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.messages import secagg as messages
from fedbiomed.common.messages.message import Request
from fedbiomed.common.messages.secagg import bytes_of, text_of
from fedbiomed.common.secagg import joye_libert, packets
from fedbiomed.common.secagg.agreement import ResearcherAgreement
from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.common.secagg.joye_libert_parties import JoyeLibertServer
from fedbiomed.common.secagg.lom_server import Attempt, LomServer
from fedbiomed.common.secagg.terms import DEFAULT_MAX_WEIGHT, RING_BITS, SESSION_BYTES, Purpose, Scheme, Terms, Weighting, least_threshold
from fedbiomed.common.security.identity import made_identity
from fedbiomed.researcher.requests import Requests, Stamp
from fedbiomed.researcher.secagg.talk import Answers, AnyReply, ask_each, complete, refused, tell_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a researcher wants of a session.

    Args:
        timeout_s: how long each step of the agreement, and opening a sum, may take.
        allows_two: consent to two nodes, where each learns the other's update from the sum.
        minimum_nodes: how many nodes must be in a sum; None: the least that is safe for their number.
        rows: of the largest dataset; a node may count by twice as many samples, and by 2**20 in any case.
        signs: whether nodes open a sum only when more than two thirds of them signed who is in it.
        scheme: how updates are hidden.
    """

    timeout_s: float
    allows_two: bool = False
    minimum_nodes: int | None = None
    rows: int = 0
    signs: bool = False
    scheme: Scheme = Scheme.LOM


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureSession:
    """An agreed session.

    Args:
        requests: the line to the nodes.
        terms, sid: as agreed.
        reveal_private: the key towards which nodes encrypt.
        identities: public keys of the members.
        timeout_s: how long opening a sum may take.
        absent: nodes that were asked and did not answer, with the reason.
    """

    requests: Requests = field(repr=False)
    terms: Terms
    sid: bytes
    reveal_private: X25519PrivateKey = field(repr=False)
    identities: Mapping[str, bytes]
    timeout_s: float
    absent: Mapping[str, str]

    @property
    def asks_again(self) -> bool:
        """Whether nodes may be asked to mask the update of a round once more."""
        return True

    def arithmetic(self) -> dict[str, Any]:
        """What all parties reckon with, for the user; no key is in it."""
        terms = self.terms
        return {"scheme": terms.scheme.value, "bits": terms.bits, "ring_bits": RING_BITS, "max_weight": terms.max_weight}

    def server(
        self, round_: int, attempt: int, sizes: Mapping[Purpose, int], weightings: frozenset[Weighting]
    ) -> LomServer | JoyeLibertServer:
        """What adds the vectors of an attempt.

        Args:
            round_, attempt: both count from 0.
            sizes: number of values by purpose.
            weightings: by what nodes count in these sums.
        """
        return LomServer(
            Attempt(
                terms=self.terms,
                sid=self.sid,
                round=round_,
                attempt=attempt,
                sizes=sizes,
                weightings=weightings,
                reveal_private=self.reveal_private,
                identities=self.identities,
            )
        )

    def require_nodes(self, round_: int, nodes: list[str], reasons: Mapping[str, str]) -> None:
        """Refuse to open a sum that lacks nodes which the scheme cannot do without; here the server itself counts them.

        Args:
            round_: counted from 0.
            nodes: whose vectors are there.
            reasons: why the others' are not, by node.

        Raises:
            FedbiomedSecureAggregationError: which are missing, why.
        """

    def seconds(self, sizes: Mapping[Purpose, int]) -> float:
        """About how long a round of so many values keeps each node and the researcher busy, where that is worth telling."""
        return 0.0

    def open(self, server: LomServer) -> dict[str, str]:
        """Let the survivors reveal what opens the sum.

        Returns:
            Why survivors did not reveal, by node; as long as enough did, the sum opens without them.
        """
        signed: dict[str, str] | None = None
        reasons: dict[str, str] = {}
        if self.terms.distrusts_researcher:
            answers = self._ask_survivors(server, None, messages.SecaggSignature)
            reasons = _taken(answers, lambda node, reply: server.take_signature(node, bytes_of(reply.signature)))
            signed = {node: text_of(signature) for node, signature in server.signatures.items()}
        with tempfile.TemporaryDirectory(prefix="secagg_") as folder:
            reveals = self._ask_survivors(server, signed, messages.SecaggReveal)
            files = self.requests.connection.files
            reasons |= _taken(reveals, lambda _node, reply: server.take_reveal(packets.reveal_of(reply, files, Path(folder))))
        return reasons

    def ask_again(self, round_: int, attempt: int) -> Answers[messages.SecaggMasked]:
        """Ask all members for their kept update of a round under fresh masks."""
        told: dict[str, Any] = {"sid": text_of(self.sid), "round": round_, "attempt": attempt}
        questions: dict[str, Request] = {n: messages.SecaggAgain(**self.stamp(), **told) for n in self.terms.members}
        return ask_each(self.requests, questions, messages.SecaggMasked, self.timeout_s)

    def close(self, round_: int | None = None) -> None:
        """Tell the members to delete the secrets of a round, or of the whole session; waits for nothing."""
        told: dict[str, Any] = {"sid": text_of(self.sid), "round": round_}
        tell_each(self.requests, {n: messages.SecaggClose(**self.stamp(), **told) for n in self.terms.members})

    def end(self) -> None:
        """Close the session; where the nodes cannot be told, they forget it by themselves after some time."""
        try:
            self.close()
        except FedbiomedError as error:
            logger.warning("the nodes were not told that a session of secure aggregation ended: %s", error)

    def _ask_survivors(self, server: LomServer, signatures: dict[str, str] | None, kind: type[AnyReply]) -> Answers[AnyReply]:
        survivors = server.close()
        told: dict[str, Any] = {"sid": text_of(self.sid), "round": survivors.round, "attempt": survivors.attempt, "nodes": survivors.nodes}
        questions: dict[str, Request] = {}
        with tempfile.TemporaryDirectory(prefix="secagg_") as folder:
            for node in survivors.nodes:
                sealed = server.notice(node).shares
                shares, file = packets.shares_told(sealed, self.requests.connection.files, Path(folder), node)
                digest = text_of(survivors.digest)
                questions[node] = messages.SecaggSurvivors(
                    **self.stamp(), **told, digest=digest, shares=shares, shares_file=file, signatures=signatures
                )
        return ask_each(self.requests, questions, kind, self.timeout_s)

    def stamp(self) -> Stamp:
        """What a request to the members begins with."""
        return self.requests.stamp(self.timeout_s)


def _taken(answers: Answers[AnyReply], take: Callable[[str, AnyReply], None]) -> dict[str, str]:
    """Hand each answer on; why some were not good, by node."""
    reasons = answers.reasons()
    for node, reply in answers.items():
        try:
            take(node, reply)
        except FedbiomedError as error:
            reasons[node] = str(error)
    return reasons


def agreed(requests: Requests, job_id: str, nodes: Sequence[str], wish: Wish) -> SecureSession:
    """Agree on a session with nodes; those that are silent are left out, one that refuses ends it.

    Args:
        requests: the line to the nodes.
        job_id: whose rounds they are.
        nodes: ids.
        wish: what is wanted.

    Raises:
        FedbiomedSecaggError: too few nodes, a node refuses (which one, why), or the scheme needs a library that is not installed.
    """
    if wish.scheme is Scheme.JOYE_LIBERT:
        joye_libert.library()
    members, absent = sorted(nodes, key=str.encode), dict[str, str]()
    while True:
        agreement = ResearcherAgreement(made_identity(requests.connection.config.identity), _terms(requests, job_id, members, wish, absent))
        nonces = _step(_offered(requests, agreement, wish.timeout_s))
        if nonces.silent:
            absent |= nonces.reasons()
            members = [node for node in members if node in nonces]
            continue
        return _with_keys(requests, agreement, {node: reply.nonce for node, reply in nonces.items()}, wish, absent)


def _offered(requests: Requests, agreement: ResearcherAgreement, timeout_s: float) -> Answers[messages.SecaggNonce]:
    offer = agreement.offer
    told = {"identity": text_of(offer.identity), "reveal_key": text_of(offer.reveal_key), "signature": text_of(offer.signature)}
    terms = packets.terms_told(offer.terms)
    questions: dict[str, Request] = {
        node: messages.SecaggOffer(**requests.stamp(timeout_s), terms=terms, **told) for node in offer.terms.members
    }
    return ask_each(requests, questions, messages.SecaggNonce, timeout_s)


def _with_keys(
    requests: Requests, agreement: ResearcherAgreement, nonces: dict[str, str], wish: Wish, absent: Mapping[str, str]
) -> SecureSession:
    terms = agreement.offer.terms
    session, limit_s = text_of(terms.session), wish.timeout_s
    asked: dict[str, Request] = {n: messages.SecaggNonces(**requests.stamp(limit_s), session=session, nonces=nonces) for n in terms.members}
    keys = complete(ask_each(requests, asked, messages.SecaggKeyShare, limit_s))
    told = {node: {"identity": key.identity, "public": key.public, "signature": key.signature} for node, key in keys.items()}
    shares = {node: packets.share_of(node, share) for node, share in told.items()}
    sid = agreement.sid({node: bytes_of(nonce) for node, nonce in nonces.items()}, shares)
    asked = {n: messages.SecaggKeys(**requests.stamp(limit_s), session=session, shares=told) for n in terms.members}
    ready = complete(ask_each(requests, asked, messages.SecaggReady, limit_s))
    others = sorted(node for node, reply in ready.items() if bytes_of(reply.sid) != sid)
    if others:
        raise setup_error(f"{', '.join(others)} calls the session otherwise: a message was changed on its way; run again")
    return SecureSession(
        requests=requests,
        terms=terms,
        sid=sid,
        reveal_private=agreement.reveal_private,
        identities={node: share.identity for node, share in shares.items()},
        timeout_s=limit_s,
        absent=dict(absent),
    )


def _terms(requests: Requests, job_id: str, members: Sequence[str], wish: Wish, absent: Mapping[str, str]) -> Terms:
    told = "".join(f"; {node}: {reason}" for node, reason in absent.items())
    if len(members) < 2:
        raise setup_error(f"secure aggregation needs three nodes or more, {len(members)} can take part{told}")
    if len(members) == 2 and not wish.allows_two:
        raise setup_error(
            "with two nodes each learns the other's update from the sum: add a third one, or consent with "
            f"SecureAggregation(allow_two_nodes=True), where both nodes allow it, too (allow_two_node_sums){told}"
        )
    least = least_threshold(len(members), scheme=wish.scheme, distrusts_researcher=wish.signs)
    if (wish.minimum_nodes or 0) > len(members):
        raise setup_error(f"minimum_nodes = {wish.minimum_nodes}, but {len(members)} nodes can take part{told}")
    return Terms(
        session=os.urandom(SESSION_BYTES),
        experiment_id=job_id,
        researcher_id=requests.researcher_id,
        members=tuple(members),
        threshold=max(least, wish.minimum_nodes or 0),
        max_weight=max(DEFAULT_MAX_WEIGHT, 1 << (2 * wish.rows).bit_length()),
        scheme=wish.scheme,
        distrusts_researcher=wish.signs,
    )


def _step(answers: Answers[AnyReply]) -> Answers[AnyReply]:
    if answers.refusals:
        raise refused(answers.refusals)
    return answers
