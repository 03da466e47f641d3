"""A training plan's optimizer that is made of declearn's modules."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from fedbiomed.common import declearn_library as declearn
from fedbiomed.common.declearn_library import Vector
from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.models.model import Model
from fedbiomed.common.optimizers import aux_values
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.optimizers.sklearn_processing import SklearnOptimizerProcessing


class DeclearnOptimizer(BaseOptimizer):
    """Wraps an `Optimizer`; the steps are done on the trainable parameters, whose gradient counts as zero where there is none.

    Args:
        model: the plan's.
        optimizer: ours, or one of declearn, which is converted.

    Raises:
        FedbiomedOptimizerError: it is neither.
    """

    optimizer: Optimizer

    def __init__(self, model: Model, optimizer: Any) -> None:
        super().__init__(model, as_optimizer(optimizer))

    def init_training(self) -> None:
        """See `BaseOptimizer`; states of the round before go where the model is."""
        self.optimizer.init_round()
        places = {name: getattr(value, "device", "cpu") for name, value in self._model.get_gradients().items()}
        if any(str(place) != "cpu" for place in places.values()):
            self.optimizer.map_vectors(lambda vector: _placed(vector, places))

    def step(self) -> None:
        """See `BaseOptimizer`."""
        gradients = _vector(self._model.get_gradients())
        weights = _vector(self._model.trainable_copies()) if self.optimizer.needs_weights else None
        self._model.apply_updates(self.optimizer.step(gradients, weights).coefs)

    def learning_rates(self, model: Any) -> dict[str, float]:
        """See `BaseOptimizer`: one for all."""
        return dict.fromkeys(self._model.get_gradients(), self.optimizer.lr)

    def optimizer_processing(self) -> AbstractContextManager[Any]:
        """See `BaseOptimizer`."""
        return SklearnOptimizerProcessing(self._model, is_declearn_optimizer=True)

    def get_aux(self) -> dict[str, dict[str, Any]]:
        """See `BaseOptimizer`."""
        return self.optimizer.get_aux()

    def set_aux(self, aux: Mapping[str, Any]) -> None:
        """See `BaseOptimizer`."""
        self.optimizer.set_aux(aux)

    def get_state(self) -> dict[str, Any]:
        """See `BaseOptimizer`."""
        return self.optimizer.get_state()

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """See `BaseOptimizer`; each module's state by position and name."""
        before = self.optimizer.get_state()
        anew = self.optimizer.restore(state)
        needed = aux_values.shapes(_vector(self._model.trainable_copies()))
        for vector in self.optimizer.vectors():
            if aux_values.shapes(vector) != needed:
                self.optimizer.restore(before)
                raise FedbiomedOptimizerError(
                    f"FB621: the state belongs to parameters {aux_values.shapes(vector)!s:.300}, the model has {needed!s:.300}"
                )
        return anew


def as_optimizer(given: Any) -> Optimizer:
    """An optimizer of ours as it is, one of declearn converted.

    Raises:
        FedbiomedOptimizerError: it is neither.
    """
    if isinstance(given, Optimizer):
        return given
    if isinstance(given, declearn.Optimizer):
        return Optimizer.from_declearn_optimizer(given)
    raise FedbiomedOptimizerError(
        f"FB621: a fedbiomed.common.optimizers.Optimizer or a declearn.optimizer.Optimizer is wanted, not a {type(given).__name__}"
    )


def _vector(values: dict[str, Any]) -> Vector[Any]:
    if not values:
        raise FedbiomedOptimizerError("FB621: the model has no trainable parameter")
    return Vector.build(values)


def _placed(vector: Vector[Any], places: Mapping[str, Any]) -> Vector[Any]:
    return Vector.build({name: coef.to(places[name]) if name in places else coef for name, coef in vector.coefs.items()})
