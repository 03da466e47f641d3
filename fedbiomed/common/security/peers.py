"""Which public key belongs to which component: the first that was seen is pinned, another one is refused."""

from typing import Protocol

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedCertificateError
from fedbiomed.common.security.identity import fingerprint


class Peers(Protocol):
    """A book of public keys."""

    def admit(self, peer_id: str, public: bytes) -> None:
        """Pin the key of a component that is seen first; let pass the pinned one.

        Raises:
            FedbiomedCertificateError: another key is pinned for this component.
        """


class MemoryPeers:
    """A book that goes with the process.

    Args:
        pinned: keys that are known before.
    """

    def __init__(self, pinned: dict[str, bytes] | None = None) -> None:
        self._pinned = dict(pinned or {})

    def admit(self, peer_id: str, public: bytes) -> None:
        """See `Peers`."""
        if self._pinned.setdefault(peer_id, public) != public:
            raise changed_key(peer_id, fingerprint(self._pinned[peer_id]), fingerprint(public))


def changed_key(peer_id: str, pinned: str, shown: str) -> FedbiomedCertificateError:
    """The error about a component that shows another key than before; both by fingerprint."""
    return FedbiomedCertificateError(
        f"{ErrorNumbers.FB619.value}: {peer_id} shows the key {shown}, but {pinned} is pinned; ask its people "
        "by another way which is right, and forget the pinned one if theirs is new"
    )
