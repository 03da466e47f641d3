"""Servers that the whole run shares, each on free ports of 127.0.0.1."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedbiomed.common.config import NodeConfig, save
from fedbiomed.network.config import NetworkConfig
from fedbiomed.network.serve import Network, RepositoryServer
from fedbiomed.node.worker import Worker
from tests.support.brokers import running_mosquitto


@dataclass(frozen=True)
class Addresses:
    """Where a network is."""

    mqtt_address: tuple[str, int]
    http_url: str


def network_config(root: Path, **settings: int) -> NetworkConfig:
    """Free ports, and a folder of its own."""
    return NetworkConfig(root=root, mqtt_port=0, http_port=0, **settings)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait long for processes first: else the last of them keeps one core waiting for the other at the end."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and the processes of the tests would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Embedded broker and repository."""
    with Network(network_config(tmp_path_factory.mktemp("network"))) as running:
        yield Addresses(running.mqtt_address, running.http_url)


@pytest.fixture(scope="session")
def network_mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Mosquitto and the repository; skips where Mosquitto is not installed."""
    with running_mosquitto() as broker, RepositoryServer(network_config(tmp_path_factory.mktemp("repository"))) as repository:
        yield Addresses((broker.host, broker.port), repository.url)


@pytest.fixture(scope="session")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One process that has imported torch, from which the rounds of many tests are forked."""
    config = NodeConfig(root=tmp_path_factory.mktemp("worker"), id="node_worker")
    save(config)
    with Worker(config) as started:
        started.start()
        yield started
