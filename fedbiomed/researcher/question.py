"""One question to several nodes: published at once, its replies collected until all who can answer have, with a deadline.

Which nodes are there is known from their retained presences, so nobody waits for a time that has only to pass.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from queue import Empty
from types import TracebackType
from typing import Self

from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.discovery import DatasetsReply
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.transport.transport import MessageBus
from fedbiomed.researcher.inbox import Events, Inbox

logger = logging.getLogger(__name__)

# How long a node is waited for of which no presence is known: it may be there, its presence forgotten by the broker.
_GRACE_S = 1.0


class Question:
    """A context manager: entering publishes, iterating gives the replies as they come, leaving ends it.

    Iterating ends when every awaited node has answered in all parts, or at the deadline. Awaited are the named nodes, or all that are
    online; one that is known to be offline is not waited for, one of which nothing is known for a short grace.

    Args:
        bus, inbox: the researcher's.
        federation: where the nodes are.
        request: what to ask; the same for all.
        nodes: whom, None for everyone.
        timeout_s: the deadline, counted from entering.
    """

    def __init__(
        self, bus: MessageBus, inbox: Inbox, federation: str, request: Request, *, nodes: Sequence[str] | None, timeout_s: float
    ) -> None:
        self._bus, self._inbox, self._request, self._timeout_s = bus, inbox, request, timeout_s
        self._nodes = None if nodes is None else frozenset(nodes)
        self._topics = (
            [topics.broadcast(federation)] if nodes is None else [topics.orders(federation, node_id) for node_id in sorted(set(nodes))]
        )
        self._parts: dict[str, set[int]] = {}
        self._answered: set[str] = set()
        self._begun = 0.0
        self._events: Events

    def __enter__(self) -> Self:
        payload = encode(self._request)
        self._events = self._inbox.open([self._request.request_id])
        self._begun = time.monotonic()
        for topic in self._topics:
            self._bus.publish(topic, payload)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inbox.forget([self._request.request_id])

    def __iter__(self) -> Iterator[Reply]:
        while (wait_s := self._wait_s()) > 0:
            reply = self._next(wait_s)
            if reply is not None:
                yield reply

    @property
    def is_open(self) -> bool:
        """Whether somebody is still awaited."""
        return self._wait_s() > 0

    def take(self, limit_s: float) -> Reply | None:
        """The next reply; None when nobody is awaited any more, or none came within `limit_s`."""
        end = time.monotonic() + limit_s
        while True:
            wait_s = min(self._wait_s(), end - time.monotonic())
            reply = self._next(max(0.0, wait_s))
            if reply is not None:
                return reply
            if wait_s <= 0 and self._events.empty():
                return None

    def _next(self, wait_s: float) -> Reply | None:
        """What comes within that time, None also where it is something else."""
        try:
            message = self._events.get(timeout=wait_s).what
        except Empty:
            return None
        if isinstance(message, Reply) and message.request_id == self._request.request_id and self._is_new(message):
            return message
        return None

    def silent_nodes(self) -> list[str]:
        """Nodes that were named, or are online, and have not answered (in all parts)."""
        return sorted((self._nodes if self._nodes is not None else frozenset(self._inbox.online_nodes())) - self._answered)

    def _is_new(self, reply: Reply) -> bool:
        if self._nodes is not None and reply.node_id not in self._nodes:
            return False
        part, parts = (reply.part, reply.parts) if isinstance(reply, DatasetsReply) else (0, 1)
        known = self._parts.setdefault(reply.node_id, set())
        if part in known or reply.node_id in self._answered:
            return False
        known.add(part)
        if len(known) >= parts:
            self._answered.add(reply.node_id)
        return True

    def _wait_s(self) -> float:
        """Seconds until the next moment at which nobody may be awaited any more; 0 or less: now."""
        now, deadline = time.monotonic(), self._begun + self._timeout_s
        until = min(max(self._awaited_until(), self._open_until()), deadline)
        return until - now

    def _open_until(self) -> float:
        """Until when it is not known who is there."""
        return self._inbox.settled_at if self._nodes is None else 0.0

    def _awaited_until(self) -> float:
        online = frozenset(self._inbox.online_nodes())
        if self._nodes is None:
            if online - self._answered:
                return float("inf")
            return 0.0 if self._answered else self._begun + _GRACE_S
        missing = self._nodes - self._answered
        if missing & online:
            return float("inf")
        if any(self._inbox.presence(node_id) is None for node_id in missing):
            return max(self._begun + _GRACE_S, self._inbox.settled_at)
        return self._inbox.settled_at if missing else 0.0
