"""A session of the scheme `joye_libert`: after the agreement the nodes make keys, of which the researcher gets minus the sum."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fedbiomed.common.messages import joye_libert as messages
from fedbiomed.common.messages.message import Request
from fedbiomed.common.messages.secagg import bytes_of, text_of
from fedbiomed.common.secagg import packets
from fedbiomed.common.secagg.joye_libert_keys import KeySum, Modulus, checked_modulus, server_key
from fedbiomed.common.secagg.joye_libert_parties import HiddenAttempt, JoyeLibertServer, hiding_seconds, missing_error
from fedbiomed.common.secagg.terms import Purpose, Weighting
from fedbiomed.researcher.secagg.session import SecureSession
from fedbiomed.researcher.secagg.talk import ask_each, complete


@dataclass(frozen=True, slots=True, kw_only=True)
class JoyeLibertSession(SecureSession):
    """An agreed session with its keys.

    Args:
        modulus: N.
        server_key: opens the sum of all nodes of a round.
    """

    modulus: int
    server_key: int = field(repr=False)

    @property
    def asks_again(self) -> bool:
        """Nodes answer a round once."""
        return False

    def arithmetic(self) -> dict[str, Any]:
        """See `SecureSession.arithmetic`."""
        return {**SecureSession.arithmetic(self), "biprime": self.modulus, "max_keysize": 2 * self.modulus.bit_length()}

    def server(self, round_: int, attempt: int, sizes: Mapping[Purpose, int], weightings: frozenset[Weighting]) -> JoyeLibertServer:
        """See `SecureSession.server`."""
        return JoyeLibertServer(
            HiddenAttempt(
                terms=self.terms,
                sid=self.sid,
                round=round_,
                attempt=attempt,
                sizes=sizes,
                weightings=weightings,
                modulus=self.modulus,
                server_key=self.server_key,
            )
        )

    def require_nodes(self, round_: int, nodes: list[str], reasons: Mapping[str, str]) -> None:
        """See `SecureSession.require_nodes`."""
        missing = {node: reasons.get(node, "no answer") for node in self.terms.members if node not in nodes}
        if missing:
            raise missing_error(round_, missing)

    def seconds(self, sizes: Mapping[Purpose, int]) -> float:
        """See `SecureSession.seconds`."""
        return hiding_seconds(self.terms, self.modulus, sizes)


def with_keys(session: SecureSession) -> JoyeLibertSession:
    """Let the members of a session make their keys.

    Raises:
        FedbiomedSecaggError: a node refuses, is silent, or its message is not signed or was changed: which one, why. The session is ended.
        FedbiomedSecaggCrypterError: a sum of shares does not open.
    """
    try:
        modulus = _modulus(session)
        key = _server_key(session, modulus, _key_parts(session, modulus))
    except BaseException:
        session.end()
        raise
    agreed = {of.name: getattr(session, of.name) for of in fields(SecureSession)}
    return JoyeLibertSession(**agreed, modulus=modulus.value, server_key=key)


def _modulus(session: SecureSession) -> Modulus:
    first, limit_s = session.terms.members[0], session.timeout_s
    asked: dict[str, Request] = {first: messages.SecaggDraw(**session.stamp(), sid=text_of(session.sid))}
    told = complete(ask_each(session.requests, asked, messages.SecaggModulus, limit_s))[first]
    modulus = Modulus(value=int.from_bytes(bytes_of(told.modulus), "big"), signature=bytes_of(told.signature))
    return checked_modulus(session.terms, session.sid, session.identities, modulus)


def _key_parts(session: SecureSession, modulus: Modulus) -> dict[str, dict[str, bytes]]:
    """The sealed shares of each node's key, by owner and receiver."""
    told = {"sid": text_of(session.sid), "modulus": text_of(modulus.content), "signature": text_of(modulus.signature)}
    asked: dict[str, Request] = {n: messages.SecaggTakeModulus(**session.stamp(), **told) for n in session.terms.members}
    parts = complete(ask_each(session.requests, asked, messages.SecaggKeyParts, session.timeout_s))
    with tempfile.TemporaryDirectory(prefix="secagg_") as folder:
        return {node: packets.shares_of(part, session.requests.connection.files, Path(folder)) for node, part in parts.items()}


def _server_key(session: SecureSession, modulus: Modulus, parts: Mapping[str, Mapping[str, bytes]]) -> int:
    """Hand each node the others' shares, and add up what the nodes sum."""
    asked: dict[str, Request] = {}
    with tempfile.TemporaryDirectory(prefix="secagg_") as folder:
        for node in session.terms.members:
            mine = {owner: shares[node] for owner, shares in parts.items() if owner != node and node in shares}
            shares, file = packets.shares_told(mine, session.requests.connection.files, Path(folder), node)
            asked[node] = messages.SecaggPartsOfOthers(**session.stamp(), sid=text_of(session.sid), shares=shares, shares_file=file)
        told = complete(ask_each(session.requests, asked, messages.SecaggKeySum, session.timeout_s))
    sums = {node: KeySum(sealed=bytes_of(given.sealed), signature=bytes_of(given.signature)) for node, given in told.items()}
    return server_key(session.terms, session.sid, session.identities, modulus.value, sums, session.reveal_private)
