"""The two seams to the network: a bus for small messages and a store for files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fedbiomed.common.files import FileRef

MessageHandler = Callable[[str, bytes], None]
EVERYONE = ("*",)


class MessageBus(Protocol):
    """Publish and subscribe with at-least-once delivery (QoS 1).

    A handler runs on the bus's own thread, one message at a time and in the order of arrival, never on the network's thread. A message
    is acknowledged to the broker when its handlers have returned: what a handler has stored by then is not lost. A handler that raises
    is logged; the message is then not acknowledged and comes again after the next connect.
    """

    def connect(self, timeout_s: float) -> None:
        """Connect, and stay connected (with back-off, for ever) until `close`.

        Raises:
            FedbiomedMessagingError: no broker answered within the time: which host and port, what to do; or it refused us.
        """

    @property
    def is_connected(self) -> bool:
        """Whether the line stands at this moment."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send, or queue while the line is down; returns at once."""

    def subscribe(self, topic_filter: str, handler: MessageHandler) -> None:
        """Receive what matches; `+` stands for one level. Renewed at every connect; returns when the broker has confirmed."""

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call after each connect (the next ones and, if connected, this one), when subscriptions are renewed; on the bus's thread."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has everything that was published; False when it has not in time."""

    def close(self) -> None:
        """Disconnect and end the threads; a second call does nothing. The last will is not published."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class FileStore(Protocol):
    """Immutable files under keys that the store draws."""

    def put(self, path: Path, *, experiment: str = "", readers: Sequence[str] = EVERYONE) -> FileRef:
        """Store a file.

        Args:
            path: the local file; it may be removed afterwards.
            experiment: whose quota it counts against, and with which it goes.
            readers: ids of the components that may fetch it beside the one that stores it; `*` for everyone in the federation.

        Raises:
            FileStoreError: refused, with the reason (too large, quota, disk full).
            FedbiomedRepositoryError: not reachable: which host, what to do.
        """

    def get(self, ref: FileRef, path: Path) -> None:
        """Fetch a file to a local path, whole and checked against its size and SHA-256, or not at all.

        Raises:
            FileStoreError: no such file, not allowed, or the content is not what the reference says.
            FedbiomedRepositoryError: not reachable.
        """

    def url(self, ref: FileRef) -> str:
        """Where the file lies, for people to read; nobody fetches a URL that a message names."""

    def discard(self, experiment: str) -> None:
        """Forget the files that this component stored for an experiment."""

    def close(self) -> None:
        """End connections; a second call does nothing."""
