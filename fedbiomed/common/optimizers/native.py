"""The optimizers that the plans' own libraries bring; they begin anew in each round."""

from contextlib import AbstractContextManager
from typing import Any

from fedbiomed.common.models.model import Model
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.sklearn_processing import SklearnOptimizerProcessing


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

    def learning_rates(self, model: Any) -> dict[str, float]:
        """See `BaseOptimizer`."""
        rates = {id(parameter): group["lr"] for group in self.optimizer.param_groups for parameter in group["params"]}
        return {name: float(rates[id(p)]) for name, p in model.named_parameters() if id(p) in rates}


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
