"""Optimizers behind one face: those of the plans' libraries, and ours, which is made of declearn's modules.

The names load their libraries when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.base import BaseOptimizer
    from fedbiomed.common.optimizers.declearn_optimizer import DeclearnOptimizer
    from fedbiomed.common.optimizers.native import NativeSkLearnOptimizer, NativeTorchOptimizer
    from fedbiomed.common.optimizers.optimizer import Optimizer
    from fedbiomed.common.optimizers.sklearn_processing import SklearnOptimizerProcessing

_HOMES = {
    "BaseOptimizer": "base",
    "DeclearnOptimizer": "declearn_optimizer",
    "NativeSkLearnOptimizer": "native",
    "NativeTorchOptimizer": "native",
    "Optimizer": "optimizer",
    "SklearnOptimizerProcessing": "sklearn_processing",
}

__all__ = [
    "BaseOptimizer",
    "DeclearnOptimizer",
    "NativeSkLearnOptimizer",
    "NativeTorchOptimizer",
    "Optimizer",
    "SklearnOptimizerProcessing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
