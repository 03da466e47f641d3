"""All trainers of the family, with what an experiment over three nodes gets beside them."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fedbiomed.common.plugins import member_names
from fedbiomed.researcher import events
from fedbiomed.researcher.events import CyclicWeightTransfer, DaisyChainTrainer, MergeTrainer, ModelTrainer, SWAGTrainer
from fedbiomed.researcher.strategies import CyclicOrder

Case = Callable[[], Mapping[str, Any]]

CASES: Mapping[type[ModelTrainer], Mapping[str, Case]] = {
    ModelTrainer: {"": lambda: {"trainer": ModelTrainer()}},
    SWAGTrainer: {"": lambda: {"trainer": SWAGTrainer(max_rank=2)}},
    DaisyChainTrainer: {
        "amid": lambda: {"trainer": DaisyChainTrainer(1, 3, seed=4, with_optimizer=True), "round_limit": 3},
        "average": lambda: {"trainer": DaisyChainTrainer(1, 1, seed=4, with_optimizer=False)},
    },
    CyclicWeightTransfer: {
        "": lambda: {"trainer": CyclicWeightTransfer(with_optimizer=True), "node_selection_strategy": CyclicOrder(seed=4)},
    },
    MergeTrainer: {"": lambda: {"trainer": MergeTrainer()}},
}


def family() -> set[type[ModelTrainer]]:
    """The trainers that the files of the family define."""
    modules = [importlib.import_module(f"{events.__name__}.{name}") for name in member_names(events)]
    found = [c for module in modules for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return {c for c in found if issubclass(c, ModelTrainer) and not inspect.isabstract(c)}
