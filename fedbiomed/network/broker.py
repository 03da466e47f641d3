"""The embedded MQTT broker: amqtt on an event loop of its own thread, for the components of this machine.

It is in development mode: every component that names itself by its id is let in. What was retained and kept for those who are away is in
memory only and goes with the process; the components are made for that.
"""

import asyncio
import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from amqtt.adapters import StreamWriterAdapter
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError

from fedbiomed.common.exceptions import FedbiomedNetworkError
from fedbiomed.network.amqtt_broker import LimitedReader, NamedComponents, SteadyBroker

logger = logging.getLogger(__name__)
_LISTENER = "default"
_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """An MQTT 3.1.1 broker in this process; started once, closed once.

    Args:
        host: an address of this machine's loopback.
        port: where to listen; 0: a free port.

    Raises:
        FedbiomedNetworkError: the host is not loopback.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 1883) -> None:
        if not _is_loopback(host):
            raise FedbiomedNetworkError(
                f"the embedded broker cannot listen on {host}: it knows no accounts and no TLS, so it serves this machine only; "
                f"listen on 127.0.0.1, or run Mosquitto with accounts and TLS for other machines"
            )
        self._host, self._port = host, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._broker: SteadyBroker | None = None
        self._server: asyncio.Server | None = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._host

    @property
    def port(self) -> int:
        """Where it listens; known after `start` where a free port was asked for."""
        return self._port

    def start(self) -> None:
        """Listen; returns when clients can connect.

        Raises:
            FedbiomedNetworkError: the port is in use or not allowed.
        """
        if self._loop is not None:
            raise FedbiomedNetworkError("the embedded broker was started before; make a new one")
        line = self._bind()
        for library in ("amqtt", "transitions"):  # they tell every packet and every client that leaves
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_quietly)
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"mqtt-broker-{self._port}", daemon=True)
        self._thread.start()
        self._run(self._open(line))

    def close(self) -> None:
        """Cut all lines and stop; a second call does nothing."""
        if self._loop is None or self._thread is None or self._loop.is_closed():
            return
        try:
            self._run(self._shut_down())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_TIMEOUT_S)
            self._loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            line = socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            what = "is in use" if error.errno == errno.EADDRINUSE else "cannot be had"
            raise FedbiomedNetworkError(
                f"port {self._port} on {self._host} {what}: {error.strerror}; stop what listens there or choose another port"
            ) from error
        self._port = line.getsockname()[1]
        return line

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    async def _open(self, line: socket.socket) -> None:
        plugin = f"{NamedComponents.__module__}.{NamedComponents.__name__}"
        config = BrokerConfig(listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)}, plugins={plugin: {}})
        self._broker = SteadyBroker(config, asyncio.get_running_loop())
        await self._broker.start()
        self._server = await asyncio.start_server(self._take, sock=line)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until its line ends."""
        if self._broker is None:
            return
        try:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._broker.external_connected(LimitedReader(reader), StreamWriterAdapter(writer), _LISTENER)
        except (OSError, EOFError, AMQTTError) as error:
            logger.debug("a line to the broker ended: %s", error)
        finally:
            writer.close()

    async def _shut_down(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._broker is not None:
            await self._broker.shutdown()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _log_quietly(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """amqtt leaves tasks behind that failed because a client went away; nobody can do anything about those."""
    logger.debug("%s", context.get("message"), exc_info=context.get("exception"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
