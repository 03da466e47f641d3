"""A federation inside the test's process: real nodes and a real training process, over transports in memory."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedbiomed.common.config import NodeConfig, ResearcherConfig, save
from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.node import Node
from fedbiomed.node.presence import presence
from fedbiomed.node.store import NodeStore
from fedbiomed.node.worker import Worker
from fedbiomed.researcher.connect import Connection
from fedbiomed.researcher.requests import Requests
from tests.support.plans import write_rows

TAGS = ["line"]


@dataclass
class MemoryFederation:
    """Nodes `node_0`, `node_1` ... with 30, 40 ... rows each, all trained by one process, one after the other."""

    root: Path
    worker: Worker
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    researchers: list[Requests] = field(default_factory=list)

    def data(self, index: int) -> Path:
        """The folder in which a node's file lies."""
        return self.root / f"data_{index}"

    @contextlib.contextmanager
    def node(self, index: int, *, is_new: bool = True, **settings: object) -> Iterator[Node]:
        """Start one node, or start it again; the researchers that are here know it then."""
        told = {"plan_approval": False, **settings}
        config = NodeConfig(root=self.root / f"node_{index}", id=f"node_{index}", **told)  # type: ignore[arg-type]
        save(config)
        self.data(index).mkdir(exist_ok=True)
        write_rows(self.data(index) / "rows.csv", 30 + 10 * index, seed=index)
        bus = MemoryBus(self.broker, config.id, will=presence(config, f"boot_{index}", is_online=False))
        files = MemoryFileStore(self.files, config.id)
        with NodeStore(config.database) as store:
            if is_new:
                DatasetRegistry(store).add(name="rows", data_type="csv", tags=TAGS, path=self.data(index) / "rows.csv")
            with bus, Node(config, bus, files, store, worker=self.worker, boot_id=f"boot_{index}") as node:
                bus.connect(5)
                for requests in self.researchers:
                    _wait_for(config.id, requests)
                yield node

    @contextlib.contextmanager
    def researcher(self, root: Path, **settings: object) -> Iterator[Requests]:
        """Connect a researcher whose folder is `root`."""
        config = ResearcherConfig(root=root, id="researcher_test", **{"answer_timeout_s": 20.0, **settings})  # type: ignore[arg-type]
        save(config)
        bus = MemoryBus(self.broker, f"researcher_test.{root.name}", persistent=False)
        bus.connect(5)
        with Connection(config, bus, MemoryFileStore(self.files, config.id)) as connection:
            requests = Requests(connection)
            self.researchers.append(requests)
            try:
                yield requests
            finally:
                self.researchers.remove(requests)


def _wait_for(node_id: str, requests: Requests) -> None:
    deadline, never = time.monotonic() + 20, threading.Event()
    while node_id not in requests.online_nodes():
        assert time.monotonic() < deadline, f"{node_id} did not become known"
        never.wait(0.002)


@contextlib.contextmanager
def memory_federation(root: Path, nodes: int, worker: Worker) -> Iterator[MemoryFederation]:
    """Start so many nodes; all of it but the worker ends with the block."""
    with contextlib.ExitStack() as stack:
        federation = MemoryFederation(root, worker)
        for index in range(nodes):
            stack.enter_context(federation.node(index))
        yield federation
