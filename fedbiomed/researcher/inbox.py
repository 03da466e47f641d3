"""What nodes send to this researcher, handed to whoever waits for it.

The bus's thread only decodes, looks up who asked and puts the message into that one's queue. An order that is closed is remembered:
a node that still speaks of it (its `OrderGot` was lost, or it was away when the order was cancelled) is told again.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from queue import SimpleQueue

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.message import Message, Reply
from fedbiomed.common.messages.monitoring import NodeLog
from fedbiomed.common.messages.presence import Hello, Presence
from fedbiomed.common.messages.training import OrderCancelled, OrderGot
from fedbiomed.common.transport.transport import MessageBus
from fedbiomed.researcher import node_logs
from fedbiomed.researcher.receipts import Receipts

logger = logging.getLogger(__name__)

# Retained presences come in right after the subscription, one by one; until then nobody can say that all are known. At least so long,
# and on a slow line twice the time that the broker took to confirm.
_SETTLE_S = 0.25
_REMEMBERED_ORDERS = 10_000


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The line to the broker stands again; what came meanwhile is lost."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user ends what is waited for."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that came in.

    Args:
        at: when, by `time.monotonic()`.
        what: a reply, a presence, that the line stands again, or that the user ends it.
    """

    at: float
    what: Message | Reconnected | StopAsked


Events = SimpleQueue[Event]


class Inbox:
    """Subscribes to what nodes send to one researcher, and to who is there.

    Args:
        bus: connected.
        federation, researcher_id: whose messages.
    """

    def __init__(self, bus: MessageBus, federation: str, researcher_id: str) -> None:
        self._bus, self._federation, self._researcher_id = bus, federation, researcher_id
        self._lock = threading.Lock()
        self._waiting: dict[str, Events] = {}
        self._closed: OrderedDict[str, OrderGot | OrderCancelled] = OrderedDict()
        self._presences: dict[str, Presence] = {}
        self.receipts = Receipts(self._tell)
        began = time.monotonic()
        bus.subscribe(topics.replies(federation, researcher_id, "+"), self._on_reply)
        bus.subscribe(topics.presence(federation, "+"), self._on_presence)
        self._settle_s = max(_SETTLE_S, 2 * (time.monotonic() - began))
        self.settled_at = time.monotonic() + self._settle_s
        bus.on_connect(self._on_connect)

    def open(self, request_ids: Iterable[str]) -> Events:
        """Begin to collect the replies to these requests; presences and reconnections come along."""
        events: Events = SimpleQueue()
        with self._lock:
            self._waiting.update(dict.fromkeys(request_ids, events))
        return events

    def forget(self, request_ids: Iterable[str]) -> None:
        """End what `open` began."""
        with self._lock:
            for request_id in request_ids:
                self._waiting.pop(request_id, None)

    def close_order(self, message: OrderGot | OrderCancelled) -> None:
        """Tell a node how its order ended, and again whenever it speaks of that order; a receipt may wait for the next order."""
        with self._lock:
            self._waiting.pop(message.request_id, None)
            self._closed[message.request_id] = message
            while len(self._closed) > _REMEMBERED_ORDERS:
                self._closed.popitem(last=False)
        if isinstance(message, OrderGot):
            self.receipts.add(message)
        else:
            self._tell(message)

    def presence(self, node_id: str) -> Presence | None:
        """What is known of a node: online, offline, or nothing at all."""
        with self._lock:
            return self._presences.get(node_id)

    def online_nodes(self) -> list[str]:
        """Ids of the nodes that are connected now, sorted."""
        with self._lock:
            return sorted(node_id for node_id, presence in self._presences.items() if presence.is_online)

    def _tell(self, message: OrderGot | OrderCancelled) -> None:
        self._bus.publish(topics.orders(self._federation, message.node_id), encode(message))

    def _on_reply(self, topic: str, payload: bytes) -> None:
        at, message = time.monotonic(), _decoded(topic, payload)
        if message is None:
            return
        if (
            not isinstance(message, Reply | NodeLog)
            or message.node_id != _last_level(topic)
            or message.researcher_id != self._researcher_id
        ):
            logger.warning("a %s on %s that does not belong there was dropped", type(message).__name__, topic)
        elif isinstance(message, NodeLog):
            node_logs.show(message)
        elif isinstance(message, Hello):
            self._remind(message)
            self._to_all(Event(at, message))
        else:
            self._hand_over(Event(at, message), message)

    def _hand_over(self, event: Event, reply: Reply) -> None:
        with self._lock:
            events, closed = self._waiting.get(reply.request_id), self._closed.get(reply.request_id)
        if events is not None:
            events.put(event)
        elif closed is not None and closed.node_id == reply.node_id:
            self._tell(closed)

    def _remind(self, hello: Hello) -> None:
        with self._lock:
            ended = [self._closed[request_id] for request_id in hello.open_orders if request_id in self._closed]
        for message in ended:
            if message.node_id == hello.node_id:
                self._tell(message)

    def _on_presence(self, topic: str, payload: bytes) -> None:
        at, message = time.monotonic(), _decoded(topic, payload)
        if not isinstance(message, Presence) or message.component_id != _last_level(topic):
            logger.warning("a message on %s that is no presence of that component was dropped", topic)
            return
        with self._lock:
            self._presences[message.component_id] = message
        self._to_all(Event(at, message))

    def _on_connect(self) -> None:
        self.settled_at = time.monotonic() + self._settle_s
        self._to_all(Event(time.monotonic(), Reconnected()))

    def _to_all(self, event: Event) -> None:
        with self._lock:
            queues = {id(events): events for events in self._waiting.values()}
        for events in queues.values():
            events.put(event)


def _decoded(topic: str, payload: bytes) -> Message | None:
    try:
        return decode(payload)
    except FedbiomedMessageError as error:
        logger.warning("a message on %s was dropped: %s", topic, error)
        return None


def _last_level(topic: str) -> str:
    return topic.rpartition("/")[2]
