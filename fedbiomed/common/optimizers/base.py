"""What a training plan asks of its optimizer, whatever its library."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.models.model import Model
from fedbiomed.common.optimizers.travelling import require_finite


class BaseOptimizer(ABC):
    """Wraps an optimizer and the model whose parameters it changes.

    Args:
        model: the plan's.
        optimizer: the native one; None where the model itself does the steps.
    """

    def __init__(self, model: Model, optimizer: Any) -> None:
        self._model = model
        self.optimizer = optimizer

    def init_training(self) -> None:  # noqa: B027  nothing to do is a fair answer
        """Begin the training of a round, the model being where it will be trained."""

    def zero_grad(self) -> None:
        """Forget gradients."""
        self._model.zero_gradients()

    @abstractmethod
    def step(self) -> None:
        """Change the parameters by their gradients."""

    @abstractmethod
    def learning_rates(self, model: Any) -> dict[str, float]:
        """Learning rate of each trainable parameter, by its name in the native model."""

    def optimizer_processing(self) -> AbstractContextManager[Any]:
        """A block within which the model is trained by this optimizer."""
        return nullcontext()

    def get_aux(self) -> dict[str, dict[str, Any]]:
        """Auxiliary variables for the researcher, by module; none here."""
        return {}

    def set_aux(self, aux: Mapping[str, Any]) -> None:
        """Take auxiliary variables of the researcher's optimizer over.

        Raises:
            FedbiomedOptimizerError: there is nothing here that takes them, or they are malformed.
        """
        if aux:
            raise FedbiomedOptimizerError(
                f"FB621: the researcher's optimizer sent auxiliary variables for {', '.join(aux)}, the plan's optimizer "
                f"({type(self.optimizer).__name__}) takes none: let init_optimizer() return an Optimizer with the matching module"
            )

    def get_state(self) -> dict[str, Any] | None:
        """What is kept for the next round; None here: it begins anew in each."""
        return None

    def travelling_state(self) -> dict[str, Any] | None:
        """What goes with the model to another node: what it remembers of its steps; None: nothing."""
        return self.get_state()

    def take_travelling_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `travelling_state` gave elsewhere; settings, such as the learning rate, stay as they are here.

        Raises:
            FedbiomedOptimizerError: it does not fit; everything is as before.
        """
        require_finite(state, "the optimizer's state")
        before = self.get_state()
        anew = self.restore(state)
        if anew:
            self.restore(before or {})
            raise FedbiomedOptimizerError(f"FB621: the optimizer's state has nothing for {', '.join(anew)}")

    def check_travelling_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state would be taken; everything stays as it is.

        Raises:
            FedbiomedOptimizerError: it does not fit.
        """
        before = self.get_state()
        self.take_travelling_state(state)
        self.restore(before or {})

    def begin_anew(self, fresh: "BaseOptimizer") -> None:
        """Forget all steps.

        Args:
            fresh: another optimizer of this kind and these settings, which has made no step.
        """
        state = fresh.get_state()
        if state is not None:
            self.restore(state)

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """Take over what `get_state` gave in the round before.

        Returns:
            What begins anew all the same, in words.

        Raises:
            FedbiomedOptimizerError: it does not fit; everything is as before.
        """
        raise FedbiomedOptimizerError(f"FB621: a {type(self).__name__} keeps no state")
