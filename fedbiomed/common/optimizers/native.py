"""The optimizers that the plans' own libraries bring; they begin anew in each round."""

import copy
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from fedbiomed.common.checkpointing.snapshot import copied
from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.models.model import Model
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.sklearn_processing import SklearnOptimizerProcessing
from fedbiomed.common.optimizers.travelling import require_finite


class NativeTorchOptimizer(BaseOptimizer):
    """Wraps a `torch.optim.Optimizer`."""

    def init_training(self) -> None:
        """See `BaseOptimizer`; a state that was restored goes where the model is."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.optimizer.state and any(parameter.device.type != "cpu" for parameter in parameters):
            self.optimizer.load_state_dict(self.optimizer.state_dict())  # torch moves what it loads to the parameters

    def zero_grad(self) -> None:
        """See `BaseOptimizer`."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """See `BaseOptimizer`."""
        self.optimizer.step()

    def travelling_state(self) -> dict[str, Any] | None:
        """See `BaseOptimizer`; parameters are known by their number, as torch counts them."""
        state = copied(self.optimizer.state_dict()["state"], "optimizer")
        return {"optimizer": type(self.optimizer).__name__, "shapes": self._shapes(), "state": state} if state else None

    def check_travelling_state(self, state: Mapping[str, Any]) -> None:
        """See `BaseOptimizer`; of torch's own optimizers a copy makes a step from it, for which moments are there depends on the kind."""
        self._require_fits(state)
        if not type(self.optimizer).__module__.startswith("torch.optim"):
            return
        trial = copy.deepcopy(self.optimizer)
        for parameter in (parameter for group in trial.param_groups for parameter in group["params"]):
            parameter.grad = parameter.detach().clone().zero_()
        try:
            _put(trial, copied(state["state"], "optimizer"))
            trial.step()
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise FedbiomedOptimizerError(
                f"FB621: a {type(self.optimizer).__name__} can make no step from the state: {type(error).__name__}: {error!s:.200}"
            ) from error

    def _require_fits(self, state: Mapping[str, Any]) -> None:
        kind, shapes = type(self.optimizer).__name__, self._shapes()
        if not isinstance(state.get("state"), Mapping) or state.get("optimizer") != kind or state.get("shapes") != shapes:
            raise FedbiomedOptimizerError(
                f"FB621: the state is that of a {state.get('optimizer')!s:.40} of parameters {state.get('shapes')!s:.200}, the plan has a "
                f"{kind} of {shapes!s:.200}"
            )
        require_finite(state["state"], "the optimizer's state")
        for number, entry in state["state"].items():
            if type(number) is not int or not 0 <= number < len(shapes) or not isinstance(entry, Mapping):
                raise FedbiomedOptimizerError(f"FB621: the state has an entry {number!r:.40}, the plan has {len(shapes)} parameters")
            wrong = [name for name, value in entry.items() if not _fits(value, shapes[number])]
            if wrong:
                raise FedbiomedOptimizerError(
                    f"FB621: {', '.join(map(str, wrong))[:200]} of parameter {number} does not fit to its shape {shapes[number]}"
                )

    def take_travelling_state(self, state: Mapping[str, Any]) -> None:
        """See `BaseOptimizer`."""
        self._require_fits(state)
        _put(self.optimizer, copied(state["state"], "optimizer"))

    def begin_anew(self, fresh: BaseOptimizer) -> None:
        """See `BaseOptimizer`."""
        _put(self.optimizer, fresh.optimizer.state_dict()["state"])

    def _shapes(self) -> list[list[int]]:
        return [list(parameter.shape) for group in self.optimizer.param_groups for parameter in group["params"]]

    def learning_rates(self, model: Any) -> dict[str, float]:
        """See `BaseOptimizer`."""
        rates = {id(parameter): group["lr"] for group in self.optimizer.param_groups for parameter in group["params"]}
        return {name: float(rates[id(p)]) for name, p in model.named_parameters() if id(p) in rates}


def _put(optimizer: Any, state: dict[int, Any]) -> None:
    """Give a torch optimizer the moments of its parameters; its settings stay."""
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fits(value: Any, shape: list[int]) -> bool:
    """Whether a value may be a moment of a parameter: an array of its shape, with axes that are summed over, or one number."""
    if not hasattr(value, "shape"):
        return value is None or isinstance(value, bool | int | float)
    found = list(value.shape)
    return math.prod(found) == 1 or (len(found) == len(shape) and all(own in (1, wanted) for own, wanted in zip(found, shape, strict=True)))


class NativeSkLearnOptimizer(BaseOptimizer):
    """Stands for the stochastic gradient descent inside a scikit-learn model, which does the steps."""

    def __init__(self, model: Model, optimizer: None = None) -> None:
        super().__init__(model, optimizer)

    def step(self) -> None:
        """Nothing: the model has done it."""

    def learning_rates(self, model: Any) -> dict[str, float]:
        """None: scikit-learn's rates change from sample to sample."""
        return {}

    def optimizer_processing(self) -> AbstractContextManager[Any]:
        """See `BaseOptimizer`."""
        return SklearnOptimizerProcessing(self._model, is_declearn_optimizer=False)
