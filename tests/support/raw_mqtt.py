"""MQTT 3.1.1 by hand: a client and a broker that do only what a test tells them, and may misbehave."""

import socket
from types import TracebackType
from typing import Self

TIMEOUT_S = 10.0
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12


def text(value: str) -> bytes:
    """A string of the protocol: two bytes of length, then UTF-8."""
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def length(count: int) -> bytes:
    """A packet's length, seven bits to a byte, the lowest first."""
    encoded = bytearray()
    while True:
        count, low = divmod(count, 128)
        encoded.append(low | (128 if count else 0))
        if not count:
            return bytes(encoded)


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """A whole packet."""
    return bytes([kind << 4 | flags]) + length(len(body)) + body


def publish(topic: str, payload: bytes, number: int) -> bytes:
    """A PUBLISH of QoS 1."""
    return packet(PUBLISH, 0b0010, text(topic) + number.to_bytes(2, "big") + payload)


class Wire:
    """One end of a connection."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(TIMEOUT_S)
        self.line = line
        self._stream = line.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.line.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """Kind and body of the next packet; (0, b"") when the other end has closed."""
        head = self._stream.read(1)
        if not head:
            return 0, b""
        count, shift = 0, 0
        while True:
            byte = self._stream.read(1)[0]
            count |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return head[0] >> 4, self._stream.read(count)

    def read_until(self, kind: int) -> list[tuple[int, bytes]]:
        """All packets up to the first of this kind, or up to the end."""
        packets = [self.read()]
        while packets[-1][0] not in (kind, 0):
            packets.append(self.read())
        return packets

    def close(self) -> None:
        """Close without a word."""
        self._stream.close()
        self.line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def connected_client(port: int, client_id: str, *, keepalive_s: int = 0, will: tuple[str, bytes] | None = None) -> Wire:
    """A client with a persistent session that is named by its id and has read the CONNACK."""
    wire = Wire(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S))
    flags = 0x80 | (0x2C if will else 0)  # user name; will of QoS 1, retained
    body = text("MQTT") + bytes([4, flags]) + keepalive_s.to_bytes(2, "big") + text(client_id)
    if will:
        body += text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
    wire.send(packet(CONNECT, 0, body + text(client_id)))
    assert wire.read()[0] == CONNACK
    return wire


def subscribe(wire: Wire, topic_filter: str) -> list[tuple[int, bytes]]:
    """Subscribe; gives what came before the confirmation, and that."""
    wire.send(packet(SUBSCRIBE, 0b0010, b"\x00\x01" + text(topic_filter) + b"\x01"))
    return wire.read_until(SUBACK)
