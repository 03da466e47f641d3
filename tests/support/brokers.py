"""Brokers for tests: Mosquitto as a child process, and a link in front of any broker that can be cut."""

import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

READY_TIMEOUT_S = 10.0


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listened a moment ago, and which the system gives to no connection of other tests."""
    draws = random.Random()  # other runs on this machine draw otherwise
    while True:
        port = draws.randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def find_mosquitto() -> str | None:
    """Where the Mosquitto program is; Debian keeps it out of the PATH of users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A Mosquitto process on a free port of 127.0.0.1, which lets everyone in and keeps its sessions in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it listens."""
        program = find_mosquitto()
        if program is None:
            pytest.skip("mosquitto is not installed")
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n"
            f"persistence true\npersistence_location {self._folder}/\nlog_dest none\n",
            encoding="utf-8",
        )
        self._process = subprocess.Popen([program, "-c", str(config)], stdin=subprocess.DEVNULL)
        wait_until_listening(self.host, self.port, self._process)

    def stop(self) -> None:
        """Stop; sessions and retained messages are written to the folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(READY_TIMEOUT_S)
            self._process = None

    def forget(self) -> None:
        """Remove what it kept, while it is stopped."""
        (self._folder / "mosquitto.db").unlink(missing_ok=True)


def wait_until_listening(host: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return when somebody accepts connections there.

    Raises:
        TimeoutError: nobody did in time, or the process ended.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            break
    raise TimeoutError(f"{process.args!r} does not listen on {host}:{port} (exit code {process.returncode})")


@contextmanager
def running_mosquitto() -> Iterator[Mosquitto]:
    """A Mosquitto for the length of a `with`; skips the test where it is not installed."""
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder:
        broker = Mosquitto(Path(folder))
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


class Link:
    """A port of 127.0.0.1 from which connections go on to a broker, until they are cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._is_cut = False
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._acceptor = threading.Thread(target=self._accept, name=f"link-{self.port}")
        self._acceptor.start()

    def cut(self) -> None:
        """Break all connections, and any that is tried."""
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                _shut(end)

    def restore(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        """Break all and end the threads."""
        self.cut()
        _shut(self._listener)
        self._acceptor.join(READY_TIMEOUT_S)
        for thread in self._threads:
            thread.join(READY_TIMEOUT_S)
        for end in (self._listener, *self._ends):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut
            while True:
                self._connect(self._listener.accept()[0])

    def _connect(self, near: socket.socket) -> None:
        with self._lock:
            self._ends.append(near)
            if self._is_cut:
                _shut(near)
                return
            try:
                far = socket.create_connection(self._target, timeout=1.0)
            except OSError:
                _shut(near)
                return
            self._ends.append(far)
            for source, sink in ((near, far), (far, near)):
                source.settimeout(None)
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=_pump, args=(source, sink), name=f"link-{self.port}-pump")
                self._threads.append(thread)
                thread.start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(source)
    _shut(sink)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
