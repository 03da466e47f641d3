"""Nodes and a researcher of secure aggregation that talk by function calls."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.secagg.agreement import KeyShare, NodeAgreement, ResearcherAgreement, Session
from fedbiomed.common.secagg.ledger import MemoryLedger
from fedbiomed.common.secagg.lom_messages import Upload
from fedbiomed.common.secagg.lom_node import LomNode, Part
from fedbiomed.common.secagg.lom_server import Attempt, LomServer
from fedbiomed.common.secagg.part_rules import PartRule
from fedbiomed.common.secagg.terms import Purpose, Scheme, Terms, Weighting, least_threshold
from fedbiomed.common.secagg.update import layouts_of
from fedbiomed.common.security.identity import Identity
from fedbiomed.common.security.keystream import Words
from fedbiomed.common.security.peers import MemoryPeers

RESEARCHER = "researcher_1"


def ids(count: int) -> tuple[str, ...]:
    """Ids of so many nodes, sorted."""
    return tuple(f"node_{index}" for index in range(count))


def terms(count: int = 3, **changed: Any) -> Terms:
    """Terms of a session of so many nodes, with the least threshold."""
    scheme, distrusts = changed.get("scheme", Scheme.LOM), changed.get("distrusts_researcher", False)
    threshold = least_threshold(count, scheme=scheme, distrusts_researcher=distrusts)
    given: dict[str, Any] = {"threshold": threshold, "max_weight": 100, "members": ids(count)} | changed
    return Terms(session=os.urandom(16), experiment_id="exp_1", researcher_id=RESEARCHER, **given)


def rules(params: Mapping[str, Any], clip: float = 1.0) -> tuple[PartRule, ...]:
    """The rules of these parameters' parts, by samples."""
    found = layouts_of(params).items()
    return tuple(PartRule(purpose=p, clip=clip, weighting=Weighting.SAMPLES, layout=layout.digest.hex()) for p, layout in found)


@dataclass(frozen=True)
class Agreed:
    """A session, with what each party holds."""

    terms: Terms
    identities: Mapping[str, Identity]
    sessions: Mapping[str, Session]
    researcher: ResearcherAgreement
    sid: bytes


def agreed(wanted: Terms) -> Agreed:
    """Carry the messages of an agreement between honest parties."""
    identities = {node: Identity.drawn() for node in wanted.members}
    researcher = ResearcherAgreement(Identity.drawn(), wanted)
    nodes = {n: NodeAgreement(n, identities[n], researcher.offer, MemoryPeers(), allows_two=True) for n in wanted.members}
    nonces = {n: node.nonce for n, node in nodes.items()}
    shares: dict[str, KeyShare] = {n: node.key_share(nonces) for n, node in nodes.items()}
    sessions = {n: node.session(shares) for n, node in nodes.items()}
    return Agreed(wanted, identities, sessions, researcher, researcher.sid(nonces, shares))


class LomParties:
    """The nodes of a session, and the researcher's side of its attempts."""

    def __init__(self, wanted: Terms) -> None:
        self.agreed = agreed(wanted)
        self.nodes = {n: LomNode(s, self.agreed.identities[n], MemoryLedger()) for n, s in self.agreed.sessions.items()}

    def server(self, sizes: Mapping[Purpose, int], round_: int = 0, attempt: int = 0) -> LomServer:
        """The researcher's side of an attempt."""
        return LomServer(
            Attempt(
                terms=self.agreed.terms,
                sid=self.agreed.sid,
                round=round_,
                attempt=attempt,
                sizes=sizes,
                reveal_private=self.agreed.researcher.reveal_private,
                identities={n: identity.public for n, identity in self.agreed.identities.items()},
            )
        )

    def upload(self, node: str, values: Sequence[float], weight: int = 1, round_: int = 0, attempt: int = 0) -> Upload:
        """A node's masked values, clipped at 1."""
        return self.nodes[node].protect(round_, attempt, {Purpose.WEIGHTS: Part({"w": np.asarray(values)}, 1.0)}, weight)

    def opened(self, server: LomServer, alive: Sequence[str]) -> Words:
        """Let these nodes reveal, and open the weights' sum."""
        signatures = {n: self.nodes[n].consent(server.notice(n)) for n in alive}
        for n in alive:
            server.take_reveal(self.nodes[n].reveal(server.notice(n), signatures))
        return server.open()[Purpose.WEIGHTS]
