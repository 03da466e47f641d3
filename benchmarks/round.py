"""How long a round takes when training costs nothing: 4 nodes, 10 000 parameters, all on this machine.

Beside it, in the same run: a bare exchange of messages with the same nodes, and one file of that size through the repository and back.
Run with `scripts/bench round [--nodes N] [--rounds N]`; prints JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.config import ResearcherConfig, broker_address, save
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.demo.hospitals import Hospital
from fedbiomed.demo.processes import Federation
from fedbiomed.researcher.connect import Connection, connect
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests

_WARM_UP = 5


class NoTraining(TorchTrainingPlan):
    """10 000 parameters that stay as they are."""

    def init_model(self):  # type: ignore[no-untyped-def]  # travels as source; `nn` is a built-in import of every torch plan
        return nn.Linear(99, 100)  # noqa: F821

    def training_data(self):  # type: ignore[no-untyped-def]
        return DataManager(dataset=torch.zeros(4, 99).numpy(), target=torch.zeros(4, 100).numpy())  # noqa: F821

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return self.model()(data).sum()

    def training_routine(self, history_monitor=None, node_args=None):  # type: ignore[no-untyped-def]
        return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--broker", help="HOST:PORT of a broker that runs already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args.nodes, args.rounds, args.broker), indent=2))


def measure(out: Path, nodes: int, rounds: int, broker: str | None = None) -> dict[str, Any]:
    """Milliseconds of a round and of what it stands on."""
    data = out / "rows.csv"
    data.write_text("a,b\n" + "1,2\n" * 8, encoding="utf-8")
    sites = [Hospital(name=f"node-{index}", path=data, patients=8, malignant=0) for index in range(nodes)]
    with Federation(out, sites, broker=broker, node_options=("--no-plan-approval",)) as federation:
        host, port = broker_address(federation.broker)
        config = ResearcherConfig(
            root=out / "researcher", id="researcher_bench", broker=host, broker_port=port, repository=federation.repository
        )
        save(config)
        with connect(config) as connection:
            return _measure(connection, nodes, rounds)


def _measure(connection: Connection, nodes: int, rounds: int) -> dict[str, Any]:
    requests = Requests(connection)
    experiment = Experiment(
        tags=["breast-cancer"],
        training_plan_class=NoTraining,
        training_args={"num_updates": 1, "loader_args": {"batch_size": 4}},
        requests=requests,
        show_progress=False,
    )
    found = experiment.training_data()
    if found is None or len(found.node_ids()) != nodes:
        raise SystemExit(f"{nodes} nodes were started, found: {found and found.node_ids()}")
    rounds_ms = _times(experiment.run_once, rounds)
    small = connection.config.root / "small.mpk"
    Serializer.dump({"w": np.zeros(10_000, dtype=np.float32)}, small)
    return {
        "nodes": nodes,
        "parameters": 10_000,
        "rounds": rounds,
        "round_ms": _summary(rounds_ms),
        "message_exchange_ms": _summary(_times(requests.ping_nodes, rounds)),
        "file_put_and_get_ms": _summary(_times(lambda: _there_and_back(connection, small), rounds)),
    }


def _there_and_back(connection: Connection, path: Path) -> None:
    connection.files.get(connection.files.put(path), path.with_name("back.mpk"))


def _times(action: Callable[[], object], count: int) -> list[float]:
    for _ in range(_WARM_UP):
        action()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - began))
    return times


def _summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median": round(statistics.median(ordered), 2),
        "p10": round(ordered[len(ordered) // 10], 2),
        "p90": round(ordered[-1 - len(ordered) // 10], 2),
    }


if __name__ == "__main__":
    main()
