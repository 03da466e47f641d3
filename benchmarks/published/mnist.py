"""MNIST over ten nodes, labels shared by Dirichlet(0.5), as in Flower's `niid_bench`; the short form: 5 rounds of one epoch.

In full (50 rounds of 10 epochs) published are FedAvg 98.89, SCAFFOLD 99.07, FedProx 99.02; after the short form FedAvg reaches about 95.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.published.findings import Finding, near
from benchmarks.published.local_rounds import LocalRounds
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.data.idx import read_mnist
from fedbiomed.common.data.partition import DirichletLabelPartitioner
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators.fedavg import FedAverage

NODES, BETA, ROUNDS, SEED = 10, 0.5, 5, 42
_MEAN, _SD = 0.1307, 0.3081
_PUBLISHED, _WIDTH = 95.0, 3.0


class Digits(TorchTrainingPlan):
    """LeNet on the pixels and digits that `dataset_path` is."""

    def init_model(self):  # type: ignore[no-untyped-def]
        convolutions = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))

    def init_optimizer(self, optimizer_args):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(self.model().parameters(), **optimizer_args)

    def training_data(self):  # type: ignore[no-untyped-def]
        return DataManager(torch.utils.data.TensorDataset(*self.dataset_path))

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return nn.functional.cross_entropy(self.model()(data), target)


def run(data: Path, seed: int = SEED) -> tuple[list[Finding], dict[str, Any]]:
    """FedAvg in this process: ten nodes of torch would not fit beside each other on a small machine.

    Args:
        data: folder in which `mnist` lies.
        seed: of split, first model and batches.
    """
    nodes = _nodes(data / "mnist", seed)
    rounds = LocalRounds(Digits, nodes, FedAverage(), {}, lambda round_, number: _args(seed, round_, number))
    test = _tensors(*read_mnist(data / "mnist", train=False))
    curve = []
    for _ in range(ROUNDS):
        rounds.run(1)
        curve.append(_accuracy(rounds.plan.model(), *test))
    sizes = [len(labels) for _, labels in nodes.values()]
    return [near("FedAvg: accuracy after 5 rounds, %", curve[-1], _PUBLISHED, _WIDTH)], {"accuracy by round, %": curve, "samples": sizes}


def _nodes(folder: Path, seed: int) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    pixels, digits = read_mnist(folder)
    parts = DirichletLabelPartitioner(NODES, range(10), beta=BETA, seed=seed).partition(digits).indices
    return {f"node_{index}": _tensors(pixels[part], digits[part]) for index, part in enumerate(parts)}


def _tensors(pixels: np.ndarray[Any, Any], digits: np.ndarray[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    images = (torch.from_numpy(pixels.astype(np.float32))[:, None] / 255 - _MEAN) / _SD
    return images, torch.from_numpy(digits.astype(np.int64))


def _args(seed: int, round_: int, number: int) -> dict[str, Any]:
    return {
        "epochs": 1,
        "random_seed": seed if not round_ and not number else 10_000 * seed + 100 * round_ + number,
        "loader_args": {"batch_size": 64, "shuffle": True},
        "optimizer_args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-5},
    }


@torch.no_grad()
def _accuracy(model: nn.Module, images: torch.Tensor, digits: torch.Tensor) -> float:
    return float(100 * (model.eval()(images).argmax(dim=1) == digits).double().mean())
