"""The node's process, put together: store, repository, broker, worker and node, until a signal ends it."""

import contextlib
import fcntl
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from types import FrameType

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedMessagingError
from fedbiomed.common.security.identity import made_identity
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.node.node import Node
from fedbiomed.node.overview import LOCK_FILE
from fedbiomed.node.presence import presence, refuse_twin
from fedbiomed.node.store import NodeStore
from fedbiomed.node.worker import Worker

logger = logging.getLogger(__name__)
_TIDY_S = 3600.0
_CONNECT_S = 2.0
_SAY_AGAIN_S = 30.0


def run(config: NodeConfig, *, on_ready: Callable[[], None], stop: threading.Event | None = None) -> None:
    """Be a node until SIGTERM or SIGINT comes, or `stop` is set.

    A network that is not there is waited for, with a line in the log now and then.

    Args:
        config: of the node.
        on_ready: called once the node can be reached.
        stop: ends the node from another thread.

    Raises:
        FedbiomedConfigError: a daemon runs in this folder already.
        ComponentTwiceError: a node with this id is connected already.
        FedbiomedNodeStoreError: the database cannot be opened.
        FedbiomedCertificateError: the node's key cannot be read or made.
    """
    stop = stop or threading.Event()
    boot_id = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_by_signals(stop))
        stack.enter_context(_locked(config))
        made_identity(config.identity)  # an earlier release made the folder without one
        store = stack.enter_context(NodeStore(config.database))
        worker = stack.enter_context(Worker(config))
        worker.start()
        if not _wait_for_turn(config, boot_id, stop):
            return
        files = HttpFileStore(config.repository, config.id, timeout_s=config.request_timeout_s)
        stack.callback(files.close)
        bus = stack.enter_context(
            MqttBus(config.id, config.broker, config.broker_port, will=presence(config, boot_id, is_online=False), persistent=True)
        )
        node = stack.enter_context(Node(config, bus, files, store, worker=worker, boot_id=boot_id))
        if not _connect(bus, config, stop):
            return
        on_ready()
        while not stop.wait(_TIDY_S):
            node.tidy()
        logger.info("node %s stops", config.id)


def _wait_for_turn(config: NodeConfig, boot_id: str, stop: threading.Event) -> bool:
    """Wait for the broker and make sure that nobody else runs under our id; False when stopped meanwhile."""
    name = f"{config.id}.{boot_id[:8]}"
    with MqttBus(name, config.broker, config.broker_port, persistent=False, username=config.id) as bus:
        if not _connect(bus, config, stop):
            return False
        refuse_twin(bus, config, boot_id)
    return True


def _connect(bus: MqttBus, config: NodeConfig, stop: threading.Event) -> bool:
    """Connect, however long it takes, and say now and then what is waited for; False when stopped meanwhile."""
    tries = 0
    while not stop.is_set():
        next_try = time.monotonic() + _CONNECT_S
        try:
            bus.connect(_CONNECT_S)
        except FedbiomedMessagingError as error:
            if tries % int(_SAY_AGAIN_S / _CONNECT_S) == 0:
                logger.warning("waiting for broker %s:%d ... (%s)", config.broker, config.broker_port, error)
            tries += 1
            stop.wait(max(0.0, next_try - time.monotonic()))  # who refuses answers at once
        else:
            return True
    return False


@contextlib.contextmanager
def _locked(config: NodeConfig) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with it, however it ends."""
    try:
        config.var.mkdir(parents=True, exist_ok=True)
        lock = (config.var / LOCK_FILE).open("w", encoding="ascii")
    except OSError as error:
        raise FedbiomedConfigError(f"cannot write {config.var / LOCK_FILE}: {error.strerror or error}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FedbiomedConfigError(f"the node in {config.root} runs already: stop it before starting it again") from error
        yield


@contextlib.contextmanager
def _ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set the event; only a main thread may listen to signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        # A thread of its own: this code may have interrupted the main thread while it holds the event's lock.
        threading.Thread(target=stop.set, name="stop", daemon=True).start()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
