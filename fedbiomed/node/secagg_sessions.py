"""The sessions of secure aggregation that a node agreed to, kept in its database until they are closed, so that a restart loses none."""

import dataclasses
import time
from collections.abc import Callable

import msgpack

from fedbiomed.common.exceptions import FedbiomedNodeStoreError
from fedbiomed.common.secagg.agreement import Session
from fedbiomed.common.secagg.joye_libert_keys import NodeKeys, keys_as_bytes, keys_of_bytes
from fedbiomed.common.secagg.terms import Scheme, Terms
from fedbiomed.node.store import NodeStore

_KEPT_S = 30 * 86400.0


class SessionBook:
    """Sessions by their sid.

    Args:
        store: the node's database.
        now: the clock.
    """

    def __init__(self, store: NodeStore, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now

    def save(self, session: Session, keys: NodeKeys | None = None) -> None:
        """Keep a session; on the disk when this returns.

        Args:
            session: as agreed.
            keys: of the scheme `joye_libert`, once they are drawn.

        Raises:
            FedbiomedNodeStoreError: it cannot be written.
        """
        row = (session.sid, session.terms.experiment_id, _packed(session, keys), self._now())
        with self._store.transaction(sync=True) as connection:
            connection.execute("INSERT OR REPLACE INTO secagg_sessions VALUES (?, ?, ?, ?)", row)

    def get(self, sid: bytes) -> Session | None:
        """A session, None where none of that name is kept.

        Raises:
            FedbiomedNodeStoreError: it cannot be read.
        """
        found = self._found(sid)
        return None if found is None else found[0]

    def keys(self, sid: bytes) -> NodeKeys | None:
        """The keys of a session, None where none were drawn.

        Raises:
            FedbiomedNodeStoreError: they cannot be read.
        """
        found = self._found(sid)
        return None if found is None else found[1]

    def _found(self, sid: bytes) -> tuple[Session, NodeKeys | None] | None:
        with self._store.transaction() as connection:
            row = connection.execute("SELECT content FROM secagg_sessions WHERE sid = ?", (sid,)).fetchone()
        return None if row is None else _unpacked(row["content"])

    def drop(self, sid: bytes) -> None:
        """Delete a session with its keys, and the records of its rounds."""
        with self._store.transaction(sync=True) as connection:
            connection.execute("DELETE FROM secagg_sessions WHERE sid = ?", (sid,))
            connection.execute("DELETE FROM secagg_rounds WHERE sid = ?", (sid,))

    def rounds(self, sid: bytes) -> list[int]:
        """Rounds of a session of which there are records."""
        with self._store.transaction() as connection:
            rows = connection.execute("SELECT round FROM secagg_rounds WHERE sid = ? ORDER BY round", (sid,)).fetchall()
        return [row["round"] for row in rows]

    def old(self) -> list[bytes]:
        """Sessions that were agreed on 30 days ago or earlier."""
        with self._store.transaction() as connection:
            rows = connection.execute("SELECT sid FROM secagg_sessions WHERE created_at < ?", (self._now() - _KEPT_S,)).fetchall()
        return [row["sid"] for row in rows]


def _packed(session: Session, scheme_keys: NodeKeys | None) -> bytes:
    terms = {**dataclasses.asdict(session.terms), "scheme": session.terms.scheme.value}
    own = {"sid": session.sid, "node_id": session.node_id, "reveal_key": session.reveal_key}
    keys = {"identities": dict(session.identities), "pair_keys": dict(session.pair_keys)}
    drawn = {} if scheme_keys is None else {"scheme_keys": keys_as_bytes(scheme_keys)}
    content: bytes = msgpack.packb({"terms": terms, **own, **keys, **drawn})
    return content


def _unpacked(content: bytes) -> tuple[Session, NodeKeys | None]:
    try:
        kept = msgpack.unpackb(content)
        terms, drawn = kept.pop("terms"), kept.pop("scheme_keys", None)
        made = Terms(**{**terms, "members": tuple(terms["members"]), "scheme": Scheme(terms["scheme"])})
        return Session(terms=made, **kept), None if drawn is None else keys_of_bytes(drawn)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise FedbiomedNodeStoreError(f"a session of secure aggregation in the database cannot be read: {error}") from error
