"""`MessageBus` over MQTT 3.1.1, QoS 1, with paho.

Three threads meet here: that of the line (`mqtt_line.py`; it runs the `_on_...` methods, which note what happened and return), the
dispatcher's (the user's handlers) and the user's own. One lock guards paho and all that is noted here.

A message is acknowledged by its number, and a broker that forgot us counts from 1 again: an acknowledgement for a line that is gone must
not be sent on the next one, so each message remembers the line on which it came.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedbiomed.common.exceptions import FedbiomedMessagingError, TransportTimeout
from fedbiomed.common.transport.dispatcher import Delivery, Dispatcher
from fedbiomed.common.transport.mqtt_line import MqttLine
from fedbiomed.common.transport.transport import MessageHandler

logger = logging.getLogger(__name__)
_QOS = 1
_SUBSCRIBE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0


class MqttBus:
    """A component's line to the broker.

    Args:
        client_id: the component's id, by which the broker keeps its session.
        host, port: the broker.
        will: topic and payload that the broker publishes and retains when the line is cut without a `close`.
        persistent: the broker keeps what arrives while we are away.
        username: default is the client id.
        password: if the broker asks for one.
        keepalive_s: the broker takes us for gone after one and a half times this silence.
    """

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        *,
        will: tuple[str, bytes] | None = None,
        persistent: bool = True,
        username: str | None = None,
        password: str | None = None,
        keepalive_s: int = 30,
    ) -> None:
        self._address = f"{host}:{port}"
        self._state = threading.Condition(threading.RLock())
        self._dispatcher = Dispatcher(f"bus-{client_id}")
        self._callbacks: list[Callable[[], None]] = []
        self._outbox: deque[tuple[str, bytes, bool]] = deque()
        self._accepted_count = 0
        self._acknowledged_count = 0
        self._is_up = False
        self._is_ready = False
        self._is_closed = False
        self._line_number = 0
        self._refusal: str | None = None
        self._told_refusal: str | None = None
        self._renewal: int | None = None
        self._confirmed: dict[int, list[ReasonCode]] = {}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=not persistent, protocol=MQTTProtocolVersion.MQTTv311, manual_ack=True
        )
        self._client.username_pw_set(username or client_id, password)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=_QOS, retain=True)
        self._line = MqttLine(self._client, (host, port), keepalive_s, self._state, self._send_outbox, name=f"mqtt-{client_id}")
        self._set_callbacks()

    def _set_callbacks(self) -> None:
        client = self._client
        client.max_inflight_messages_set(0)  # no limit: what paho holds back beyond one it may forget to send after a reconnect
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message

    @property
    def is_connected(self) -> bool:
        """Whether the line stands and all subscriptions are renewed."""
        return self._is_ready

    def connect(self, timeout_s: float) -> None:
        """See `MessageBus.connect`.

        After a failure the bus goes on trying until it is closed; a further call tries at once and waits again.
        """
        self._dispatcher.start()
        with self._state:
            if self._is_closed:
                raise FedbiomedMessagingError(f"the bus to {self._address} was closed; make a new one")
            self._refusal = None
            if not self._is_up:
                self._line.start()
            self._state.wait_for(lambda: self._is_ready or self._refusal or self._is_closed, timeout_s)
            if self._refusal:
                raise FedbiomedMessagingError(
                    f"FB101: the MQTT broker at {self._address} {self._refusal}; check the component's id, password and rights"
                )
            if not self._is_ready:
                raise FedbiomedMessagingError(
                    f"FB101: no MQTT broker at {self._address}: {self._line.cause}; start one with "
                    f"`fedbiomed network start` or set the address (--broker, MQTT_BROKER, MQTT_BROKER_PORT)"
                )

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """See `MessageBus.publish`.

        Raises:
            FedbiomedMessagingError: the bus was closed.
        """
        with self._state:
            if self._is_closed:
                raise FedbiomedMessagingError(f"the bus to {self._address} was closed; a message on {topic} was not sent")
            self._accepted_count += 1
            self._outbox.append((topic, payload, retain))
            self._send_outbox()
            self._line.poke()

    def subscribe(self, topic_filter: str, handler: MessageHandler) -> None:
        """See `MessageBus.subscribe`; a line that is cut meanwhile ends the wait, the next one renews the subscription.

        Raises:
            FedbiomedMessagingError: the broker refuses this topic.
            TransportTimeout: it has not confirmed within 10 s.
        """
        with self._state:
            self._dispatcher.add(topic_filter, handler)
            if not self._is_up:
                return
            line, number = self._line_number, self._client.subscribe(topic_filter, qos=_QOS)[1]
            self._line.poke()
            self._state.wait_for(lambda: number in self._confirmed or self._line_number != line or self._is_closed, _SUBSCRIBE_TIMEOUT_S)
            codes = self._confirmed.pop(number or 0, None)
            if codes is None and self._line_number == line and not self._is_closed:
                raise TransportTimeout(f"FB103: the MQTT broker at {self._address} has not confirmed the subscription to {topic_filter}")
        if codes and _is_refused(codes):
            raise FedbiomedMessagingError(f"FB101: the MQTT broker at {self._address} refuses the subscription to {topic_filter}")

    def on_connect(self, callback: Callable[[], None]) -> None:
        """See `MessageBus.on_connect`."""
        with self._state:
            self._callbacks.append(callback)
            if self._is_ready:
                self._dispatcher.call(callback)

    def flush(self, timeout_s: float) -> bool:
        """See `MessageBus.flush`."""
        with self._state:
            target = self._accepted_count
            return self._state.wait_for(lambda: self._acknowledged_count >= target, timeout_s)

    def close(self) -> None:
        """See `MessageBus.close`; if the line stands, the broker is given 1 s to confirm what was published.

        A socket that is closed while confirmations are still coming in may take back what it has sent.
        """
        with self._state:
            if self._is_closed:
                return
            self._is_closed = True
            self._state.notify_all()
        self._dispatcher.close()
        with self._state:
            self._state.wait_for(lambda: not self._is_ready or self._acknowledged_count >= self._accepted_count, _CLOSE_TIMEOUT_S)
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _on_connect(self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, code: ReasonCode, _more: Properties | None) -> None:
        if code.is_failure:
            self._refuse(f"refused us: {code}")
            return
        self._is_up = True
        filters = [(topic_filter, _QOS) for topic_filter in self._dispatcher.filters]
        self._renewal = client.subscribe(filters)[1] if filters else None
        if not filters:
            self._become_ready()

    def _on_subscribe(self, _client: paho.Client, _data: Any, number: int, codes: list[ReasonCode], _more: Properties | None) -> None:
        if number != self._renewal:
            self._confirmed[number] = codes
            self._state.notify_all()
            return
        if _is_refused(codes):
            refused = [topic for topic, code in zip(self._dispatcher.filters, codes, strict=False) if code.is_failure]
            self._refuse(f"refuses the subscription to {', '.join(refused)}")
        self._become_ready()

    def _refuse(self, how: str) -> None:
        self._refusal = how
        if how != self._told_refusal:  # once, however often it is tried again
            logger.warning("the MQTT broker at %s %s", self._address, how)
        self._told_refusal = how
        self._state.notify_all()

    def _become_ready(self) -> None:
        self._is_ready, self._told_refusal = True, self._refusal
        for callback in self._callbacks:
            self._dispatcher.call(callback)
        self._state.notify_all()
        logger.info("connected to the MQTT broker at %s", self._address)

    def _send_outbox(self) -> None:
        """Send what waits; after a connect the line calls this when paho has sent again what it held, so that the order is kept."""
        while self._outbox and self._is_ready:
            topic, payload, retain = self._outbox[0]
            if self._client.publish(topic, payload, qos=_QOS, retain=retain).rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return  # 65535 are on their way; each acknowledgement makes room
            self._outbox.popleft()

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: paho.DisconnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        was_ready, self._is_up, self._is_ready = self._is_ready, False, False
        self._line_number += 1
        self._confirmed.clear()
        self._line.poke()
        self._state.notify_all()
        if was_ready and not self._is_closed:
            logger.warning("the line to the MQTT broker at %s is cut (%s); connecting again", self._address, code)

    def _on_publish(self, _client: paho.Client, _data: Any, _number: int, _code: ReasonCode, _more: Properties | None) -> None:
        self._acknowledged_count += 1
        self._state.notify_all()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        line = self._line_number
        self._dispatcher.deliver(Delivery(message.topic, bytes(message.payload), lambda: self._acknowledge(message, line)))

    def _acknowledge(self, message: paho.MQTTMessage, line: int) -> None:
        with self._state:
            if line == self._line_number:
                self._client.ack(message.mid, message.qos)
                self._line.poke()


def _is_refused(codes: list[ReasonCode]) -> bool:
    return any(code.is_failure for code in codes)
