"""`MqttBus` against brokers that answer late, wrongly or not at all."""

import os
import random
import socket
import threading
import uuid
from collections.abc import Iterator

import psutil
import pytest

from fedbiomed.common.exceptions import FedbiomedMessagingError
from fedbiomed.common.transport.dispatcher import matches
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.network.broker import EmbeddedBroker
from tests.support.brokers import free_port
from tests.support.buses import TIMEOUT_S, Inbox
from tests.support.raw_mqtt import CONNACK, CONNECT, PUBACK, SUBACK, SUBSCRIBE, Wire, packet, publish


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port on which the test itself plays the broker."""
    with socket.create_server(("127.0.0.1", 0)) as line:
        line.settimeout(TIMEOUT_S)
        yield line


def accepted(listener: socket.socket, *, suback_code: int = 1) -> Wire:
    """Accept a bus with one subscription."""
    wire = accepted_silently(listener)
    confirm_subscription(wire, suback_code)
    return wire


def accepted_silently(listener: socket.socket) -> Wire:
    """Accept a bus that subscribes to nothing."""
    wire = Wire(listener.accept()[0])
    assert wire.read()[0] == CONNECT
    wire.send(packet(CONNACK, 0, b"\x00\x00"))
    return wire


def confirm_subscription(wire: Wire, code: int = 1) -> None:
    """Answer a SUBSCRIBE."""
    kind, body = wire.read()
    assert kind == SUBSCRIBE
    wire.send(packet(SUBACK, 0, body[:2] + bytes([code])))


def refuse_and_wait(listener: socket.socket) -> None:
    """Accept a bus, refuse its subscription and wait until it leaves."""
    with accepted(listener, suback_code=0x80) as wire:
        wire.read_until(0)


def test_no_broker_is_said_in_one_line_with_what_to_do() -> None:
    port = free_port()
    with MqttBus("node", "127.0.0.1", port) as bus, pytest.raises(FedbiomedMessagingError) as caught:
        bus.connect(0.1)
    assert str(caught.value) == (
        f"FB101: no MQTT broker at 127.0.0.1:{port}: Connection refused; start one with `fedbiomed network start` "
        f"or set the address (--broker, MQTT_BROKER, MQTT_BROKER_PORT)"
    )


def test_what_accepts_but_does_not_answer_is_no_broker(listener: socket.socket) -> None:
    with MqttBus("node", *listener.getsockname()) as bus, pytest.raises(FedbiomedMessagingError, match="does not answer as an MQTT broker"):
        bus.connect(0.1)


def test_a_broker_that_starts_while_we_connect_is_found() -> None:
    broker = EmbeddedBroker("127.0.0.1", free_port())
    starter = threading.Timer(0.2, broker.start)
    starter.start()
    try:
        with MqttBus(uuid.uuid4().hex, "127.0.0.1", broker.port) as bus:
            bus.connect(TIMEOUT_S)
            assert bus.is_connected
    finally:
        starter.join(TIMEOUT_S)
        broker.close()


def test_a_refused_subscription_is_an_error(listener: socket.socket) -> None:
    with MqttBus("node", *listener.getsockname()) as bus:
        bus.subscribe("fb/other/#", Inbox())
        broker = threading.Thread(target=refuse_and_wait, args=(listener,))
        broker.start()
        with pytest.raises(FedbiomedMessagingError, match="refuses the subscription to fb/other/#"):
            bus.connect(TIMEOUT_S)
    broker.join(TIMEOUT_S)


def test_an_acknowledgement_goes_to_the_line_on_which_the_message_came(listener: socket.socket) -> None:
    # The broker forgets everything between two lines and gives the number 7 again, to another message: the late acknowledgement of the
    # first one must not be taken for that of the second.
    may_end, inbox = threading.Event(), Inbox()

    def handle(topic: str, payload: bytes) -> None:
        inbox(topic, payload)
        assert may_end.wait(TIMEOUT_S)
        if payload == b"second":
            raise RuntimeError("not stored")

    with MqttBus("node", *listener.getsockname()) as bus:
        bus.subscribe("in", handle)
        connecting = threading.Thread(target=bus.connect, args=(TIMEOUT_S,))
        connecting.start()
        with accepted(listener) as first:
            first.send(publish("in", b"first", 7))
            inbox.wait(1)
        connecting.join(TIMEOUT_S)
        with accepted(listener) as second:
            second.send(publish("in", b"second", 7))
            second.send(publish("in", b"third", 8))
            may_end.set()
            inbox.wait(3)
            assert second.read() == (PUBACK, (8).to_bytes(2, "big"))


def test_messages_are_not_acknowledged_before_the_handler_has_returned(listener: socket.socket) -> None:
    may_end, is_running = threading.Event(), threading.Event()

    def handle(_topic: str, _payload: bytes) -> None:
        is_running.set()
        assert may_end.wait(TIMEOUT_S)

    with MqttBus("node", *listener.getsockname()) as bus:
        bus.subscribe("in", handle)
        connecting = threading.Thread(target=bus.connect, args=(TIMEOUT_S,))
        connecting.start()
        with accepted(listener) as wire:
            wire.send(publish("in", b"order", 3))
            assert is_running.wait(TIMEOUT_S)
            wire.line.settimeout(0.05)
            with pytest.raises(TimeoutError):
                wire.line.recv(1)
            wire.line.settimeout(TIMEOUT_S)
            may_end.set()
            assert wire.line.recv(4) == packet(PUBACK, 0, b"\x00\x03")
        connecting.join(TIMEOUT_S)


def test_what_nobody_wants_yet_waits_for_who_subscribes(listener: socket.socket) -> None:
    fence, inbox = Inbox(), Inbox()
    with MqttBus("node", *listener.getsockname()) as bus:
        bus.subscribe("in", fence)
        connecting = threading.Thread(target=bus.connect, args=(TIMEOUT_S,))
        connecting.start()
        with accepted(listener) as wire:
            wire.send(publish("late", b"order", 1))
            wire.send(publish("in", b"fence", 2))
            fence.wait(1)
            assert wire.read() == (PUBACK, b"\x00\x02")
            subscribing = threading.Thread(target=bus.subscribe, args=("late", inbox))
            subscribing.start()
            confirm_subscription(wire)
            assert wire.read() == (PUBACK, b"\x00\x01")
            assert inbox.wait(1) == [b"order"]
        for thread in (connecting, subscribing):
            thread.join(TIMEOUT_S)


def test_what_was_not_confirmed_is_sent_again_before_what_was_published_since(listener: socket.socket) -> None:
    with MqttBus("node", *listener.getsockname()) as bus:
        connecting = threading.Thread(target=bus.connect, args=(TIMEOUT_S,))
        connecting.start()
        with accepted_silently(listener) as first:
            connecting.join(TIMEOUT_S)
            bus.publish("out", b"1")
            assert first.read()[1][-1:] == b"1"
        bus.publish("out", b"2")
        with accepted_silently(listener) as second:
            assert [second.read()[1][-1:] for _ in range(2)] == [b"1", b"2"]
            assert not bus.flush(0.01)


def test_subscriptions_of_a_former_life_do_not_block_the_line(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    # 16 messages that nobody here wants may wait for a handler; of 20, the 4 oldest are acknowledged and dropped.
    with MqttBus("node", *listener.getsockname()) as bus:
        bus.subscribe("in", Inbox())
        connecting = threading.Thread(target=bus.connect, args=(TIMEOUT_S,))
        connecting.start()
        with accepted(listener) as wire:
            for number in range(1, 21):
                wire.send(publish("old", b"?", number))
            assert [wire.read() for _ in range(4)] == [(PUBACK, number.to_bytes(2, "big")) for number in range(1, 5)]
        connecting.join(TIMEOUT_S)
    assert "dropped a message on old" in caplog.text


def test_neither_end_keeps_small_messages_back() -> None:
    # Without TCP_NODELAY each hop of a request waits some 40 ms for a delayed acknowledgement.
    with EmbeddedBroker("127.0.0.1", 0) as broker, MqttBus(uuid.uuid4().hex, "127.0.0.1", broker.port) as bus:
        bus.connect(TIMEOUT_S)
        assert _no_delay_of_lines_to(broker.port) == [1, 1]


def _no_delay_of_lines_to(port: int) -> list[int]:
    """TCP_NODELAY of both ends of every connection of this process with a port."""
    found = []
    for entry in psutil.Process().net_connections("tcp"):
        if entry.status == psutil.CONN_ESTABLISHED and port in (entry.laddr.port, entry.raddr.port):
            with socket.socket(fileno=os.dup(entry.fd)) as line:
                found.append(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


def test_the_random_numbers_of_the_user_are_left_alone() -> None:
    random.seed(1)
    before = random.getstate()
    with MqttBus("node", "127.0.0.1", free_port()) as bus, pytest.raises(FedbiomedMessagingError):
        bus.connect(0.3)
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+/c", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("a/b/#", "a/c", False),
    ],
)
def test_filters(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
