"""`MessageBus` inside one process: the same promises as MQTT, kept without a socket.

`MemoryBroker` holds what an MQTT broker holds: sessions with their subscriptions and what was not acknowledged yet, retained messages and
wills. It can be stopped, made to forget, and a single line can be cut, so that what is built on a bus can be tried against all of that.

One difference: of two components with one id the first stays offline, where over MQTT the two evict each other again and again.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from fedbiomed.common.exceptions import FedbiomedMessagingError
from fedbiomed.common.transport.dispatcher import Delivery, Dispatcher, matches
from fedbiomed.common.transport.transport import MessageHandler


class Line(Protocol):
    """What a broker tells a connected component; called with the broker's lock held."""

    client_id: str
    is_persistent: bool
    will: tuple[str, bytes] | None

    def opened(self) -> None:
        """The line stands."""

    def lost(self) -> None:
        """The line is down."""

    def arrived(self, delivery: Delivery) -> None:
        """A message came."""


@dataclass(slots=True)
class _Session:
    """What a broker knows of one component; `open_messages` holds by number what it has not acknowledged, in order."""

    line: Line | None = None
    filters: list[str] = field(default_factory=list)
    open_messages: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class MemoryBroker:
    """Routes messages between the `MemoryBus`es of one process."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._is_running = True
        self._members: dict[str, Line] = {}
        self._held: set[str] = set()
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, bytes] = {}
        self._count = 0

    def join(self, line: Line) -> None:
        """Connect a component now and whenever it can be, until it leaves; one that had the id is cut."""
        with self.changed:
            former = self._members.get(line.client_id)
            if former is not None and former is not line:
                self._lose(line.client_id, with_will=True)
            self._members[line.client_id] = line
            self._open(line)

    def leave(self, line: Line) -> None:
        """Disconnect a component in good order: its will is not published."""
        with self.changed:
            if self._members.get(line.client_id) is line:
                del self._members[line.client_id]
                self._lose(line.client_id, with_will=False)

    def subscribe(self, line: Line, topic_filter: str) -> None:
        """Send a component what matches, first what is retained."""
        with self.changed:
            session = self._sessions[line.client_id]
            if topic_filter not in session.filters:
                session.filters.append(topic_filter)
            for topic, payload in self._retained.items():
                if matches(topic_filter, topic):
                    self._send(session, topic, payload)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Send a message to every session that matches; an empty retained one clears what was retained."""
        with self.changed:
            if retain and payload:
                self._retained[topic] = payload
            elif retain:
                self._retained.pop(topic, None)
            for session in list(self._sessions.values()):
                if any(matches(topic_filter, topic) for topic_filter in session.filters):
                    self._send(session, topic, payload)

    def cut(self, client_id: str) -> None:
        """Break one component's line, as when its network fails; it stays offline until `restore`."""
        with self.changed:
            self._held.add(client_id)
            self._lose(client_id, with_will=True)

    def restore(self, client_id: str) -> None:
        """Let a component whose line was cut connect again."""
        with self.changed:
            self._held.discard(client_id)
            if client_id in self._members:
                self._open(self._members[client_id])

    def stop(self) -> None:
        """Go down: every line is lost."""
        with self.changed:
            self._is_running = False
            for client_id in list(self._members):
                self._lose(client_id, with_will=False)

    def start(self, *, forget: bool = False) -> None:
        """Come up again, with all sessions and retained messages or without; every component connects again."""
        with self.changed:
            self._is_running = True
            if forget:
                self._sessions.clear()
                self._retained.clear()
            for line in list(self._members.values()):
                self._open(line)

    def _open(self, line: Line) -> None:
        if not self._is_running or line.client_id in self._held:
            return
        if not line.is_persistent:
            self._sessions.pop(line.client_id, None)
        session = self._sessions.setdefault(line.client_id, _Session())
        session.line = line
        for number, message in list(session.open_messages.items()):
            self._hand_over(session, number, message)
        line.opened()
        self.changed.notify_all()

    def _lose(self, client_id: str, *, with_will: bool) -> None:
        session = self._sessions.get(client_id)
        if session is None or session.line is None:
            return
        line, session.line = session.line, None
        if not line.is_persistent:
            del self._sessions[client_id]
        line.lost()
        if with_will and line.will is not None:
            self.publish(*line.will, retain=True)
        self.changed.notify_all()

    def _send(self, session: _Session, topic: str, payload: bytes) -> None:
        self._count += 1
        session.open_messages[self._count] = (topic, payload)
        self._hand_over(session, self._count, (topic, payload))

    def _hand_over(self, session: _Session, number: int, message: tuple[str, bytes]) -> None:
        if session.line is not None:
            session.line.arrived(Delivery(*message, acknowledge=partial(self._acknowledge, session, number)))

    def _acknowledge(self, session: _Session, number: int) -> None:
        with self.changed:
            session.open_messages.pop(number, None)


class MemoryBus:
    """A component's line to a `MemoryBroker`; see `MessageBus` and `MqttBus` for the arguments."""

    def __init__(self, broker: MemoryBroker, client_id: str, *, will: tuple[str, bytes] | None = None, persistent: bool = True) -> None:
        self.client_id = client_id
        self.will = will
        self.is_persistent = persistent
        self._broker = broker
        self._dispatcher = Dispatcher(f"bus-{client_id}")
        self._callbacks: list[Callable[[], None]] = []
        self._outbox: deque[tuple[str, bytes, bool]] = deque()
        self._is_connected = False
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether the line stands."""
        return self._is_connected

    def connect(self, timeout_s: float) -> None:
        """See `MessageBus.connect`."""
        self._dispatcher.start()
        self._broker.join(self)
        with self._broker.changed:
            if not self._broker.changed.wait_for(lambda: self._is_connected, timeout_s):
                raise FedbiomedMessagingError(f"FB101: no broker in memory for {self.client_id}: it is stopped; start it")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """See `MessageBus.publish`."""
        with self._broker.changed:
            if self._is_closed:
                raise FedbiomedMessagingError(f"the bus of {self.client_id} is closed; {topic} was not sent")
            self._outbox.append((topic, payload, retain))
            self._send_outbox()

    def subscribe(self, topic_filter: str, handler: MessageHandler) -> None:
        """See `MessageBus.subscribe`."""
        with self._broker.changed:
            self._dispatcher.add(topic_filter, handler)
            if self._is_connected:
                self._broker.subscribe(self, topic_filter)

    def on_connect(self, callback: Callable[[], None]) -> None:
        """See `MessageBus.on_connect`."""
        with self._broker.changed:
            self._callbacks.append(callback)
            if self._is_connected:
                self._dispatcher.call(callback)

    def flush(self, timeout_s: float) -> bool:
        """See `MessageBus.flush`."""
        with self._broker.changed:
            return self._broker.changed.wait_for(lambda: not self._outbox, timeout_s)

    def close(self) -> None:
        """See `MessageBus.close`."""
        with self._broker.changed:
            if self._is_closed:
                return
            self._is_closed = True
        self._dispatcher.close()
        self._broker.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def opened(self) -> None:
        """Renew what was subscribed to, then send what was published meanwhile; called by the broker."""
        self._is_connected = True
        for topic_filter in self._dispatcher.filters:
            self._broker.subscribe(self, topic_filter)
        for callback in self._callbacks:
            self._dispatcher.call(callback)
        self._send_outbox()

    def lost(self) -> None:
        """Note that the line is down; called by the broker."""
        self._is_connected = False

    def arrived(self, delivery: Delivery) -> None:
        """Take a message; called by the broker."""
        self._dispatcher.deliver(delivery)

    def _send_outbox(self) -> None:
        while self._outbox and self._is_connected:
            topic, payload, retain = self._outbox.popleft()
            self._broker.publish(topic, payload, retain=retain)
