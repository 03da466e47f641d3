"""What a plan's `init_optimizer` returned, wrapped by its kind."""

import sys
from typing import Any

from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.models.model import Model
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.native import NativeSkLearnOptimizer, NativeTorchOptimizer

_OURS = "an Optimizer of fedbiomed.common.optimizers, or one of declearn"


def torch_optimizer(model: Model, given: Any) -> BaseOptimizer:
    """The wrapper for a torch plan.

    Raises:
        FedbiomedOptimizerError: it is no optimizer that a torch plan can use.
    """
    import torch  # heavy; a torch plan has loaded it

    if isinstance(given, torch.optim.Optimizer):
        return NativeTorchOptimizer(model, given)
    return _declearn_style(model, given, f"a torch optimizer, {_OURS}")


def sklearn_optimizer(model: Model, given: Any) -> BaseOptimizer:
    """The wrapper for a scikit-learn plan.

    Raises:
        FedbiomedOptimizerError: it is no optimizer that such a plan can use.
    """
    return NativeSkLearnOptimizer(model) if given is None else _declearn_style(model, given, f"None, {_OURS}")


def _declearn_style(model: Model, given: Any, allowed: str) -> BaseOptimizer:
    if "declearn.optimizer" in sys.modules:  # else it is none: declearn is heavy, and most plans do without it
        from fedbiomed.common.declearn_library import Optimizer as TheirOptimizer
        from fedbiomed.common.optimizers.declearn_optimizer import DeclearnOptimizer
        from fedbiomed.common.optimizers.optimizer import Optimizer

        if isinstance(given, Optimizer | TheirOptimizer):
            return DeclearnOptimizer(model, given)
    raise FedbiomedOptimizerError(f"FB605: init_optimizer() must return {allowed}, not {type(given).__name__}")
