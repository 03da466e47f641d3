"""The numerical example of the paper of FedDC (Kamp, Fischer, Vreeken, ICLR 2023, arXiv:2110.03469): few samples per node, daisy-chaining
against averaging alone.

The nodes' models are trained side by side in stacked tensors; who trains whose model, when they are averaged and how, say the package's
trainer and aggregator. A model keeps its optimizer's state, as in the paper.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

from benchmarks.published.findings import Finding, near
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.events.daisy_chain_trainer import DaisyChainTrainer

NODES, SAMPLES, ROUNDS, AVERAGED_EVERY = 50, 10, 1000, 200
WIDTHS = (100, 50, 20, 2)
_CHAINED, _AVERAGED = 0.885, 0.790
Tensors = tuple[torch.Tensor, torch.Tensor]


def example() -> tuple[Tensors, Tensors]:
    """Training samples, `(nodes, samples, features)` and labels, and the test."""
    x, y = make_classification(
        1200,
        n_features=100,
        n_informative=20,
        n_redundant=60,
        n_repeated=5,
        n_classes=2,
        n_clusters_per_class=3,
        flip_y=0.02,
        class_sep=1,
        shift=1,
        scale=3,
        random_state=np.random.RandomState(42),
    )
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=1 / 3, random_state=42)
    own = NODES * SAMPLES
    shares = (
        torch.tensor(train_x[:own], dtype=torch.float32).reshape(NODES, SAMPLES, -1),
        torch.tensor(train_y[:own]).reshape(NODES, SAMPLES),
    )
    return shares, (torch.tensor(test_x, dtype=torch.float32), torch.tensor(test_y))


def accuracy(trainer: DaisyChainTrainer, data: tuple[Tensors, Tensors], seed: int) -> float:
    """Test accuracy of the mean after all rounds."""
    (x, y), (test_x, test_y) = data
    models = _first_models(seed)
    optimizer = torch.optim.Adam(models.values(), lr=1e-3, weight_decay=1e-4)
    names = [f"node_{i:02d}" for i in range(NODES)]
    trainer.training.target = ROUNDS
    of_model = torch.arange(NODES)  # the node at which each model is
    for round_ in range(ROUNDS):
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(_outputs(models, x[of_model]).flatten(0, 1), y[of_model].flatten(), reduction="sum")
        (losses / SAMPLES).backward()
        optimizer.step()
        receiver = {giver: int(to.removeprefix("node_")) for to, giver in trainer.order(round_, names).items()}
        of_model = torch.tensor([receiver[names[place]] for place in of_model.tolist()])
        if trainer.is_aggregation_due(round_):
            _average(models)
    found = _outputs({name: value[:1] for name, value in models.items()}, test_x[None])[0].argmax(dim=1)
    return float((found == test_y).double().mean())


def run(seeds: Sequence[int]) -> tuple[list[Finding], dict[str, Any]]:
    """Daisy-chaining and averaging alone, mean over seeds; a seed fixes the first model and the chain.

    The published figures are of one run; here one test sample is 0.25 points, and seeds differ by about one point.
    """
    data = example()
    chained = [accuracy(DaisyChainTrainer(1, AVERAGED_EVERY, seed=seed), data, seed) for seed in seeds]
    averaged = [accuracy(DaisyChainTrainer(0, AVERAGED_EVERY, seed=seed), data, seed) for seed in seeds]
    gap = float(np.mean(chained) - np.mean(averaged))
    findings = [
        near("FedDC: accuracy", float(np.mean(chained)), _CHAINED, 0.03),
        near("averaging alone: accuracy", float(np.mean(averaged)), _AVERAGED, 0.03),
        Finding(name="FedDC above averaging alone", found=gap, low=0.04, published=_CHAINED - _AVERAGED),
    ]
    return findings, {"FedDC": chained, "averaging alone": averaged}


def _first_models(seed: int) -> dict[str, torch.Tensor]:
    """One model, as torch draws it, for all nodes: name -> stacked parameters."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)]
    named = {f"{i}.{name}": value.detach() for i, layer in enumerate(layers) for name, value in layer.named_parameters()}
    return {name: value.expand(NODES, *value.shape).clone().requires_grad_() for name, value in named.items()}


def _outputs(models: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for i in range(len(WIDTHS) - 1):
        x = torch.baddbmm(models[f"{i}.bias"][:, None], torch.relu(x) if i else x, models[f"{i}.weight"].transpose(1, 2))
    return x


@torch.no_grad()
def _average(models: dict[str, torch.Tensor]) -> None:
    aggregator = FedAverage()
    aggregator.begin(0)
    for i in range(NODES):
        aggregator.add(str(i), {name: value[i] for name, value in models.items()}, 1.0)
    for name, value in aggregator.finish().items():
        models[name].copy_(value.expand_as(models[name]))
