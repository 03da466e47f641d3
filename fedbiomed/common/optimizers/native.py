"""The optimizers that the plans' own libraries bring."""

from typing import Any


class NativeOptimizer:
    """Wraps the optimizer of a library.

    Args:
        optimizer: the native one; None where the model itself does the steps.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer


class NativeTorchOptimizer(NativeOptimizer):
    """Wraps a `torch.optim.Optimizer`; restarts in each round."""

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Change the parameters by their gradients."""
        self.optimizer.step()

    def learning_rates(self, model: Any) -> dict[str, float]:
        """Learning rate of each trainable parameter, by its name in the model."""
        rates = {id(parameter): group["lr"] for group in self.optimizer.param_groups for parameter in group["params"]}
        return {name: float(rates[id(p)]) for name, p in model.named_parameters() if id(p) in rates}


class NativeSkLearnOptimizer(NativeOptimizer):
    """Stands for the stochastic gradient descent inside a scikit-learn model."""

    def __init__(self) -> None:
        super().__init__(None)
