"""A node's part in the keys of the scheme `joye_libert`: each step may be repeated with the same input, and is refused with another."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbiomed.common.messages import joye_libert as messages
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.messages.secagg import bytes_of, text_of
from fedbiomed.common.secagg import packets
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.errors import round_error, setup_error
from fedbiomed.common.secagg.joye_libert_keys import Modulus, NodeKeys, drawn_keys, require_scheme, sealed_shares, signed_modulus, with_sum
from fedbiomed.common.security.identity import Identity
from fedbiomed.common.transport.transport import FileStore
from fedbiomed.node.secagg_sessions import SessionBook


class JoyeLibertKeys:
    """Draws, shares and sums the keys of one node.

    Args:
        book: the node's sessions.
        session_of: the session that a researcher means, checked to be its own.
        identity: of the node, once it is needed.
        files: the repository, for what is too large for a message.
        folder: for temporary files.
    """

    def __init__(
        self,
        book: SessionBook,
        session_of: Callable[[bytes, str], Session],
        *,
        identity: Callable[[], Identity],
        files: FileStore,
        folder: Path,
    ) -> None:
        self._book, self._session_of, self._identity = book, session_of, identity
        self._files, self._folder = files, folder

    def actions(self) -> dict[type[Request], Callable[[Any], Reply]]:
        """What answers each request."""
        return {
            messages.SecaggDraw: self._draw,
            messages.SecaggTakeModulus: self._take_modulus,
            messages.SecaggPartsOfOthers: self._sum,
        }

    def of(self, sid: bytes) -> NodeKeys:
        """The keys of a session.

        Raises:
            FedbiomedSecureAggregationError: they are not agreed on yet.
        """
        keys = self._book.keys(sid)
        if keys is None or keys.key_sum is None:
            raise round_error("the keys of this session are not agreed on: run again, a new one is agreed on")
        return keys

    def _draw(self, request: messages.SecaggDraw) -> Reply:
        session = self._required(request.sid, request.researcher_id)
        keys = self._book.keys(session.sid)
        if keys is None:
            keys = drawn_keys(session, signed_modulus(session, self._identity()))
            self._book.save(session, keys)
        told = {"modulus": text_of(keys.modulus.content), "signature": text_of(keys.modulus.signature)}
        return messages.SecaggModulus(**_envelope(request, session), **told)

    def _take_modulus(self, request: messages.SecaggTakeModulus) -> Reply:
        session = self._required(request.sid, request.researcher_id)
        modulus = Modulus(value=int.from_bytes(bytes_of(request.modulus), "big"), signature=bytes_of(request.signature))
        keys = self._book.keys(session.sid)
        if keys is None:
            keys = drawn_keys(session, modulus)
            self._book.save(session, keys)
        elif keys.modulus != modulus:
            raise setup_error("another modulus was told before for this session; run again, a new one is agreed on")
        with tempfile.TemporaryDirectory(prefix="secagg_", dir=self._folder) as folder:
            shares, file = packets.shares_told(sealed_shares(session, keys), self._files, Path(folder), request.researcher_id)
        return messages.SecaggKeyParts(**_envelope(request, session), shares=shares, shares_file=file)

    def _sum(self, request: messages.SecaggPartsOfOthers) -> Reply:
        session = self._required(request.sid, request.researcher_id)
        keys = self._book.keys(session.sid)
        if keys is None:
            raise setup_error("no modulus was told for this session; run again, a new one is agreed on")
        with tempfile.TemporaryDirectory(prefix="secagg_", dir=self._folder) as folder:
            shares = packets.shares_of(request, self._files, Path(folder))
        keys, key_sum = with_sum(session, self._identity(), keys, shares)
        self._book.save(session, keys)
        told = {"sealed": text_of(key_sum.sealed), "signature": text_of(key_sum.signature)}
        return messages.SecaggKeySum(**_envelope(request, session), **told)

    def _required(self, sid: str, researcher_id: str) -> Session:
        session = self._session_of(bytes_of(sid), researcher_id)
        require_scheme(session.terms)
        return session


def _envelope(request: Request, session: Session) -> dict[str, str]:
    return {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": session.node_id}
