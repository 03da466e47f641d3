"""The book of keys of a node: which key each other node and each researcher showed first, kept in the node's database.

A key is pinned by its fingerprint, so that an operator can pin one that was told by telephone before its owner was ever seen.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from fedbiomed.common.constants import ID_PATTERN, ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedCertificateError
from fedbiomed.common.security.identity import fingerprint
from fedbiomed.common.security.peers import changed_key
from fedbiomed.node.store import NodeStore

_HEX = re.compile(r"[0-9a-f]{64}")
_COLUMNS = "peer_id, fingerprint, is_trusted, pinned_at, refused_fingerprint, refused_at"


class PeerBook:
    """Pins keys, see `common.security.peers.Peers`, and lets the operator decide.

    A peer is a dict of `peer_id, fingerprint, is_trusted` (whether the operator compared it), `pinned_at`, and, where another
    key was shown since, `refused_fingerprint` and `refused_at`, else None; times in seconds since 1970.

    Args:
        store: the node's database; changes made by other processes are seen at once.
        now: the clock.
    """

    def __init__(self, store: NodeStore, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now

    def admit(self, peer_id: str, public: bytes) -> None:
        """Pin the key of a component that is seen first; let pass the pinned one, and note another.

        Raises:
            FedbiomedCertificateError: another key is pinned for this component.
        """
        shown = fingerprint(public)
        with self._store.transaction(sync=True) as connection:
            connection.execute("INSERT OR IGNORE INTO peers VALUES (?, ?, 0, ?, NULL, NULL)", (peer_id, shown, self._now()))
            pinned = connection.execute("SELECT fingerprint FROM peers WHERE peer_id = ?", (peer_id,)).fetchone()[0]
            if pinned != shown:
                note = "UPDATE peers SET refused_fingerprint = ?, refused_at = ? WHERE peer_id = ?"
                connection.execute(note, (shown, self._now(), peer_id))
        if pinned != shown:
            raise changed_key(peer_id, pinned, shown)

    def all(self) -> list[dict[str, Any]]:
        """All peers, by id."""
        with self._store.transaction() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM peers ORDER BY peer_id").fetchall()
        return [{**dict(row), "is_trusted": bool(row["is_trusted"])} for row in rows]

    def get(self, peer_id: str) -> dict[str, Any]:
        """One peer.

        Raises:
            FedbiomedCertificateError: no key of it is known.
        """
        found = next((row for row in self.all() if row["peer_id"] == peer_id), None)
        if found is None:
            raise _error(f"no key of {peer_id!r:.80} is known; `fedbiomed node peers list` shows those that are")
        return found

    def trust(self, peer_id: str, wanted: str) -> dict[str, Any]:
        """Pin a key that the operator compared with its owner, in the place of any other.

        Args:
            peer_id: whose.
            wanted: its fingerprint; dashes, spaces and capitals do not matter.

        Returns:
            The peer as it is now.

        Raises:
            FedbiomedCertificateError: that is no id, or no fingerprint.
        """
        if not ID_PATTERN.fullmatch(peer_id):
            raise _error(f"{peer_id!r:.80} is no id of a node or researcher")
        with self._store.transaction(sync=True) as connection:
            row = "INSERT OR REPLACE INTO peers VALUES (?, ?, 1, ?, NULL, NULL)"
            connection.execute(row, (peer_id, _spelled(wanted), self._now()))
        return self.get(peer_id)

    def forget(self, peer_id: str) -> None:
        """Forget a peer: the next key that it shows is pinned.

        Raises:
            FedbiomedCertificateError: no key of it is known.
        """
        with self._store.transaction(sync=True) as connection:
            self.get(peer_id)
            connection.execute("DELETE FROM peers WHERE peer_id = ?", (peer_id,))


def _spelled(wanted: str) -> str:
    digits = re.sub(r"[-\s:]", "", wanted).lower()
    if not _HEX.fullmatch(digits):
        raise _error(f"a fingerprint has 64 hex digits, as `fedbiomed node status` shows them, not {wanted!r:.80}")
    return "-".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _error(reason: str) -> FedbiomedCertificateError:
    return FedbiomedCertificateError(f"{ErrorNumbers.FB619.value}: {reason}")
