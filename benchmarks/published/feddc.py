"""The numerical example of the paper of FedDC (Kamp, Fischer, Vreeken, ICLR 2023, arXiv:2110.03469): few samples per node, daisy-chaining
against averaging alone.

The published figures are of 1000 rounds of 50 nodes. So many rounds of real nodes would take an hour, so the nodes' models are trained side
by side in stacked tensors; who trains whose model, when they are averaged and how, say the package's trainer and aggregator. That real
nodes do the same is shown in each run: a shorter one, of the same nodes and data, goes through `Experiment`, `Node` and `Round`, too.
A model keeps its optimizer's state, as in the paper.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.published.findings import Finding, largest_gap, near
from benchmarks.published.nodes_here import TAGS, NodesHere, nodes_here
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.events.daisy_chain_trainer import DaisyChainTrainer
from fedbiomed.researcher.experiment import Experiment

NODES, SAMPLES, ROUNDS, AVERAGED_EVERY = 50, 10, 1000, 200
SHORT_ROUNDS, SHORT_AVERAGED_EVERY = 40, 20
_CHAINED, _AVERAGED = 0.885, 0.790
_NAMES = [f"node_{i:02d}" for i in range(NODES)]
Tensors = tuple[torch.Tensor, torch.Tensor]
Params = Mapping[str, Any]


class Perceptron(TorchTrainingPlan):
    """100-50-20-2 with ReLU; one step on all samples of the folder `dataset_path`."""

    def init_dependencies(self):  # type: ignore[no-untyped-def]  # travels as source
        return ["import numpy as np"]

    def init_model(self):  # type: ignore[no-untyped-def]
        return nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 2)).double()

    def init_optimizer(self, optimizer_args):  # type: ignore[no-untyped-def]
        return torch.optim.Adam(self.model().parameters(), **optimizer_args)

    def training_data(self):  # type: ignore[no-untyped-def]
        inputs, labels = (torch.from_numpy(np.load(f"{self.dataset_path}/{name}.npy")) for name in ("inputs", "labels"))
        return DataManager(torch.utils.data.TensorDataset(inputs, labels), batch_size=len(labels))

    def training_step(self, data, target):  # type: ignore[no-untyped-def]
        return nn.functional.cross_entropy(self.model()(data), target)


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
    shares = torch.tensor(train_x[:own]).reshape(NODES, SAMPLES, -1), torch.tensor(train_y[:own]).reshape(NODES, SAMPLES)
    return shares, (torch.tensor(test_x), torch.tensor(test_y))


def training_args(seed: int) -> dict[str, Any]:
    """Of every round; the first model hangs on the seed."""
    return {"epochs": 1, "random_seed": seed, "optimizer_args": {"lr": 1e-3, "weight_decay": 1e-4}}


def stacked(trainer: DaisyChainTrainer, shares: Tensors, seed: int, rounds: int = ROUNDS) -> dict[int, Params]:
    """The averages by round, all models being trained in one stack."""
    x, y = shares
    names, models = _NAMES[: len(x)], _first_models(seed, len(x))
    optimizer = torch.optim.Adam(models.values(), **training_args(seed)["optimizer_args"])
    trainer.training.target = rounds
    of_model, averages = torch.arange(len(x)), {}  # the node at which each model is; the averages by round
    for round_ in range(rounds):
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(_outputs(models, x[of_model]).flatten(0, 1), y[of_model].flatten(), reduction="sum")
        (losses / SAMPLES).backward()
        optimizer.step()
        receiver = {giver: names.index(to) for to, giver in trainer.order(round_, names).items()}
        of_model = torch.tensor([receiver[names[place]] for place in of_model.tolist()])
        if trainer.is_aggregation_due(round_):
            averages[round_] = _average(models)
    return averages


def through_rounds(nodes: NodesHere, trainer: DaisyChainTrainer, seed: int, rounds: int) -> dict[int, Params]:
    """The averages by round of an experiment on nodes."""
    experiment = Experiment(
        tags=TAGS,
        training_plan_class=Perceptron,
        training_args=training_args(seed),
        round_limit=rounds,
        trainer=trainer,
        requests=nodes.requests,
        show_progress=False,
    )
    nodes.play(experiment, rounds)
    return {round_: average["params"] for round_, average in experiment.aggregated_params().items()}


def accuracy(average: Params, test: Tensors) -> float:
    """Share of the test that a model has right."""
    inputs, labels = test
    found = _outputs({name: torch.as_tensor(value)[None] for name, value in average.items()}, inputs[None])[0].argmax(dim=1)
    return float((found == labels).double().mean())


def run(work: Path, seeds: Sequence[int]) -> tuple[list[Finding], dict[str, Any]]:
    """Daisy-chaining and averaging alone, mean over seeds; a seed fixes the first model and the chain.

    The published figures are of one run; here one test sample is 0.25 points, and seeds differ by about one point.

    Args:
        work: empty folder for the federation.
        seeds: of the runs in full; the first one is that of the short run, too.
    """
    shares, test = example()
    found: dict[str, list[float]] = {}
    for name, period in (("FedDC", 1), ("averaging alone", 0)):
        last = [stacked(DaisyChainTrainer(period, AVERAGED_EVERY, seed=seed), shares, seed)[ROUNDS - 1] for seed in seeds]
        found[name] = [accuracy(average, test) for average in last]
    gap = float(np.mean(found["FedDC"]) - np.mean(found["averaging alone"]))
    findings = [
        near("FedDC: accuracy", float(np.mean(found["FedDC"])), _CHAINED, 0.03, is_own_band=True),
        near("averaging alone: accuracy", float(np.mean(found["averaging alone"])), _AVERAGED, 0.03, is_own_band=True),
        Finding(name="FedDC above averaging alone", found=gap, low=0.04, published=_CHAINED - _AVERAGED, is_own_band=True),
    ]
    short, more = _short(work, shares, test, seeds[0])
    return findings + short, {**found, **more}


def _short(work: Path, shares: Tensors, test: Tensors, seed: int) -> tuple[list[Finding], dict[str, Any]]:
    """The same experiment over fewer rounds, through nodes and stacked."""
    accuracies, apart = {}, 0.0
    with nodes_here(work / "federation", written(work / "data", shares)) as nodes:
        for name, period in (("FedDC", 1), ("averaging alone", 0)):
            trainers = [DaisyChainTrainer(period, SHORT_AVERAGED_EVERY, seed=seed) for _ in range(2)]
            real = through_rounds(nodes, trainers[0], seed, SHORT_ROUNDS)
            beside = stacked(trainers[1], shares, seed, SHORT_ROUNDS)
            apart = max(apart, *(largest_gap(real[round_], average) for round_, average in beside.items()))
            accuracies[name] = accuracy(real[SHORT_ROUNDS - 1], test)
        count = nodes.rounds.count
    title = f"{SHORT_ROUNDS} rounds by nodes"
    findings = [
        Finding(
            name=f"{title}: FedDC above averaging", found=accuracies["FedDC"] - accuracies["averaging alone"], low=0.0, is_own_band=True
        ),
        Finding(name="nodes against stacked tensors, largest gap", found=apart, high=1e-9, is_own_band=True),
    ]
    form = (
        f"{ROUNDS} rounds averaged every {AVERAGED_EVERY}, with which the published figures are compared, in stacked tensors; through "
        f"`Experiment`, `Node` and `Round` the same {NODES} nodes for {SHORT_ROUNDS} rounds averaged every {SHORT_AVERAGED_EVERY}, "
        "whose averages are those of the stacked form"
    )
    return findings, {"short run through `Round`": accuracies, "node rounds": count, "form": form}


def written(folder: Path, shares: Tensors) -> dict[str, Path]:
    """A folder of each node's samples."""
    folders = {name: folder / name for name in _NAMES[: len(shares[0])]}
    for path, inputs, labels in zip(folders.values(), *shares, strict=True):
        path.mkdir(parents=True)
        np.save(path / "inputs.npy", inputs.numpy())
        np.save(path / "labels.npy", labels.numpy())
    return folders


def _first_models(seed: int, count: int) -> dict[str, torch.Tensor]:
    """The plan's first model for all nodes: name -> stacked parameters."""
    plan = Perceptron()
    plan.post_init({}, TrainingArgs(training_args(seed), only_required=False))
    return {name: value.expand(count, *value.shape).clone().requires_grad_() for name, value in plan.get_model_params().items()}


def _outputs(models: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    layers = [name.removesuffix(".weight") for name in models if name.endswith(".weight")]
    for i, layer in enumerate(layers):
        x = torch.baddbmm(models[f"{layer}.bias"][:, None], torch.relu(x) if i else x, models[f"{layer}.weight"].transpose(1, 2))
    return x


@torch.no_grad()
def _average(models: dict[str, torch.Tensor]) -> Params:
    """The mean of all models, from which they go on."""
    aggregator = FedAverage()
    aggregator.begin(0)
    for i in range(len(next(iter(models.values())))):
        aggregator.add(str(i), {name: value[i] for name, value in models.items()}, 1.0)
    average = aggregator.finish()
    for name, value in average.items():
        models[name].copy_(value.expand_as(models[name]))
    return average
