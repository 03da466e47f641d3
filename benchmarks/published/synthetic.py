"""The synthetic data of FedProx (Li et al., MLSys 2020, arXiv:1812.06127): unlike devices, partial work, and what the proximal term is for.

A device's local steps are those of a softmax regression by plain gradient descent. They are worked out in stacked arrays, for all
variants of the algorithm at once, since 200 rounds of a plan would take an hour here. That both do the same is shown in each run: one
device is trained by a plan of this package, too. The means are the package's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.published.findings import Finding
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.data.synthetic import fedprox_synthetic
from fedbiomed.common.params import weighted_mean
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

ROUNDS, EPOCHS, BATCH, RATE, ASKED, LAST = 200, 20, 10, 0.01, 10, 50
Array = np.ndarray[Any, Any]
Device = tuple[Array, Array]


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


class Softmax(TorchTrainingPlan):
    """A softmax regression on the arrays that `dataset_path` is, in batches that it names."""

    def init_model(self):  # type: ignore[no-untyped-def]
        return torch.nn.Linear(60, 10).double()

    def init_optimizer(self, optimizer_args):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args["lr"])

    def training_data(self):  # type: ignore[no-untyped-def]
        inputs, labels, batches = self.dataset_path
        return DataManager(torch.utils.data.TensorDataset(torch.tensor(inputs), torch.tensor(labels)), batch_sampler=batches)

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return torch.nn.functional.cross_entropy(self.model()(data), target)


def local_steps(begun: Array, device: Device, batches: Sequence[Array], mus: Array, last: Array) -> Array:
    """Parameters of all variants after a device's training.

    Args:
        begun: `(variants, inputs + 1, classes)`, the bias in the last row.
        device: inputs with a column of ones `(n, inputs + 1)`, and labels as rows of the unit matrix `(n, classes)`.
        batches: indices of samples, one array per step.
        mus: one per variant.
        last: number of steps of each variant.
    """
    inputs, labels = device
    now, pull = begun.copy(), (RATE * mus)[:, None, None]
    live = np.ones(len(mus))[:, None, None]
    for step, batch in enumerate(batches):
        x = inputs[batch]
        if step in last:
            live = (last > step).astype(float)[:, None, None]
        scores = x @ now
        np.exp(scores - scores.max(axis=2, keepdims=True), out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        scores -= labels[batch]
        now -= live * ((RATE / len(batch)) * (x.T @ scores) + pull * (now - begun))
    return now


def batches_of(count: int, draw: np.random.Generator) -> list[Array]:
    """The batches of all epochs, shuffled anew in each."""
    orders = [draw.permutation(count) for _ in range(EPOCHS)]
    return [order[start : start + BATCH] for order in orders for start in range(0, count, BATCH)]


def curves(devices: Sequence[Device], variants: Sequence[Variant], seed: int, rounds: int) -> Array:
    """Test accuracy after each round, `(rounds, variants)`; of each device four fifths are for training, and all tests are pooled."""
    training = [(_with_ones(x[: len(x) * 4 // 5]), np.eye(10)[y[: len(y) * 4 // 5]]) for x, y in devices]
    test_x = _with_ones(np.concatenate([x[len(x) * 4 // 5 :] for x, _ in devices]))
    test_y = np.concatenate([y[len(y) * 4 // 5 :] for _, y in devices])
    now, found = np.zeros((len(variants), test_x.shape[1], 10)), []
    mus, draw = np.array([variant.mu for variant in variants]), np.random.default_rng(seed)
    for _ in range(rounds):
        asked = draw.choice(len(devices), ASKED, replace=False)
        slow = {float(share): draw.permutation(ASKED)[: round(share * ASKED)] for share in sorted({v.stragglers for v in variants})}
        updates: list[list[dict[str, Array]]] = [[] for _ in variants]
        weights: list[list[float]] = [[] for _ in variants]
        for place, index in enumerate(asked):
            count, partial = len(training[index][0]), int(draw.integers(1, EPOCHS))
            steps = batches_of(count, draw)
            is_slow = [place in slow[v.stragglers] for v in variants]
            last = np.array([len(steps) * partial // EPOCHS if s else len(steps) for s in is_slow])
            made = local_steps(now, training[index], steps, mus, last)
            for number, variant in enumerate(variants):
                if variant.keeps_partial or not is_slow[number]:
                    updates[number].append({"w": made[number]})
                    weights[number].append(count)
        now = np.stack([weighted_mean(u, w)["w"] for u, w in zip(updates, weights, strict=True)])
        found.append(((test_x @ now).argmax(axis=2) == test_y).mean(axis=1))
    return np.array(found)


def gap_to_plan(device: Device, mu: float, seed: int) -> float:
    """Largest difference between the parameters that the stacked steps give and those of a plan of this package."""
    draw = np.random.default_rng(seed)
    inputs, labels = device[0].astype(np.float64), device[1]
    batches, begun = batches_of(len(labels), draw), draw.normal(0, 0.1, (61, 10))
    plan = Softmax()
    args = {"num_updates": len(batches), "optimizer_args": {"lr": RATE}, "fedprox_mu": mu}
    plan.post_init({}, TrainingArgs(args, only_required=False), {})
    plan.set_model_params({"weight": torch.tensor(begun[:-1].T.copy()), "bias": torch.tensor(begun[-1].copy())})
    plan.set_dataset_path((inputs, labels, [batch.tolist() for batch in batches]))
    manager = plan.training_data()
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(0.0))
    plan.training_routine()
    params = plan.after_training_params()
    there = np.vstack([params["weight"].numpy().T, params["bias"].numpy()])
    here = local_steps(begun[None], (_with_ones(inputs), np.eye(10)[labels]), batches, np.array([mu]), np.array([len(batches)]))[0]
    return float(np.abs(here - there).max())


def run(seeds: Sequence[int], rounds: int = ROUNDS) -> tuple[list[Finding], dict[str, Any]]:
    """Unlike devices, alpha = beta = 1, and devices that are alike; the paper publishes curves, so an order is judged.

    Judged are means over seeds: another seed gives other devices, which differ by a few points in what the proximal term gains.
    """
    last = min(LAST, rounds // 2)
    unlike = [fedprox_synthetic(1, 1, seed=seed) for seed in seeds]
    alike = [fedprox_synthetic(iid=True, seed=seed) for seed in seeds]
    ends = [curves(devices, list(UNLIKE.values()), seed, rounds)[-last:] for devices, seed in zip(unlike, seeds, strict=True)]
    begins = [curves(devices, list(ALIKE.values()), seed, rounds // 10) for devices, seed in zip(alike, seeds, strict=True)]
    of = dict(zip(UNLIKE, (100 * np.mean(ends, axis=(0, 1))).tolist(), strict=True))
    early = dict(zip(ALIKE, (100 * np.mean(begins, axis=(0, 1))).tolist(), strict=True))
    dropped, kept = of["mu 0, 90 % stragglers dropped"], of["mu 0, 90 % stragglers kept"]
    smallest = min(unlike[0], key=lambda device: len(device[1]))
    findings = [
        Finding(name="(1,1): mu 1 above mu 0, points", found=of["mu 1"] - of["mu 0"], low=2.0),
        Finding(name="(1,1), stragglers: mu 1 above mu 0", found=of["mu 1, 90 % stragglers kept"] - kept, low=2.0),
        Finding(name="(1,1): keeping partial work above dropping it", found=kept - dropped, low=0.0),
        Finding(name="iid: mu 0 above mu 1 in the first tenth", found=early["mu 0"] - early["mu 1"], low=0.0),
        Finding(name="steps against a plan's, largest gap", found=gap_to_plan(smallest, 1.0, seeds[0]), high=1e-9),
    ]
    by_seed = {str(seed): (100 * end.mean(axis=0)).round(2).tolist() for seed, end in zip(seeds, ends, strict=True)}
    return findings, {
        f"accuracy of (1,1), last {last} rounds, %": of,
        "by seed": by_seed,
        "accuracy of iid, first tenth of rounds, %": early,
    }


def _with_ones(inputs: Array) -> Array:
    return np.hstack([inputs, np.ones((len(inputs), 1))]).astype(np.float64)
