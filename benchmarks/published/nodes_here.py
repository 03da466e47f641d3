"""A federation inside this process, for experiments of more rounds than processes could train in minutes.

Everything is the package's own: the researcher's `Experiment`, the `Node`s with their databases, order books and spools, and `Round`. Two
things differ from daemons on a network: messages and files go through memory, and rounds run in this process, one at a time.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fedbiomed.common.config import NodeConfig, ResearcherConfig, save
from fedbiomed.common.transport.memory_bus import MemoryBroker, MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.node import Node
from fedbiomed.node.presence import presence
from fedbiomed.node.round import PlanCache, Round
from fedbiomed.node.store import NodeStore
from fedbiomed.node.task import RoundReport, RoundResult, RoundTask, task_from_bytes, task_to_bytes
from fedbiomed.node.worker import StopSignal, Worker
from fedbiomed.researcher.connect import Connection
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests

TAGS = ["published"]
_RESEARCHER = "researcher_fidelity"
_PATIENCE_S = 30.0


class RoundsHere(Worker):
    """Runs the rounds of all nodes in this process, one at a time, as the training process does: same `Round`, told in the same words."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._turn = threading.Lock()
        self._serves: tuple[str, bytes] = ("", b"")
        self._plans = PlanCache(b"")
        self.count = 0

    def run(
        self, task: RoundTask, source: bytes, *, stop: StopSignal, limit_s: float, on_progress: Callable[[RoundReport], None]
    ) -> RoundResult:
        """See `Worker.run`; a round cannot be stopped, and nothing limits it."""
        with self._turn:
            if self._serves != (task.job_id, source):
                self._serves, self._plans = (task.job_id, source), PlanCache(source)
            self.count += 1
            return Round(task_from_bytes(task_to_bytes(task)), self._plans, on_progress).run()


class NodesHere:
    """Nodes of this process and a researcher beside them.

    Args:
        requests: the researcher's line to the nodes.
        rounds: what trains.
        files: what the repository holds.
        node_ids: of the nodes.
    """

    def __init__(self, requests: Requests, rounds: RoundsHere, files: MemoryFiles, node_ids: list[str]) -> None:
        self.requests, self.rounds = requests, rounds
        self._files, self._node_ids = files, node_ids

    def play(self, experiment: Experiment, rounds: int) -> None:
        """Run rounds; the nodes' results, of which the researcher has a copy, go out of the repository after each.

        Args:
            experiment: on these nodes.
            rounds: how many.

        Raises:
            RuntimeError: a round was not done.
        """
        job = experiment.job()
        for _ in range(rounds):
            if not experiment.run_once() or job is None:
                raise RuntimeError(f"round {experiment.round_current()} was not done")
            for node_id in self._node_ids:
                self._files.discard(node_id, job.id)


@contextlib.contextmanager
def nodes_here(root: Path, folders: Mapping[str, Path]) -> Iterator[NodesHere]:
    """Start nodes; all ends with the block.

    Args:
        root: empty folder.
        folders: of each node's data, by the node's id.
    """
    broker, files = MemoryBroker(), MemoryFiles()
    rounds = RoundsHere(NodeConfig(root=root / "rounds", id="node_rounds"))
    with contextlib.ExitStack() as stack:
        for node_id, folder in folders.items():
            config = NodeConfig(root=root / node_id, id=node_id, plan_approval=False, forward_logs=False)
            save(config)
            bus = MemoryBus(broker, node_id, will=presence(config, node_id, is_online=False))
            store = stack.enter_context(NodeStore(config.database))
            DatasetRegistry(store).add(name="published", data_type="default", tags=TAGS, path=folder)
            stack.enter_context(bus)
            stack.enter_context(Node(config, bus, MemoryFileStore(files, node_id), store, worker=rounds, boot_id=node_id))
            bus.connect(_PATIENCE_S)
        settings = ResearcherConfig(root=root / "researcher", id=_RESEARCHER)
        save(settings)
        bus = MemoryBus(broker, f"{_RESEARCHER}.0", persistent=False)
        bus.connect(_PATIENCE_S)
        requests = Requests(stack.enter_context(Connection(settings, bus, MemoryFileStore(files, _RESEARCHER))))
        _wait_for(len(folders), requests)
        yield NodesHere(requests, rounds, files, list(folders))


def _wait_for(count: int, requests: Requests) -> None:
    deadline, never = time.monotonic() + _PATIENCE_S, threading.Event()
    while len(requests.online_nodes()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(requests.online_nodes())} of {count} nodes are online after {_PATIENCE_S:.0f} s")
        never.wait(0.002)
