"""The thread that drives a paho client: connects, reads, writes, and connects again for ever.

paho has such a thread of its own. It was refused: its line cannot be closed or restored faster than by the second, an exception in it ends
it silently, and while it rebuilds a line it walks through a queue to which other threads add. Here paho is only ever touched under one lock
(except while it connects, when nobody else has reason to), so that whoever publishes also writes, without waking a second thread.
"""

import contextlib
import logging
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client

logger = logging.getLogger(__name__)
_TCP_TIMEOUT_S = 5.0
_TICK_S = 1.0
_FIRST_RETRY_S = 0.1
_SLOWEST_RETRY_S = 30.0
_LASTING_S = 5.0
_CLOSE_TIMEOUT_S = 2.0


class MqttLine:
    """Keeps a paho client connected until it is closed.

    The time between two attempts doubles from 0.1 to 30 s, a little shorter or longer by chance so that the components of a federation do
    not come all at once, and starts anew after a line that lasted.

    Args:
        client: with its callbacks; they run with the lock held, on the thread that publishes or on this one, and must return at once.
        address: host and port of the broker.
        keepalive_s: the broker takes us for gone after one and a half times this silence.
        lock: held whenever the client is used.
        after_read: called with the lock held, each time when the client has handled what came in.
        name: of the thread.
    """

    def __init__(
        self,
        client: Client,
        address: tuple[str, int],
        keepalive_s: int,
        lock: threading.Condition,
        after_read: Callable[[], None],
        *,
        name: str,
    ) -> None:
        self.cause = "no answer"
        self._client = client
        self._address = address
        self._keepalive_s = keepalive_s
        self._lock = lock
        self._after_read = after_read
        self._random = random.Random(name)
        self._delay_s = _FIRST_RETRY_S
        self._close_by: float | None = None
        self._is_hurried = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        client.connect_timeout = _TCP_TIMEOUT_S
        client.on_socket_open = _send_at_once

    def start(self) -> None:
        """Begin to connect; while that has not succeeded yet, a second call means: try at once."""
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()
            self._is_hurried = True
            self._delay_s = _FIRST_RETRY_S
            self._lock.notify_all()

    def poke(self) -> None:
        """Let the thread look again at what there is to do; called with the lock held, after any use of the client."""
        if self._client.want_write() or self._client.socket() is None:
            self._wake()

    def close(self) -> None:
        """Say good-bye to the broker, so that it does not publish our will, and end the thread."""
        with self._lock:
            self._close_by = time.monotonic() + _CLOSE_TIMEOUT_S
            self._client.disconnect()
            self._wake()
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_TCP_TIMEOUT_S + _CLOSE_TIMEOUT_S)
        self._wake_reader.close()
        self._wake_writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._wake_writer.send(b".")

    def _work(self) -> None:
        while self._close_by is None:
            began = time.monotonic()
            if self._try_open():
                self._exchange_guarded()
            if time.monotonic() - began > _LASTING_S:
                self._delay_s = _FIRST_RETRY_S
            self._pause()

    def _try_open(self) -> bool:
        try:
            self._client.connect(*self._address, keepalive=self._keepalive_s)
        except (OSError, ValueError) as error:
            self.cause = getattr(error, "strerror", None) or str(error)
            return False
        self.cause = "it accepts connections but does not answer as an MQTT broker"
        return True

    def _pause(self) -> None:
        with self._lock:
            delay_s = self._delay_s * self._random.uniform(0.8, 1.0)
            self._delay_s = min(2 * self._delay_s, _SLOWEST_RETRY_S)
            self._is_hurried = False
            self._lock.wait_for(lambda: self._close_by is not None or self._is_hurried, delay_s)

    def _exchange_guarded(self) -> None:
        try:
            self._exchange()
        except Exception:  # this thread must live on: nobody else would connect again
            logger.exception("the line to the MQTT broker %s:%d failed; connecting again", *self._address)
            with self._lock:
                self._client.disconnect()

    def _exchange(self) -> None:
        line: Any = self._client.socket()  # paho types it by a protocol of its own
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(line, selectors.EVENT_READ)
            while self._step(selector, line):
                pass

    def _step(self, selector: selectors.BaseSelector, line: Any) -> bool:
        """Wait for something to do and do it; False when the line is down."""
        with self._lock:
            is_down = self._client.socket() is not line
            if is_down or (self._close_by is not None and time.monotonic() > self._close_by):
                return False
            selector.modify(line, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0))
        ready = {key.fileobj for key, _ in selector.select(_TICK_S)}
        if self._wake_reader in ready:
            self._wake_reader.recv(4096)
        with self._lock:
            if line in ready:
                self._client.loop_read()
                self._after_read()
            if self._client.want_write():
                self._client.loop_write()
            self._client.loop_misc()
        return True


def _send_at_once(_client: Client, _data: Any, line: Any) -> None:
    """Without this a QoS 1 message waits some 40 ms for its acknowledgement."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
