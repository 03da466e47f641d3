"""MNIST over ten nodes, labels shared by Dirichlet(0.5), as in Flower's `niid_bench`; the short form: 5 rounds of one epoch.

Published are accuracies after 50 rounds of 10 epochs; after the short form FedAvg reaches about 95, and of the others it shows that they
learn, too. All of it goes through `Experiment`, `Node` and `Round` in this process: ten training processes of torch would
not fit beside each other on a small machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.published.findings import Finding, near
from benchmarks.published.nodes_here import TAGS, NodesHere, nodes_here
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.data.idx import read_mnist
from fedbiomed.common.data.partition import DirichletLabelPartitioner
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.aggregators.fednova import FedNova
from fedbiomed.researcher.aggregators.fedprox import FedProx
from fedbiomed.researcher.aggregators.scaffold import Scaffold
from fedbiomed.researcher.experiment import Experiment

NODES, BETA, ROUNDS, SEED, BATCH, MOMENTUM = 10, 0.5, 5, 42, 64, 0.9
_PUBLISHED, _WIDTH, _LEARNS = 95.0, 3.0, 90.0


class Digits(TorchTrainingPlan):
    """LeNet on the pixels and digits of the folder `dataset_path`."""

    def init_dependencies(self):  # type: ignore[no-untyped-def]  # travels as source
        return ["import numpy as np"]

    def init_model(self):  # type: ignore[no-untyped-def]
        convolutions = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))

    def init_optimizer(self, optimizer_args):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(self.model().parameters(), **optimizer_args)

    def training_data(self):  # type: ignore[no-untyped-def]
        pixels, digits = (np.load(f"{self.dataset_path}/{name}.npy") for name in ("pixels", "digits"))
        return DataManager(torch.utils.data.TensorDataset(self.images(pixels), torch.from_numpy(digits.astype(np.int64))))

    @staticmethod
    def images(pixels):  # type: ignore[no-untyped-def]  # in the standard deviations of MNIST
        return (torch.from_numpy(pixels.astype(np.float32))[:, None] / 255 - 0.1307) / 0.3081

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return nn.functional.cross_entropy(self.model()(data), target)


@dataclass(frozen=True)
class Method:
    """An aggregator, how long and at what rate nodes train in a round, and the published accuracy in full, which no run here is long
    enough for."""

    make: Callable[[], Aggregator]
    in_full: float
    length: Mapping[str, int] = field(default_factory=lambda: {"epochs": 1})
    step: Mapping[str, float] = field(default_factory=lambda: {"lr": 0.01, "momentum": MOMENTUM})

    def training_args(self, seed: int) -> dict[str, Any]:
        """Of a round."""
        return {
            **self.length,
            "random_seed": seed,
            "loader_args": {"batch_size": BATCH, "shuffle": True},
            "optimizer_args": {**self.step, "weight_decay": 1e-5},
        }


# SCAFFOLD's controls are gradients by plain steps, as many on each node: those of an epoch of the mean node, at the rate to which the
# momentum amounts, 0.01 / (1 - 0.9).
METHODS = {
    "FedAvg": Method(FedAverage, 98.89),
    "FedProx": Method(lambda: FedProx(0.01), 99.02),
    "SCAFFOLD": Method(Scaffold, 99.07, {"num_updates": 60_000 // NODES // BATCH + 1}, {"lr": 0.1}),
    "FedNova": Method(lambda: FedNova(MOMENTUM), 98.03),
}


def run(data: Path, work: Path, seed: int = SEED) -> tuple[list[Finding], dict[str, Any]]:
    """All methods.

    Args:
        data: folder in which `mnist` lies.
        work: empty folder for the federation.
        seed: of split, first model and batches.
    """
    folders, sizes = _written(data / "mnist", work, seed)
    test = read_mnist(data / "mnist", train=False)
    with nodes_here(work / "federation", folders) as nodes:
        curves = {name: through_rounds(nodes, method, test, seed) for name, method in METHODS.items()}
        count = nodes.rounds.count
    ends = {name: curve[-1] for name, curve in curves.items()}
    learns = [Finding(name=f"{name}: same", found=end, low=_LEARNS, is_own_band=True) for name, end in ends.items() if name != "FedAvg"]
    form = (
        f"{ROUNDS} rounds of 1 epoch, for which FedAvg has about 95; the published figures in full, of 50 rounds of 10 epochs, are not "
        "compared. SCAFFOLD trains by plain steps, as many on each node, at the rate to which the others' momentum amounts"
    )
    return [near("FedAvg: accuracy after 5 rounds, %", ends["FedAvg"], _PUBLISHED, _WIDTH, is_own_band=True), *learns], {
        "accuracy by round, %": curves,
        "published in full, %": {name: method.in_full for name, method in METHODS.items()},
        "samples": sizes,
        "node rounds": count,
        "form": form,
    }


def through_rounds(nodes: NodesHere, method: Method, test: tuple[Any, Any], seed: int) -> list[float]:
    """Accuracy of the test after each round, in percent."""
    experiment = Experiment(
        tags=TAGS,
        aggregator=method.make(),
        training_plan_class=Digits,
        training_args=method.training_args(seed),
        requests=nodes.requests,
        show_progress=False,
    )
    curve = []
    for round_ in range(ROUNDS):
        experiment.set_training_args(method.training_args(100 * seed + round_))
        nodes.play(experiment, 1)
        curve.append(_accuracy(experiment.training_plan(), *test))
    return curve


def _written(source: Path, work: Path, seed: int) -> tuple[dict[str, Path], list[int]]:
    """A folder of each node's digits, and how many they are."""
    pixels, digits = read_mnist(source)
    parts = DirichletLabelPartitioner(NODES, range(10), beta=BETA, seed=seed).partition(digits).indices
    folders = {f"node_{index}": work / "data" / f"node_{index}" for index in range(NODES)}
    for folder, part in zip(folders.values(), parts, strict=True):
        folder.mkdir(parents=True)
        np.save(folder / "pixels.npy", pixels[part])
        np.save(folder / "digits.npy", digits[part])
    return folders, [len(part) for part in parts]


@torch.no_grad()
def _accuracy(plan: Any, pixels: np.ndarray[Any, Any], digits: np.ndarray[Any, Any]) -> float:
    found = plan.model().eval()(Digits.images(pixels)).argmax(dim=1).numpy()
    return float(100 * (found == digits).mean())
