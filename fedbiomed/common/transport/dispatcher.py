"""The thread on which a bus runs the handlers of its user, one message at a time.

The network's thread only puts work into the queue here: whatever a handler does, the line stays alive and a handler may publish.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from fedbiomed.common.transport.transport import MessageHandler

logger = logging.getLogger(__name__)
_MAX_UNCLAIMED = 16
_JOIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that arrived, and how to tell the broker that it need not come again."""

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic is meant by a filter: `+` stands for one level, `#` at the end for all that follow."""
    if topic_filter == topic:
        return True
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


class Dispatcher:
    """Hands each delivery to the handlers whose filter matches, and acknowledges it when all of them have returned.

    What matches no handler yet (a broker sends what it kept for us before we have said what we want) waits for a handler that takes it.
    At most 16 wait, fewer than a broker leaves unacknowledged (Mosquitto: 20); the oldest beyond is acknowledged and dropped, so that a
    subscription of a former life that nobody renews cannot block the line.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._handlers: dict[str, tuple[MessageHandler, ...]] = {}
        self._unclaimed: deque[Delivery] = deque()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def filters(self) -> tuple[str, ...]:
        """What was subscribed to, in that order."""
        return tuple(self._handlers)

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def add(self, topic_filter: str, handler: MessageHandler) -> None:
        """Let a handler have what matches from now on, and what already waits."""
        self._handlers = {**self._handlers, topic_filter: (*self._handlers.get(topic_filter, ()), handler)}
        self._queue.put(self._offer_unclaimed)

    def deliver(self, delivery: Delivery) -> None:
        """Put a message into the queue; returns at once."""
        self._queue.put(lambda: self._handle(delivery))

    def call(self, callback: Callable[[], None]) -> None:
        """Run a callback in its turn."""
        self._queue.put(lambda: _run_guarded(callback, "a callback of on_connect"))

    def close(self) -> None:
        """End the thread after the handler that is running; what is queued is left unacknowledged."""
        self._is_closed.set()
        self._queue.put(_nothing)
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        self._thread.join(_JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            logger.warning("%s: a handler still runs %.0f s after the bus was closed", self._thread.name, _JOIN_TIMEOUT_S)

    def _work(self) -> None:
        while not self._is_closed.is_set():
            self._queue.get()()

    def _handle(self, delivery: Delivery) -> None:
        handlers = [h for topic_filter, some in self._handlers.items() if matches(topic_filter, delivery.topic) for h in some]
        if not handlers:
            self._keep(delivery)
            return
        what = f"a handler of {delivery.topic}"
        outcomes = [_run_guarded(lambda h=handler: h(delivery.topic, delivery.payload), what) for handler in handlers]  # type: ignore[misc]
        if all(outcomes):
            delivery.acknowledge()

    def _keep(self, delivery: Delivery) -> None:
        self._unclaimed.append(delivery)
        if len(self._unclaimed) > _MAX_UNCLAIMED:
            oldest = self._unclaimed.popleft()
            logger.warning("dropped a message on %s: nothing here subscribes to that topic", oldest.topic)
            oldest.acknowledge()

    def _offer_unclaimed(self) -> None:
        waiting, self._unclaimed = self._unclaimed, deque()
        for delivery in waiting:
            self._handle(delivery)


def _run_guarded(work: Callable[[], None], what: str) -> bool:
    try:
        work()
    except Exception:  # a raise here would end the thread, and every later message would be lost silently
        logger.exception("%s failed", what)
        return False
    return True


def _nothing() -> None:
    """Wake the thread so that it sees that it was closed."""
