"""The node as a process on a real network: it waits, serves, survives what is killed, and ends when told."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedbiomed.common.config import NodeConfig, save
from fedbiomed.common.exceptions import ComponentTwiceError, FedbiomedConfigError
from fedbiomed.common.messages.training import TrainReply
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.network.broker import EmbeddedBroker
from fedbiomed.node.daemon import run
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.store import NodeStore
from tests.support.brokers import free_port
from tests.support.orders import Asker, node_config, plan_source, write_line

PLAN = plan_source()
READY_S = 60
DAEMON = """
import logging, sys
from pathlib import Path
from fedbiomed.common.config import NodeConfig, load
from fedbiomed.node.daemon import run
logging.basicConfig(level=logging.INFO)
run(load(NodeConfig, Path(sys.argv[1])), on_ready=lambda: print("ready", flush=True))
print("torch" if "torch" in sys.modules else "ended", flush=True)
"""


class Daemon:
    """A node's process."""

    def __init__(self, config: NodeConfig) -> None:
        self._log = (config.log / f"daemon-{uuid.uuid4().hex}.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(config.root)], stdout=subprocess.PIPE, stderr=self._log, text=True, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout

    def __enter__(self) -> "Daemon":
        assert self._said.readline() == "ready\n"
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        self._said.close()
        self._log.close()

    def family(self) -> list[psutil.Process]:
        """The processes below it, the youngest last."""
        found = psutil.Process(self._process.pid).children(recursive=True)
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def end(self) -> tuple[int, str]:
        """Ask it to end; its exit code and last words."""
        self._process.send_signal(signal.SIGTERM)
        words = self._said.read().strip()
        return self._process.wait(30), words

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(10)


@dataclass
class Site:
    config: NodeConfig
    dataset_id: str
    asker: Asker


def _site(addresses: Any, folder: Path):
    host, port = addresses.mqtt_address
    config = node_config(folder / "node", broker=host, broker_port=port, repository=addresses.http_url)
    save(config)
    with NodeStore(config.database) as store:
        dataset = DatasetRegistry(store).add(name="line", data_type="csv", tags=["line"], path=write_line(folder / "line.csv"))
    researcher_id = f"researcher_{uuid.uuid4()}"
    files = HttpFileStore(addresses.http_url, researcher_id)
    with contextlib.closing(files), MqttBus(researcher_id, host, port, persistent=False) as bus:
        bus.connect(10)
        yield Site(config, dataset["dataset_id"], Asker(bus, files, config.id, folder / "asker", researcher_id))


@pytest.fixture
def here(network, tmp_path):
    yield from _site(network, tmp_path)


@pytest.fixture
def mosquitto(network_mosquitto, tmp_path):
    yield from _site(network_mosquitto, tmp_path)


def pausing(folder, routine="super().training_routine(history_monitor, node_args)"):
    """A plan that counts its trainings in a file and, while the pipe `begun` is there, says that it has begun and waits."""
    begun = folder / "begun"
    os.mkfifo(begun)
    return begun, plan_source(
        top="import pathlib, threading",
        routine=f"begun = pathlib.Path({str(begun)!r})\n"
        "if begun.is_fifo():\n"
        "    begun.write_text('x')\n"
        "    threading.Event().wait(60)\n"
        f"open({str(folder / 'marks')!r}, 'a').write('trained\\n')\n{routine}",
    )


def test_a_round_on_mosquitto_and_an_end_by_signal(mosquitto):
    with Daemon(mosquitto.config) as daemon:
        request = mosquitto.asker.order(PLAN, mosquitto.dataset_id)
        reply = mosquitto.asker.train(request)
        assert reply.success, reply.msg
        assert mosquitto.asker.result(reply)["node_id"] == mosquitto.config.id
        family = daemon.family()
        assert len(family) == 2
        assert daemon.end() == (0, "ended")
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_killed_daemon_goes_on_with_its_order(here, tmp_path):
    begun, source = pausing(tmp_path)
    request = here.asker.order(source, here.dataset_id)
    with Daemon(here.config) as daemon:
        here.asker.send(request)
        assert begun.read_text() == "x"
        begun.unlink()
        family = daemon.family()
        daemon.kill()
        assert psutil.wait_procs(family, timeout=10)[1] == [], "the training process outlived its daemon"
    with Daemon(here.config):
        reply = here.asker.hear(TrainReply, request.request_id)
        here.asker.send(request)
        assert here.asker.hear(TrainReply, request.request_id) == reply
    assert reply.success
    assert (tmp_path / "marks").read_text() == "trained\n"


@contextlib.contextmanager
def in_thread(config, *, until_ready=True):
    """The daemon in a thread of this process."""
    ready, stop, errors = threading.Event(), threading.Event(), []

    def target():
        try:
            run(config, on_ready=ready.set, stop=stop)
        except Exception as error:  # noqa: BLE001  handed to the test
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=target, name="daemon")
    thread.start()
    try:
        if until_ready:
            assert ready.wait(READY_S)
        yield ready, errors
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_a_second_daemon_in_the_same_folder_is_refused(here):
    with in_thread(here.config) as (_, errors):
        with pytest.raises(FedbiomedConfigError, match="runs already"):
            run(here.config, on_ready=pytest.fail, stop=threading.Event())
        assert errors == []


def test_a_copied_folder_is_refused(here, tmp_path):
    twin = node_config(
        tmp_path / "twin",
        id=here.config.id,
        broker=here.config.broker,
        broker_port=here.config.broker_port,
        repository=here.config.repository,
    )
    with in_thread(here.config) as (_, errors):
        with in_thread(twin) as (_, twins_errors):
            assert [type(error) for error in twins_errors] == [ComponentTwiceError]
            assert here.config.id in str(twins_errors[0])
        assert errors == []
        assert here.asker.train(here.asker.order(PLAN, here.dataset_id)).success


def test_a_broker_that_is_not_there_is_waited_for(tmp_path, caplog):
    port = free_port()
    config = node_config(tmp_path / "node", broker="127.0.0.1", broker_port=port)
    with contextlib.ExitStack() as stack, in_thread(config, until_ready=False) as (ready, errors):
        assert not ready.wait(3)
        stack.enter_context(EmbeddedBroker("127.0.0.1", port))
        assert ready.wait(20)
        assert errors == []
    waiting = [record.message for record in caplog.records if record.message.startswith("waiting for broker")]
    assert waiting
    assert f"127.0.0.1:{port}" in waiting[0]


def test_a_broker_that_refuses_the_node_is_told_once_and_asked_again(tmp_path, caplog):
    asked = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with contextlib.suppress(OSError):  # the listener was shut
                while True:
                    with listener.accept()[0] as line:
                        line.recv(1000)
                        line.send(b"\x20\x02\x00\x05")  # CONNACK, not authorised
                    asked.release()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        config = node_config(tmp_path / "node", broker="127.0.0.1", broker_port=listener.getsockname()[1])
        with in_thread(config, until_ready=False) as (ready, errors):
            assert all(asked.acquire(timeout=20) for _ in range(4))
            assert not ready.is_set()
        listener.shutdown(socket.SHUT_RDWR)
        refusing.join(5)
    assert errors == []
    assert sum("refused us: Not authorized" in record.message for record in caplog.records if "transport" in record.name) == 1


def test_a_node_that_waits_can_be_stopped(tmp_path):
    config = node_config(tmp_path / "node", broker="127.0.0.1", broker_port=free_port())
    with in_thread(config, until_ready=False) as (ready, errors):
        assert not ready.wait(0.5)
    assert errors == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_daemon_killed_at_any_moment_completes_each_order_once(here, tmp_path):
    draws = random.Random(5)
    source = plan_source(routine=f"open({str(tmp_path / 'marks')!r}, 'a').write(self.dataset_path)")
    for attempt in range(10):
        request = here.asker.order(source, here.dataset_id, round=attempt)
        with Daemon(here.config):
            warm = here.asker.train(here.asker.order(source, here.dataset_id))
            assert warm.success
            here.asker.send(request)
            threading.Event().wait(draws.uniform(0, 0.03))
        with Daemon(here.config):
            here.asker.send(request)
            assert here.asker.hear(TrainReply, request.request_id).success, attempt
