"""Stages on which the contract suite of the bus plays: a broker that can be restarted, and buses whose lines can be cut."""

import threading
from collections.abc import Callable
from typing import Protocol

from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.common.transport.transport import MessageBus
from fedbiomed.network.broker import EmbeddedBroker
from tests.support.brokers import Link, Mosquitto

TIMEOUT_S = 10.0


class Inbox:
    """A handler that keeps what it got, and can be waited for."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()

    def __call__(self, topic: str, payload: bytes) -> None:
        with self._changed:
            self.got.append((topic, payload))
            self._changed.notify_all()

    def called(self) -> None:
        """Count a call without a message."""
        self("", b"")

    @property
    def payloads(self) -> list[bytes]:
        """What came, without the topics."""
        return [payload for _, payload in self.got]

    def wait(self, count: int) -> list[bytes]:
        """The payloads, as soon as there are so many."""
        return self.wait_until(lambda: len(self.got) >= count)

    def wait_for(self, payload: bytes, times: int = 1) -> list[bytes]:
        """The payloads, as soon as this one came so many times."""
        return self.wait_until(lambda: self.payloads.count(payload) >= times)

    def wait_until(self, is_true: Callable[[], bool]) -> list[bytes]:
        """The payloads, as soon as a condition on them holds."""
        with self._changed:
            assert self._changed.wait_for(is_true, TIMEOUT_S), f"only {len(self.got)} messages came: {self.payloads[-5:]!r}"
            return self.payloads


class Stage(Protocol):
    """A broker for the length of a test module."""

    keeps_over_restart: bool

    def bus(self, client_id: str, *, will: tuple[str, bytes] | None = None, persistent: bool = True) -> MessageBus:
        """A bus that is not connected yet."""

    def cut(self, client_id: str) -> None:
        """Break the line of a bus until `restore`."""

    def restore(self, client_id: str) -> None:
        """Let the bus connect again."""

    def stop(self) -> None:
        """Stop the broker."""

    def start(self, *, forget: bool) -> None:
        """Start it again, with what it kept or without."""

    def close_buses(self) -> None:
        """Close what the test opened."""


class MemoryStage:
    """The bus in memory."""

    keeps_over_restart = True

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._buses: list[MemoryBus] = []

    def bus(self, client_id: str, *, will: tuple[str, bytes] | None = None, persistent: bool = True) -> MessageBus:
        self._buses.append(MemoryBus(self._broker, client_id, will=will, persistent=persistent))
        return self._buses[-1]

    def cut(self, client_id: str) -> None:
        self._broker.cut(client_id)

    def restore(self, client_id: str) -> None:
        self._broker.restore(client_id)

    def stop(self) -> None:
        self._broker.stop()

    def start(self, *, forget: bool) -> None:
        self._broker.start(forget=forget)

    def close_buses(self) -> None:
        for bus in self._buses:
            bus.close()


class MqttStage:
    """MQTT; every bus has a link of its own in front of the broker, so that its line alone can be cut."""

    def __init__(self, *, keeps_over_restart: bool) -> None:
        self.keeps_over_restart = keeps_over_restart
        self._buses: list[MqttBus] = []
        self._links: dict[str, Link] = {}

    @property
    def port(self) -> int:
        """Where the broker listens on 127.0.0.1."""
        raise NotImplementedError

    def bus(self, client_id: str, *, will: tuple[str, bytes] | None = None, persistent: bool = True) -> MessageBus:
        if client_id not in self._links:
            self._links[client_id] = Link("127.0.0.1", self.port)
        self._buses.append(MqttBus(client_id, "127.0.0.1", self._links[client_id].port, will=will, persistent=persistent))
        return self._buses[-1]

    def cut(self, client_id: str) -> None:
        self._links[client_id].cut()

    def restore(self, client_id: str) -> None:
        self._links[client_id].restore()

    def close_buses(self) -> None:
        for bus in self._buses:
            bus.close()
        for link in self._links.values():
            link.close()
        self._buses.clear()
        self._links.clear()


class AmqttStage(MqttStage):
    """The embedded broker; it keeps nothing over a restart."""

    def __init__(self) -> None:
        super().__init__(keeps_over_restart=False)
        self._broker = EmbeddedBroker("127.0.0.1", 0)
        self._broker.start()

    @property
    def port(self) -> int:
        return self._broker.port

    def stop(self) -> None:
        self._broker.close()

    def start(self, *, forget: bool) -> None:
        self._broker = EmbeddedBroker("127.0.0.1", self._broker.port)
        self._broker.start()


class MosquittoStage(MqttStage):
    """Mosquitto as a process."""

    def __init__(self, mosquitto: Mosquitto) -> None:
        super().__init__(keeps_over_restart=True)
        self._mosquitto = mosquitto

    @property
    def port(self) -> int:
        return self._mosquitto.port

    def stop(self) -> None:
        self._mosquitto.stop()

    def start(self, *, forget: bool) -> None:
        if forget:
            self._mosquitto.forget()
        self._mosquitto.start()


def connected(stage: Stage, client_id: str, *, will: tuple[str, bytes] | None = None, persistent: bool = True) -> MessageBus:
    """A bus of this stage that is connected."""
    bus = stage.bus(client_id, will=will, persistent=persistent)
    bus.connect(TIMEOUT_S)
    return bus


def reconnections(bus: MessageBus) -> Inbox:
    """Counts the connects from the present one on."""
    inbox = Inbox()
    bus.on_connect(inbox.called)
    inbox.wait(1)
    return inbox
