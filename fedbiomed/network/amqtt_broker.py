"""amqtt's broker with what it lacks for components that come and go.

What amqtt 0.12 does, and what is done about it here; `tests/transport/test_bus_broker.py` tries each:

- it keeps a session only for a client that an authentication plugin took for somebody, which its anonymous plugin does not:
  `NamedComponents` runs from the start;
- it forgets a message that was sent and not acknowledged, after 5 s or when the line is cut: `_Inflight` keeps it, and amqtt's own retry
  sends it again at the next connect;
- it drops what a client published just before it left, although that was acknowledged: here it is handed on first;
- it never ends the line of a client that has fallen silent: `_Handler` does, after one and a half times the client's keepalive;
- a client that connects while its former line still seems to stand is marked as away when that line ends, and gets nothing any more:
  here the former line ends first, with the will that it came with;
- at a connect it sends all retained messages of topics that anybody subscribed to: here only of the client's own;
- it reads as much as a packet says it is long, and waits for a first packet without end.

A broker of our own was refused: it is far more code than these repairs, and what serves other machines is Mosquitto anyway. The methods
overridden here are private to amqtt: a new version of it must pass those tests.
"""

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from amqtt.adapters import ReaderAdapter, StreamReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig
from amqtt.errors import AMQTTError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import ApplicationMessage, Session

MAX_PACKET_BYTES = 256 * 1024
_FIRST_PACKET_TIMEOUT_S = 10.0
_EVICTION_TIMEOUT_S = 2.0
_SILENCE = 1.5


class NamedComponents(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Let in who names itself: the user name is the client id, or the client id begins with it and a dot."""

    async def authenticate(self, *, session: Session) -> bool:
        """Whether this client may connect."""
        name, client_id = session.username, session.client_id
        return bool(name) and (client_id == name or str(client_id).startswith(f"{name}."))


class LimitedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt has no types
    """Ends the line of a client whose packet is larger than any of ours can be."""

    async def read(self, n: int = -1) -> bytes:
        """Read so many bytes.

        Raises:
            AMQTTError: more than 256 KiB.
        """
        if n > MAX_PACKET_BYTES:
            raise AMQTTError(f"a packet of {n} bytes; at most {MAX_PACKET_BYTES} are allowed")
        return bytes(await super().read(n))


class SteadyBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """See the head of this module."""

    def __init__(self, config: BrokerConfig, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, loop)
        self._subscriptions = _StableDict()
        self._lines: dict[str, _OpenLine] = {}

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        try:
            async with asyncio.timeout(_FIRST_PACKET_TIMEOUT_S):
                _, session = await super()._initialize_client_session(reader, writer, remote_address, remote_port)
        except TimeoutError as error:
            raise AMQTTError(f"no CONNECT within {_FIRST_PACKET_TIMEOUT_S:.0f} s") from error
        session.keep_alive = math.ceil(_SILENCE * session.keep_alive)
        if not isinstance(session.inflight_out, _Inflight):
            session.inflight_out = _Inflight()
        return _Handler(self.plugins_manager), session

    async def _handle_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, client_session: Session, handler: BrokerProtocolHandler, *rest: Any
    ) -> None:
        client_id = str(client_session.client_id)
        will = _Will.of(client_session)
        await self._end_former_line(client_id, client_session)
        will.put_into(client_session)
        line = self._lines[client_id] = _OpenLine(handler, asyncio.current_task(), will)
        try:
            await super()._handle_client_session(reader, writer, client_session, handler, *rest)
        finally:
            line.ended.set()
            if self._lines.get(client_id) is line:
                del self._lines[client_id]

    async def _end_former_line(self, client_id: str, session: Session) -> None:
        line = self._lines.get(client_id)
        if line is None:
            return
        line.will.put_into(session)
        await line.handler.handle_connection_closed()
        try:
            async with asyncio.timeout(_EVICTION_TIMEOUT_S):
                await line.ended.wait()
        except TimeoutError:
            if line.task is not None:
                line.task.cancel()

    async def _handle_message_delivery(
        self, client_session: Session, handler: BrokerProtocolHandler, wait_deliver: "asyncio.Future[Any]"
    ) -> bool:
        if wait_deliver.result() is not handler.in_hand:
            return True  # it was handed on when the client left
        handler.in_hand = None
        return bool(await super()._handle_message_delivery(client_session, handler, wait_deliver))

    async def _handle_disconnect(
        self, client_session: Session, handler: BrokerProtocolHandler, disconnect_waiter: "asyncio.Future[Any]"
    ) -> None:
        received = client_session.delivered_message_queue
        while handler.in_hand is not None or not received.empty():
            if handler.in_hand is None:
                handler.in_hand = received.get_nowait()
            taken = asyncio.get_running_loop().create_future()
            taken.set_result(handler.in_hand)
            await self._handle_message_delivery(client_session, handler, taken)
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Session) -> None:
        if any(known.client_id == session.client_id for known, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)


@dataclass(frozen=True, slots=True)
class _Will:
    """A client's will; retained in any case: amqtt forgets whether a client that comes back asked for that, and all of ours do."""

    flag: bool
    topic: str | None
    message: bytes | None
    qos: int | None

    @classmethod
    def of(cls, session: Session) -> Self:
        return cls(session.will_flag, session.will_topic, session.will_message, session.will_qos)

    def put_into(self, session: Session) -> None:
        session.will_flag, session.will_topic, session.will_message, session.will_qos = self.flag, self.topic, self.message, self.qos
        session.will_retain = self.flag


@dataclass(slots=True)
class _OpenLine:
    """A connected client: what speaks with it, on which task, its will, and whether it has ended."""

    handler: BrokerProtocolHandler
    task: "asyncio.Task[Any] | None"
    will: _Will
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]  # amqtt has no types
    in_hand: ApplicationMessage | None = None  # taken from what the client sent, and not handed on yet

    async def mqtt_deliver_next_message(self) -> ApplicationMessage | None:
        self.in_hand = await super().mqtt_deliver_next_message()
        return self.in_hand

    async def start(self) -> None:
        await super().start()
        if self._reader_stopped.is_set():  # the line was cut while messages were sent again, and nobody was told
            await self.handle_connection_closed()

    def handle_read_timeout(self) -> None:
        if self._reader_task is not None:
            self._reader_task.cancel()


class _Inflight(OrderedDict[int, Any]):
    """Messages sent to a client by packet number; amqtt takes one out when it stops waiting, and here only an acknowledged one goes."""

    def pop(self, key: int, default: Any = None) -> Any:
        message = self.get(key, default)
        if message is not None and message.puback_packet is not None:
            with contextlib.suppress(KeyError):
                del self[key]
        return message


class _StableDict(dict[str, Any]):
    """A dict that may be changed while it is walked through: amqtt waits for clients in the middle of that."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))
