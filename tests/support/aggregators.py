"""All aggregators of the family, with settings that suit three nodes, and a round as the loop makes it."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from fedbiomed.common.constants import Phase
from fedbiomed.common.plugins import member_names
from fedbiomed.researcher import aggregators
from fedbiomed.researcher.aggregators import (
    APFL,
    MOON,
    MRMTL,
    Aggregator,
    ClientLevelDP,
    Ditto,
    DynamicLayers,
    FedAdagrad,
    FedAdam,
    FedAverage,
    FedAvgM,
    FedBN,
    FedDGGA,
    FedNova,
    FedPCA,
    FedPer,
    FedPM,
    FedProx,
    FedRep,
    FedYogi,
    Fenda,
    Flash,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    PerFCL,
    Scaffold,
    SparseExchange,
    TrimmedMean,
)


@dataclass(frozen=True)
class Case:
    """`is_mean`: in its first round equal updates give themselves; `takes_parts`: an update need not hold all names;
    `needs_extractors`: it is for a `FendaModel`; `suits_any_model`: the nodes' half asks for no special layers."""

    make: Callable[[], Aggregator]
    is_mean: bool = True
    takes_parts: bool = False
    needs_extractors: bool = False
    suits_any_model: bool = True


CASES = {
    FedBN: Case(FedBN),
    FedPer: Case(lambda: FedPer(["2"])),
    FedRep: Case(lambda: FedRep(["2"], 1)),
    Fenda: Case(Fenda, needs_extractors=True),
    PerFCL: Case(PerFCL, needs_extractors=True),
    DynamicLayers: Case(lambda: DynamicLayers(0.3), takes_parts=True),
    APFL: Case(lambda: APFL(0.4, 0.05)),
    Ditto: Case(lambda: Ditto(0.5)),
    ClientLevelDP: Case(lambda: ClientLevelDP(1e6, noise_multiplier=0.0, beta=0.7, adaptive_clipping=False)),
    FedAdagrad: Case(lambda: FedAdagrad(0.05, 0.5), is_mean=False),
    FedAdam: Case(lambda: FedAdam(0.03, initial_v=0.0), is_mean=False),
    FedAverage: Case(FedAverage),
    FedAvgM: Case(lambda: FedAvgM(beta=0.7)),
    FedDGGA: Case(lambda: FedDGGA(0.3, rounds=4)),
    FedNova: Case(lambda: FedNova(0.5)),
    FedPCA: Case(lambda: FedPCA("qr")),
    FedPM: Case(lambda: FedPM(3), suits_any_model=False),
    FedProx: Case(lambda: FedProx(0.2, adaptive=True, patience=1)),
    FedYogi: Case(lambda: FedYogi(tau=1e-2), is_mean=False),
    Flash: Case(lambda: Flash(0.2), is_mean=False),
    GeometricMedian: Case(lambda: GeometricMedian(6)),
    Krum: Case(lambda: Krum(0)),
    MOON: Case(lambda: MOON(layer="0")),
    MRMTL: Case(lambda: MRMTL(0.5)),
    Median: Case(Median),
    MultiKrum: Case(lambda: MultiKrum(0, keep=2)),
    Scaffold: Case(Scaffold),
    SparseExchange: Case(lambda: SparseExchange(0.4), takes_parts=True),
    TrimmedMean: Case(lambda: TrimmedMean(0.34)),
}


def family() -> set[type[Aggregator]]:
    """The classes that the files of the family define."""
    modules = [importlib.import_module(f"{aggregators.__name__}.{name}") for name in member_names(aggregators)]
    found = [c for module in modules for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return {c for c in found if issubclass(c, Aggregator) and not inspect.isabstract(c)}


def reply(params, steps=2):
    """What a node's reply tells beside its parameters."""
    return {"optimizer_args": {"lr": dict.fromkeys(params, 0.1), "num_updates": steps}, "told": {"training_loss": 1.5}}


def measures(nodes, round_=0):
    """Losses before and after training; the gap is another one for each node."""
    return {
        node_id: [
            {"phase": str(phase), "metric": "Loss", "value": 1 + place + 0.1 * (index + 1) ** 2 * round_}
            for place, phase in enumerate((Phase.TEST_GLOBAL, Phase.TEST_LOCAL))
        ]
        for index, node_id in enumerate(nodes)
    }


def begun(aggregator, start, node_ids, steps=None):
    """Begin a round as the loop does; every node answers that it made 2 steps, or so many."""
    aggregator.begin(0)
    aggregator.check_values(n_updates=2, training_plan=None)
    aggregator.create_aggregator_args(start, list(node_ids))
    for node_id in node_ids:
        aggregator.hear(node_id, reply(start, (steps or {}).get(node_id, 2)))


def folded(aggregator, start, updates, weights=None, *, steps=None, round_=0):
    """A round; all nodes count by 1, or by their weights."""
    begun(aggregator, start, updates, steps)
    for node_id, params in updates.items():
        aggregator.add(node_id, params, 1 if weights is None else weights[node_id])
    aggregator.hear_measures(measures(sorted(updates), round_))
    return aggregator.finish()
