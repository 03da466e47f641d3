"""A line in front of a server, which counts what passes and fails once."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

_END_S = 10.0
Direction = Literal["up", "down"]


class FaultyLine:
    """A port of 127.0.0.1 from which connections go on to a server.

    Args:
        url: of the server.
        direction: `up` counts what goes to the server, `down` what comes from it.
        after: bytes in that direction after which the line fails, once.
        is_silent: whether it then says nothing any more (the ends wait), instead of being cut.
        on_fault: called then, on the line's own thread.
    """

    def __init__(
        self, url: str, direction: Direction, after: int, *, is_silent: bool = False, on_fault: Callable[[], None] = lambda: None
    ) -> None:
        address = urlsplit(url)
        self._target = (str(address.hostname), int(address.port or 0))
        self._direction, self._after = direction, after
        self._is_silent = is_silent
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.sent = bytearray()
        self.failed = threading.Event()
        self._is_spent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        """End all connections and threads."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_END_S)
        for end in (self._listener, *self._ends):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="faulty-line")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut
            while True:
                near = self._listener.accept()[0]
                self._ends.append(near)
                try:
                    far = socket.create_connection(self._target, timeout=_END_S)
                except OSError:
                    near.shutdown(socket.SHUT_RDWR)
                    continue
                far.settimeout(None)
                self._ends.append(far)
                self._start(self._pump, near, far, "up")
                self._start(self._pump, far, near, "down")

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._fails(direction, len(data)):
                    self._on_fault()
                    self.failed.set()
                    if self._is_silent:
                        return
                    if direction == "up":
                        _reset(source)
                    break
                if direction == "up":
                    self.sent += data[:2000]
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _fails(self, direction: Direction, count: int) -> bool:
        """Whether it is now; decided at once, for while `on_fault` runs other connections may count, too."""
        with self._lock:
            self.passed[direction] += count
            if self._is_spent or direction != self._direction or self.passed[direction] <= self._after:
                return False
            self._is_spent = True
            return True


def _reset(end: socket.socket) -> None:
    """Cut at once. After a shutdown alone a sender whose peer reads no more waits until its own patience ends."""
    end.shutdown(socket.SHUT_RDWR)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
