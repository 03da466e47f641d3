"""A researcher and scripted nodes in one process, over memory or over a real network."""

import threading
import time
import uuid
from pathlib import Path
from typing import Any

from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.common.transport.transport import FileStore, MessageBus
from fedbiomed.researcher.connect import Connection, connect
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.requests import Requests
from tests.support.scripted_node import Answer, ScriptedNode

TIMEOUT_S = 10.0


def dataset(number: int = 1, **changes: Any) -> dict[str, Any]:
    """What a node tells of a dataset."""
    description = {
        "name": f"set {number}",
        "data_type": "csv",
        "tags": ["#a", f"#{number}"],
        "description": "rows",
        "shape": [10, 2],
        "dataset_id": f"dataset_{number}",
        "dtypes": ["float64", "float64"],
        "dataset_parameters": None,
    }
    return {**description, **changes}


class Stage:
    """Lines to one network, closed with it. Ids are new for each stage, so several may use one broker.

    Args:
        folder: for files of the components.
        settings: of the researcher, timeouts for instance.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, {"answer_timeout_s": TIMEOUT_S, "request_timeout_s": TIMEOUT_S, **settings}
        self.federation = uuid.uuid4().hex
        self.researcher_id = f"researcher_{uuid.uuid4()}"
        self.connections: list[Connection] = []
        self.buses: list[MessageBus] = []
        self.nodes: list[ScriptedNode] = []

    def requests(self) -> Requests:
        """A researcher on a line of its own; several share one id."""
        self.connections.append(self.connection(self.config()))
        requests = Requests(self.connections[-1])
        self._meet(requests)
        return requests

    def _meet(self, requests: Requests) -> None:
        """Wait until the researcher knows who is there: of a node that appears later, it repeats an order that is under way."""
        until = time.monotonic() + TIMEOUT_S
        while not {node.node_id for node in self.nodes if node.is_there} <= set(requests.online_nodes()):
            assert time.monotonic() < until
            threading.Event().wait(0.005)

    def config(self, **where: Any) -> ResearcherConfig:
        """Its settings."""
        return ResearcherConfig(
            root=self.folder / "researcher", id=self.researcher_id, federation=self.federation, **{**self.settings, **where}
        )

    def node(self, name: str, answer: Answer | None = None, **settings: Any) -> ScriptedNode:
        """A node that is there."""
        node_id = f"node_{name}_{self.federation[:8]}"
        bus = self.bus(node_id)
        self.buses.append(bus)
        bus.connect(TIMEOUT_S)
        datasets = settings.pop("datasets", [dataset()])
        node = ScriptedNode(
            bus,
            self.files(node_id),
            node_id,
            self.folder / node_id,
            answer=answer,
            datasets=datasets,
            federation=self.federation,
            **settings,
        )
        self.nodes.append(node)
        return node

    def data(self) -> FederatedDataSet:
        """The first dataset of every node."""
        return FederatedDataSet({node.node_id: node.datasets[0] for node in self.nodes})

    def close(self) -> None:
        """End all lines."""
        for connection in self.connections:
            connection.close()
        for bus in self.buses:
            bus.close()
        for node in self.nodes:
            node.files.close()

    def connection(self, config: ResearcherConfig) -> Connection:
        """A line for a researcher."""
        raise NotImplementedError

    def bus(self, client_id: str) -> MessageBus:
        """A line for a node, not connected yet."""
        raise NotImplementedError

    def files(self, component_id: str) -> FileStore:
        """Access to the repository for a node."""
        raise NotImplementedError


class MemoryStage(Stage):
    """Everything in memory; `broker` can be stopped, and lines cut."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.broker, self.shared = MemoryBroker(), MemoryFiles()

    def connection(self, config: ResearcherConfig) -> Connection:
        bus = MemoryBus(self.broker, f"{config.id}.{uuid.uuid4().hex[:8]}", persistent=False)
        bus.connect(TIMEOUT_S)
        return Connection(config, bus, MemoryFileStore(self.shared, config.id))

    def bus(self, client_id: str) -> MessageBus:
        return MemoryBus(self.broker, client_id)

    def files(self, component_id: str) -> FileStore:
        return MemoryFileStore(self.shared, component_id)


class NetworkStage(Stage):
    """Over a broker and a repository on this machine."""

    def __init__(self, folder: Path, mqtt_address: tuple[str, int], http_url: str, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.host, self.port = mqtt_address
        self.http_url = http_url

    def connection(self, config: ResearcherConfig) -> Connection:
        return connect(config)

    def config(self, **where: Any) -> ResearcherConfig:
        return super().config(broker=self.host, broker_port=self.port, repository=self.http_url, **where)

    def bus(self, client_id: str) -> MessageBus:
        return MqttBus(client_id, self.host, self.port)

    def files(self, component_id: str) -> FileStore:
        return HttpFileStore(self.http_url, component_id)
