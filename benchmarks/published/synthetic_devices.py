"""FedProx's synthetic experiment, as nodes and the stacked form both need it: the plan, the variants, and who is drawn in a round."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

DEVICES, ASKED, EPOCHS, RATE = 30, 10, 20, 0.01
Array = np.ndarray[Any, Any]
Device = tuple[Array, Array]


class Softmax(TorchTrainingPlan):
    """A softmax regression from 0 on the arrays of the folder `dataset_path`; the round's configuration says how many epochs, and how
    samples are drawn."""

    def init_dependencies(self):  # type: ignore[no-untyped-def]  # travels as source
        return ["import numpy as np"]

    def init_model(self):  # type: ignore[no-untyped-def]
        layer = torch.nn.Linear(60, 10).double()
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        return layer

    def init_optimizer(self, optimizer_args):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args["lr"])

    def training_data(self):  # type: ignore[no-untyped-def]
        inputs, labels = (torch.from_numpy(np.load(f"{self.dataset_path}/{name}.npy")) for name in ("inputs", "labels"))
        batches = self.batches(len(labels), **self.round_config())
        return DataManager(torch.utils.data.TensorDataset(inputs, labels), sampler=batches, batch_size=None)

    @staticmethod
    def batches(count, draw, epochs):  # type: ignore[no-untyped-def]  # indices of 10 samples each, shuffled anew in each epoch
        drawn = np.random.default_rng(draw)
        orders = [drawn.permutation(count).tolist() for _ in range(epochs)]
        return [order[start : start + 10] for order in orders for start in range(0, count, 10)]

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return torch.nn.functional.cross_entropy(self.model()(data), target)


@dataclass(frozen=True)
class Variant:
    """mu of the proximal term; share of devices that do 1 to 19 epochs only; whether what these did counts."""

    mu: float
    stragglers: float = 0.0
    keeps_partial: bool = True


UNLIKE = {
    "mu 0": Variant(0.0),
    "mu 1": Variant(1.0),
    "mu 0, 90 % stragglers dropped": Variant(0.0, 0.9, keeps_partial=False),
    "mu 0, 90 % stragglers kept": Variant(0.0, 0.9),
    "mu 1, 90 % stragglers kept": Variant(1.0, 0.9),
}
ALIKE = {"mu 0": Variant(0.0), "mu 1": Variant(1.0)}


@dataclass(frozen=True)
class Asked:
    """A device's part in a round.

    Args:
        device: its number.
        draw: seed of its batches.
        epochs: how many it does.
        is_slow: whether it is a straggler.
    """

    device: int
    draw: list[int]
    epochs: int
    is_slow: bool


def asked(seed: int, round_: int, stragglers: float) -> list[Asked]:
    """The devices of a round; for all shares of stragglers the same ones with the same batches."""
    draw = np.random.default_rng([seed, round_])
    devices, order = draw.choice(DEVICES, ASKED, replace=False).tolist(), draw.permutation(ASKED).tolist()
    partial = draw.integers(1, EPOCHS, ASKED).tolist()
    slow = set(order[: round(stragglers * ASKED)])
    return [
        Asked(device, [seed, round_, device], partial[place] if place in slow else EPOCHS, place in slow)
        for place, device in enumerate(devices)
    ]


def training_of(device: Device) -> Device:
    """What a device trains on: four fifths, as doubles."""
    inputs, labels = device
    return inputs[: len(labels) * 4 // 5].astype(np.float64), labels[: len(labels) * 4 // 5]


def tested(devices: Sequence[Device]) -> Device:
    """The other fifths of all devices."""
    rest = [(inputs[len(labels) * 4 // 5 :], labels[len(labels) * 4 // 5 :]) for inputs, labels in devices]
    return np.concatenate([inputs for inputs, _ in rest]).astype(np.float64), np.concatenate([labels for _, labels in rest])


def with_ones(inputs: Array) -> Array:
    """Inputs, and a column of ones for the bias."""
    return np.hstack([inputs, np.ones((len(inputs), 1))])
