"""The synthetic data of FedProx (Li et al., MLSys 2020, arXiv:1812.06127): unlike devices, partial work, and what the proximal term is for.

Published are curves over 200 rounds. So many rounds of real nodes would take a quarter of an hour, so local steps are worked out in
stacked arrays, for all variants of the algorithm at once. That real nodes do the same is shown in each run: the first rounds of the first
seed go through `Experiment`, `Node` and `Round`, too, and must give the same parameters after every round. There a strategy draws devices
and stragglers, and the aggregators are `FedAverage` and `FedProx`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published.findings import Finding
from benchmarks.published.nodes_here import TAGS, NodesHere, nodes_here
from benchmarks.published.synthetic_devices import (
    ALIKE,
    DEVICES,
    RATE,
    UNLIKE,
    Array,
    Asked,
    Device,
    Softmax,
    Variant,
    asked,
    tested,
    training_of,
    with_ones,
)
from benchmarks.published.synthetic_steps import stacked
from fedbiomed.common.data.synthetic import fedprox_synthetic
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.aggregators.fedprox import FedProx
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies.model_merge import with_configs
from fedbiomed.researcher.strategies.strategy import Strategy, TrainingData

ROUNDS, LAST, SHORT_ROUNDS = 200, 50, 40


class SomeDevices(Strategy):
    """Asks some devices in each round, a share of which has not the time for all epochs.

    Args:
        data: the nodes; an experiment tells them.
        seed: of all draws.
        variant: how many are stragglers, and whether what they did counts.
    """

    def __init__(self, data: TrainingData | None = None, *, seed: int = 0, variant: Variant = UNLIKE["mu 0"]) -> None:
        super().__init__(data)
        self._seed, self._variant = seed, variant
        self._asked: dict[str, Asked] = {}

    def sample_nodes(self, round_i: int) -> list[str]:
        """See `Strategy`."""
        self._asked = {node_of(part.device): part for part in asked(self._seed, round_i, self._variant.stragglers)}
        return list(self._asked)

    def configure(self, round_i: int, args: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """See `Strategy`; each device is told how many epochs it has time for."""
        return with_configs(args, {node_id: {"draw": part.draw, "epochs": part.epochs} for node_id, part in self._asked.items()})

    def accept(self, reply: Mapping[str, Any]) -> float | str:
        """See `Strategy`."""
        if self._asked[str(reply["node_id"])].is_slow and not self._variant.keeps_partial:
            return "a straggler"
        return super().accept(reply)

    def check_round(self, round_i: int, sampled: Sequence[str], answered: Sequence[str], failures: Mapping[str, str]) -> None:
        """See `Strategy`; who was not dropped must have answered."""
        wanted = [node_id for node_id in sampled if self._variant.keeps_partial or not self._asked[node_id].is_slow]
        self._require(round_i, wanted, answered, failures, needed=len(wanted))


def node_of(device: int) -> str:
    """The id of a device's node."""
    return f"device_{device:02d}"


def through_rounds(nodes: NodesHere, variant: Variant, seed: int, rounds: int) -> Array:
    """Parameters after each round of an experiment on nodes, `(rounds, inputs + 1, classes)`, the bias in the last row."""
    aggregator: Aggregator = FedProx(variant.mu) if variant.mu else FedAverage()
    experiment = Experiment(
        tags=TAGS,
        aggregator=aggregator,
        node_selection_strategy=SomeDevices(seed=seed, variant=variant),
        training_plan_class=Softmax,
        training_args={"epochs": 1, "log_interval": 10**6, "optimizer_args": {"lr": RATE}},
        requests=nodes.requests,
        show_progress=False,
    )
    nodes.play(experiment, rounds)
    found = [params["params"] for _, params in sorted(experiment.aggregated_params().items())]
    return np.array([np.vstack([np.asarray(params["weight"]).T, np.asarray(params["bias"])]) for params in found])


def accuracies(params: Array, test: Device) -> Array:
    """Percent right of parameters `(..., inputs + 1, classes)`."""
    inputs, labels = test
    right: Array = 100 * ((with_ones(inputs) @ params).argmax(axis=-1) == labels).mean(axis=-1)
    return right


def run(work: Path, seeds: Sequence[int], rounds: int = ROUNDS, short: int = SHORT_ROUNDS) -> tuple[list[Finding], dict[str, Any]]:
    """Unlike devices, alpha = beta = 1, and devices that are alike; the paper publishes curves, so an order is judged.

    Judged are means over seeds: another seed gives other devices, which differ by a few points in what the proximal term gains.

    Args:
        work: empty folder for the federations.
        seeds: of devices and draws; the first one is that of the nodes.
        rounds: of unlike devices; of those that are alike, of which it is judged who is faster, a tenth of it.
        short: how many of them go through nodes, too; at most a tenth of `rounds` of the devices that are alike.
    """
    far = _Curves("unlike", [fedprox_synthetic(1, 1, seed=seed) for seed in seeds], UNLIKE, seeds, rounds)
    near = _Curves("alike", [fedprox_synthetic(iid=True, seed=seed) for seed in seeds], ALIKE, seeds, max(1, rounds // 10))
    last, early = min(LAST, max(1, rounds // 2)), min(short, near.rounds)
    real_far, real_near = far.through_rounds(work, short), near.through_rounds(work, early)
    apart = max(real_far.apart, real_near.apart)
    whole, part = far.ends(far.found, last), far.ends([real_far.accuracies], max(1, short // 2))
    ends, starts = near.ends(near.found, near.rounds), near.ends([real_near.accuracies], early)
    form = (
        f"{rounds} rounds in stacked arrays; of the devices of seed {seeds[0]} {short} rounds of all variants, and {early} of devices that "
        "are alike, through `Experiment`, `Node` and `Round`: they give the same parameters after each round and are judged by order only; "
        f"{real_far.devices} of {DEVICES} devices took part"
    )
    findings = [
        *_judged("", whole, least=2.0),
        _faster_alike("", ends),
        *_judged(f"{short} rounds by nodes: ", part, least=0.0),
        _faster_alike(f"{early} rounds by nodes: ", starts),
        Finding(name="nodes against stacked arrays, largest gap", found=apart, high=1e-9, is_own_band=True),
    ]
    return findings, {
        f"accuracy of (1,1), last {last} rounds, %": whole,
        "by seed": {str(seed): far.ends([curve], last) for seed, curve in zip(seeds, far.found, strict=True)},
        f"accuracy of iid, first {near.rounds} rounds, %": ends,
        f"accuracy of (1,1) through `Round`, last {max(1, short // 2)} of {short} rounds, %": part,
        f"accuracy of iid through `Round`, first {early} rounds, %": starts,
        "node rounds": real_far.count + real_near.count,
        "form": form,
    }


@dataclass(frozen=True)
class _Real:
    """What nodes gave.

    Args:
        accuracies: percent, `(rounds, variants)`.
        apart: how far their parameters are from those of stacked arrays.
        count: how often one trained.
        devices: how many took part.
    """

    accuracies: Array
    apart: float
    count: int
    devices: int


class _Curves:
    """Some variants on sets of devices, one set for each seed, in stacked arrays; the first set through nodes, too."""

    def __init__(
        self, name: str, sets: Sequence[Sequence[Device]], variants: Mapping[str, Variant], seeds: Sequence[int], rounds: int
    ) -> None:
        self._name, self._sets, self._variants, self._seed, self.rounds = name, sets, variants, seeds[0], rounds
        params = [stacked(devices, list(variants.values()), seed, rounds) for devices, seed in zip(sets, seeds, strict=True)]
        self._first = params[0]
        self.found = [accuracies(one, tested(devices)) for one, devices in zip(params, sets, strict=True)]

    def through_rounds(self, work: Path, rounds: int) -> _Real:
        """The first rounds of the first set."""
        devices, seen = self._sets[0], {part.device for round_ in range(rounds) for part in asked(self._seed, round_, 0.0)}
        with nodes_here(work / self._name, written(work / f"data-{self._name}", devices)) as nodes:
            params = np.stack([through_rounds(nodes, variant, self._seed, rounds) for variant in self._variants.values()], axis=1)
            count = nodes.rounds.count
        apart = float(np.abs(params - self._first[:rounds]).max())
        return _Real(accuracies(params, tested(devices)), apart, count, len(seen))

    def ends(self, found: Sequence[Array], last: int) -> dict[str, float]:
        """Mean accuracy of the last rounds by variant."""
        means = np.mean([curve[-last:] for curve in found], axis=(0, 1))
        return dict(zip(self._variants, means.round(3).tolist(), strict=True))


def written(folder: Path, devices: Sequence[Device]) -> dict[str, Path]:
    """A folder of each device's training samples."""
    folders = {node_of(number): folder / node_of(number) for number in range(len(devices))}
    for path, (inputs, labels) in zip(folders.values(), map(training_of, devices), strict=True):
        path.mkdir(parents=True)
        np.save(path / "inputs.npy", inputs)
        np.save(path / "labels.npy", labels)
    return folders


def _judged(what: str, found: Mapping[str, float], least: float) -> list[Finding]:
    """The order of the methods on unlike devices; `least` is by how many points mu 1 must be above mu 0, which is told of the end only."""
    dropped, kept = found["mu 0, 90 % stragglers dropped"], found["mu 0, 90 % stragglers kept"]
    gains = {"mu 1 above mu 0": found["mu 1"] - found["mu 0"], "same with stragglers": found["mu 1, 90 % stragglers kept"] - kept}
    return [
        *(Finding(name=f"{what}(1,1), {name}", found=gain, low=least, is_own_band=True) for name, gain in gains.items()),
        Finding(name=f"{what}(1,1), partial work gains", found=kept - dropped, low=0.0),
    ]


def _faster_alike(what: str, found: Mapping[str, float]) -> Finding:
    return Finding(name=f"{what}iid, mu 0 above mu 1 early", found=found["mu 0"] - found["mu 1"], low=0.0)
