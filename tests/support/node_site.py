"""A node's belongings on memory transports, and plans that are slow or leave a mark."""

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Any

from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.node import Node
from fedbiomed.node.orders import OrderBook
from fedbiomed.node.presence import presence
from fedbiomed.node.store import NodeStore
from fedbiomed.node.worker import Worker
from tests.support.orders import RESEARCHER, Asker, node_config, plan_source, write_line

PLAN = plan_source()


def slow_plan(begun, go_on="/nowhere"):
    """A plan that writes to a named pipe when it begins and then takes a minute, unless the file `go_on` is there."""
    os.mkfifo(begun)
    return plan_source(
        top="import pathlib, threading",
        step=f"if not pathlib.Path({str(go_on)!r}).exists():\n"
        f"    pathlib.Path({str(begun)!r}).write_text('x')\n"
        "    threading.Event().wait(60)",
    )


@dataclass
class Site:
    """A node's belongings, which outlive the `Node` that is started on them."""

    config: Any
    broker: MemoryBroker
    shared: MemoryFiles
    store: NodeStore
    worker: Worker
    dataset_id: str
    asker: Asker

    @contextlib.contextmanager
    def started(self, boot_id="boot_1", **changes):
        config = replace(self.config, **changes)
        bus = MemoryBus(self.broker, config.id, will=presence(config, boot_id, is_online=False))
        files = MemoryFileStore(self.shared, config.id)
        with bus, Node(config, bus, files, self.store, worker=self.worker, boot_id=boot_id) as node:
            bus.connect(5)
            yield node

    def state_of(self, request):
        order = OrderBook(self.store).get(request.request_id)
        return None if order is None else order.state

    def spool(self):
        return sorted(path.name for path in (self.config.var / "spool").iterdir())


@contextlib.contextmanager
def made_site(folder, worker):
    """A site with one dataset of 8 rows, and a researcher who asks."""
    broker, shared = MemoryBroker(), MemoryFiles()
    config = node_config(folder / "node")
    with NodeStore(config.database) as store, MemoryBus(broker, RESEARCHER) as bus:
        bus.connect(5)
        dataset = DatasetRegistry(store).add(name="line", data_type="csv", tags=["line"], path=write_line(folder / "line.csv"))
        asker = Asker(bus, MemoryFileStore(shared, RESEARCHER), config.id, folder / "asker")
        yield Site(config, broker, shared, store, worker, dataset["dataset_id"], asker)


def marking(path):
    """A plan that adds a line to a file each time it trains."""
    return plan_source(routine=f"open({str(path)!r}, 'a').write('trained\\n')\nsuper().training_routine(history_monitor, node_args)")
