"""The embedded broker: who may connect, how it starts and ends, and each repair to amqtt that its module lists."""

import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedbiomed.common.exceptions import FedbiomedMessagingError, FedbiomedNetworkError
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.network.amqtt_broker import MAX_PACKET_BYTES
from fedbiomed.network.broker import EmbeddedBroker
from tests.support.buses import TIMEOUT_S, Inbox
from tests.support.raw_mqtt import CONNECT, PUBACK, PUBLISH, connected_client, length, publish, subscribe


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker("127.0.0.1", 0) as running:
        yield running


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex[:12]


def connected(broker: EmbeddedBroker, client_id: str) -> MqttBus:
    bus = MqttBus(client_id, broker.host, broker.port)
    bus.connect(TIMEOUT_S)
    return bus


def test_a_port_in_use_is_named(broker: EmbeddedBroker) -> None:
    with pytest.raises(FedbiomedNetworkError, match=f"port {broker.port} on 127.0.0.1 is in use"):
        EmbeddedBroker("127.0.0.1", broker.port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "broker.example.org", ""])
def test_it_serves_this_machine_only(host: str) -> None:
    with pytest.raises(FedbiomedNetworkError, match=r"cannot listen on .*Mosquitto"):
        EmbeddedBroker(host, 0)


def test_it_can_be_closed_twice_and_its_port_taken_again() -> None:
    first = EmbeddedBroker("localhost", 0)
    first.start()
    with pytest.raises(FedbiomedNetworkError, match="started before"):
        first.start()
    first.close()
    first.close()
    with EmbeddedBroker("localhost", first.port) as second:
        assert second.port == first.port
    assert [thread for thread in threading.enumerate() if thread.name == f"mqtt-broker-{first.port}"] == []


def test_a_component_that_does_not_name_itself_is_refused(broker: EmbeddedBroker, name: str) -> None:
    with MqttBus(name, broker.host, broker.port, username="somebody-else") as bus:
        with pytest.raises(FedbiomedMessagingError, match=r"FB101: .* refused us: Not authorized; check"):
            bus.connect(TIMEOUT_S)
        assert not bus.is_connected


def test_several_lines_of_one_component_are_let_in(broker: EmbeddedBroker, name: str) -> None:
    with (
        MqttBus(f"{name}.1", broker.host, broker.port, username=name, persistent=False) as one,
        MqttBus(f"{name}.2", broker.host, broker.port, username=name, persistent=False) as two,
    ):
        one.connect(TIMEOUT_S)
        two.connect(TIMEOUT_S)


def test_a_message_that_was_not_acknowledged_comes_again(broker: EmbeddedBroker, name: str) -> None:
    with connected(broker, f"{name}s") as sender:
        with connected_client(broker.port, name) as first:
            subscribe(first, f"{name}/x")
            sender.publish(f"{name}/x", b"order")
            assert first.read_until(PUBLISH)[-1][1].endswith(b"order")
        with connected_client(broker.port, name) as second:
            kind, body = second.read_until(PUBLISH)[-1]
            assert (kind, body[-5:]) == (PUBLISH, b"order")


def test_what_a_client_published_before_it_left_is_handed_on(broker: EmbeddedBroker, name: str) -> None:
    inbox = Inbox()
    with connected(broker, f"{name}r") as receiver:
        receiver.subscribe(f"{name}/x", inbox)
        with connected_client(broker.port, name) as wire:
            wire.send(b"".join(publish(f"{name}/x", str(i).encode(), i + 1) for i in range(50)) + b"\xe0\x00")  # ..., DISCONNECT
            for _ in range(50):
                assert wire.read()[0] == PUBACK
        assert inbox.wait(50) == [str(i).encode() for i in range(50)]


def test_a_client_that_fell_silent_is_taken_for_gone(broker: EmbeddedBroker, name: str) -> None:
    seen = Inbox()
    with connected(broker, f"{name}w") as watcher:
        watcher.subscribe(f"{name}/s", seen)
        with connected_client(broker.port, name, keepalive_s=1, will=(f"{name}/s", b"offline")) as wire:
            assert wire.read() == (0, b"")  # after 2 s
        assert seen.wait(1) == [b"offline"]


def test_a_client_takes_over_from_its_former_line(broker: EmbeddedBroker, name: str) -> None:
    seen, inbox = Inbox(), Inbox()
    with connected(broker, f"{name}w") as watcher:
        watcher.subscribe(f"{name}/s", seen)
        with connected_client(broker.port, name, will=(f"{name}/s", b"offline")) as former, connected(broker, name) as bus:
            assert former.read() == (0, b"")
            assert seen.wait(1) == [b"offline"]
            bus.subscribe(f"{name}/x", inbox)
            watcher.publish(f"{name}/x", b"to the new one")
            assert inbox.wait(1) == [b"to the new one"]


def test_retained_messages_of_others_are_not_sent(broker: EmbeddedBroker, name: str) -> None:
    seen = Inbox()
    with connected(broker, f"{name}o") as owner:
        owner.subscribe(f"{name}/private", seen)
        owner.publish(f"{name}/private", b"not for you", retain=True)
        seen.wait(1)
        with connected_client(broker.port, name) as wire:
            assert [kind for kind, _ in subscribe(wire, f"{name}/nothing") if kind == PUBLISH] == []


def test_a_packet_larger_than_any_of_ours_ends_the_line(broker: EmbeddedBroker, name: str) -> None:
    with connected_client(broker.port, name) as wire:
        wire.send(bytes([PUBLISH << 4]) + length(MAX_PACKET_BYTES + 100) + b"\x00\x01x")
        assert wire.read() == (0, b"")


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, bytes([CONNECT << 4]) + b"\xff\xff\xff\xff\xff", b""])
def test_what_is_not_mqtt_does_no_harm(broker: EmbeddedBroker, name: str, start: bytes) -> None:
    with socket.create_connection((broker.host, broker.port), timeout=TIMEOUT_S) as line:
        line.sendall(start)
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass
    connected(broker, name).close()


def test_clients_that_come_and_go_at_once(broker: EmbeddedBroker, name: str, caplog: pytest.LogCaptureFixture) -> None:
    def come_and_go(i: int) -> bool:
        for k in range(8):
            with connected(broker, f"{name}{i}") as bus:
                bus.subscribe(f"{name}/s/+", Inbox())
                bus.subscribe(f"{name}/{i}/{k}", Inbox())
                bus.publish(f"{name}/s/{i}", b"here", retain=True)
                assert bus.flush(TIMEOUT_S)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(come_and_go, range(8), timeout=3 * TIMEOUT_S))
    assert "is cut" not in caplog.text
