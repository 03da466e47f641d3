"""scikit-learn's linear models of stochastic gradient descent as models of a training plan."""

import pickle
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedbiomed.common.exceptions import FedbiomedModelError, FedbiomedTrainingError
from fedbiomed.common.models.model import Model
from fedbiomed.common.models.sgd_step import LinearWeights, SGDRule, is_known, mean_step
from fedbiomed.common.params import Params

_Array = np.ndarray[Any, Any]
_NAMES = ("intercept_", "coef_")
_UNIT_RATE: Mapping[str, Any] = {"learning_rate": "constant", "eta0": 1.0}
_BROKEN_FILE = (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError, zlib.error)


class SkLearnModel(Model):
    """A linear model with `intercept_` and `coef_`, which start at zero.

    Args:
        estimator: not fitted; hyper-parameters are set.
        n_features: columns of the inputs.
        outputs: how many linear functions: 1, or one per class beyond two classes.

    Raises:
        FedbiomedModelError: scikit-learn refuses a hyper-parameter, or it does not go with federated training.
    """

    def __init__(self, estimator: Any, n_features: int, outputs: int) -> None:
        self._estimator = estimator
        self._n_features = n_features
        self._outputs = outputs
        self._rule = self._checked_rule()
        self._gradients: Params = {}
        self._make_ready()

    @property
    def model(self) -> Any:
        """The estimator."""
        return self._estimator

    @property
    def loss_name(self) -> str:
        """Which loss is minimised, under scikit-learn's name."""
        return self._rule.loss

    def get_weights(self, only_trainable: bool = False) -> Params:  # by position in the public signature
        """Copies of `intercept_` and `coef_`, float64; both are trainable."""
        return {name: np.array(getattr(self._estimator, name)) for name in _NAMES}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Take `intercept_` and `coef_` over.

        Raises:
            FedbiomedModelError: one is missing, no array of numbers, or has another shape than the model's; or it is no mapping.
        """
        if not isinstance(weights, Mapping) or set(weights) != set(_NAMES):
            found = sorted(map(str, weights)) if isinstance(weights, Mapping) else f"a {type(weights).__name__}"
            raise FedbiomedModelError(f"the parameters of this model are {', '.join(_NAMES)}, found {found}")
        arrays = {name: _as_array(name, weights[name]) for name in _NAMES}
        for name, array in arrays.items():
            needed = getattr(self._estimator, name).shape
            if array.shape != needed:
                raise FedbiomedModelError(f"parameter {name!r} has the shape {array.shape}, the plan's model needs {needed}")
        for name, array in arrays.items():
            setattr(self._estimator, name, array)

    def train(self, inputs: _Array, targets: _Array) -> float:
        """Learn from one batch: the mean of the steps that its samples make one by one from the weights at its start.

        Args:
            inputs: `(n, n_features)`.
            targets: `(n,)` or `(n, 1)`; classes as integers from 0.

        Returns:
            The loss before the step, without penalty: mean over samples, and over the classes' functions if there are several.

        Raises:
            FedbiomedTrainingError: shapes do not fit, a label is not one of the classes, or a weight is no longer a finite number.
        """
        new, loss = self._mean_step(inputs, targets)
        self._estimator.coef_ = new.coef.reshape(self._estimator.coef_.shape)
        self._estimator.intercept_ = new.intercept
        return loss

    def loss_on(self, inputs: _Array, targets: _Array) -> float:
        """The loss on a batch as `train` gives it; nothing is learned.

        Raises:
            FedbiomedTrainingError: as `train`.
        """
        steps = self._estimator.t_
        try:
            return self._mean_step(inputs, targets)[1]
        finally:
            self._estimator.t_ = steps

    @property
    def steps(self) -> float:
        """Samples trained on, from 1, by which scikit-learn's learning rates fall; may be set."""
        return float(self._estimator.t_)

    @steps.setter
    def steps(self, steps: float) -> None:
        self._estimator.t_ = steps

    def compute_gradients(self, inputs: _Array, targets: _Array) -> float:
        """As `train`, but the weights stay as they are: the mean step, negated, is kept as the gradient of this batch.

        It is the gradient of loss and penalty where the learning rate is 1, see `unit_rate`.
        """
        new, loss = self._mean_step(inputs, targets)
        start = self.get_weights()
        self._gradients = {
            "intercept_": start["intercept_"] - new.intercept,
            "coef_": start["coef_"] - new.coef.reshape(start["coef_"].shape),
        }
        return loss

    def _mean_step(self, inputs: _Array, targets: _Array) -> tuple[LinearWeights, float]:
        rows = np.asarray(inputs, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise FedbiomedTrainingError(f"a batch has the shape {rows.shape}, n_features says (n, {self._n_features})")
        labels = np.asarray(targets)
        if labels.size != len(rows):
            raise FedbiomedTrainingError(
                f"{len(rows)} samples have targets of the shape {labels.shape}: this model learns one number or class of each, (n,)"
            )
        coded, importance = self._coded(labels.reshape(-1))
        start = LinearWeights(self._estimator.coef_.reshape(self._outputs, -1), self._estimator.intercept_)
        new, loss = mean_step(self._rule, start, rows, coded, importance=importance, step=self._estimator.t_)
        if not (np.isfinite(new.coef).all() and np.isfinite(new.intercept).all()):
            raise FedbiomedTrainingError("a weight is no longer a finite number: the data hold NaN or too large values; scale them")
        self._estimator.t_ += len(rows)
        return new, loss

    def predict(self, inputs: _Array) -> _Array:
        """What scikit-learn predicts for a batch, `(n,)`."""
        predicted: _Array = self._estimator.predict(np.asarray(inputs, dtype=np.float64))
        return predicted

    def zero_gradients(self) -> None:
        """See `Model`."""
        self._gradients = {}

    def get_gradients(self) -> Params:
        """See `Model`: those of the last `compute_gradients`."""
        return {**{name: np.zeros_like(getattr(self._estimator, name)) for name in _NAMES}, **self._gradients}

    def trainable_copies(self) -> Params:
        """See `Model`: all of them."""
        return self.get_weights()

    def apply_updates(self, updates: Mapping[str, Any]) -> None:
        """See `Model`.

        Raises:
            FedbiomedTrainingError: a weight is no longer a finite number.
        """
        for name, update in updates.items():
            if name not in _NAMES or getattr(self._estimator, name).shape != update.shape:
                raise FedbiomedModelError(f"an update of {name!r} with the shape {update.shape} fits to no parameter")
            if not np.isfinite(update).all():
                raise FedbiomedTrainingError(f"an update of {name!r} is no longer finite: lower the learning rate, scale the data")
        for name, update in updates.items():
            setattr(self._estimator, name, getattr(self._estimator, name) + update)

    @contextmanager
    def unit_rate(self) -> Iterator[dict[str, tuple[Any, Any]]]:
        """Within the block the estimator's own learning rate is the constant 1; afterwards its hyper-parameters are as before.

        Gives those that were changed: value before and within the block.
        """
        before, rule = self._estimator.get_params(), self._rule
        try:
            self._estimator.set_params(**_UNIT_RATE)
            self._rule = self._checked_rule()
            yield {name: (before[name], value) for name, value in _UNIT_RATE.items() if before[name] != value}
        finally:
            self._estimator.set_params(**{name: before[name] for name in _UNIT_RATE})
            self._rule = rule

    def export(self, filename: str | Path) -> None:
        """Write the estimator with joblib.

        Raises:
            OSError: the file cannot be written.
        """
        joblib.dump(self._estimator, filename)

    def reload(self, filename: str | Path) -> None:
        """Take weights and number of steps of an estimator that `export` wrote for the same kind of model, and not its options.

        Unsafe on foreign files: joblib runs whatever such a file says. What comes from other machines goes through the Serializer.

        Raises:
            FedbiomedModelError: the file holds something else.
            OSError: the file cannot be read.
        """
        try:
            found = joblib.load(filename)
        except _BROKEN_FILE as error:
            raise FedbiomedModelError(f"{filename} is no file that export_model wrote: {type(error).__name__}: {error}") from error
        if type(found) is not type(self._estimator):
            raise FedbiomedModelError(f"{filename} holds a {type(found).__name__}, the plan's model is a {type(self._estimator).__name__}")
        self.set_weights({name: getattr(found, name, None) for name in _NAMES})
        self._estimator.t_ = found.t_

    @abstractmethod
    def _coded(self, labels: _Array) -> tuple[_Array, _Array]:
        """Targets as the step needs them, and how much each counts, both `(n, outputs)`."""

    def _first_fit(self, rows: _Array) -> None:
        self._estimator.partial_fit(rows, np.zeros(len(rows)))

    def _checked_rule(self) -> SGDRule:
        found = self._estimator.get_params()
        if found["average"]:
            raise FedbiomedModelError("`average` keeps a second set of weights that does not travel; leave it out of model_args")
        return SGDRule(**{field.name: found[field.name] for field in fields(SGDRule)})

    def _make_ready(self) -> None:
        """Let scikit-learn check the hyper-parameters and set its attributes on rows of zeros, then start from zero weights."""
        verbose = self._estimator.verbose
        try:
            self._estimator.set_params(verbose=0)
            self._first_fit(np.zeros((1, self._n_features)))
            self._estimator.set_params(verbose=verbose)
        except (ValueError, TypeError) as error:
            raise FedbiomedModelError(f"model_args are refused by {type(self._estimator).__name__}: {error}") from error
        if not is_known(self._rule):
            raise FedbiomedModelError(
                f"loss {self._rule.loss!r}, penalty {self._rule.penalty!r}, learning_rate {self._rule.learning_rate!r} are not supported"
            )
        self._estimator.coef_ = np.zeros_like(self._estimator.coef_, dtype=np.float64)
        self._estimator.intercept_ = np.zeros_like(self._estimator.intercept_, dtype=np.float64)
        self._estimator.t_ = 1.0
        self._estimator.n_iter_ = 1


class SGDRegressorModel(SkLearnModel):
    """An `SGDRegressor`: `intercept_` `(1,)`, `coef_` `(n_features,)`."""

    def __init__(self, estimator: SGDRegressor, n_features: int) -> None:
        super().__init__(estimator, n_features, outputs=1)

    def _coded(self, labels: _Array) -> tuple[_Array, _Array]:
        numbers = labels.astype(np.float64).reshape(-1, 1)
        return numbers, np.ones_like(numbers)


class SGDClassifierModel(SkLearnModel):
    """An `SGDClassifier` of classes 0 to k-1: one function for two classes, else one per class against all others.

    Raises:
        FedbiomedModelError: as `SkLearnModel`, or `class_weight` weighs what is none of these classes.
    """

    def __init__(self, estimator: SGDClassifier, n_features: int, n_classes: int) -> None:
        self._n_classes = n_classes
        self._classes = np.arange(n_classes)
        self._weights: _Array = np.ones(n_classes)
        super().__init__(estimator, n_features, outputs=1 if n_classes == 2 else n_classes)
        for label, weight in (estimator.class_weight or {}).items():
            if label not in self._classes:
                raise FedbiomedModelError(f"class_weight weighs the class {label!r:.40}, there are 0 to {n_classes - 1} (n_classes)")
            self._weights[label] = weight

    def _first_fit(self, rows: _Array) -> None:
        self._estimator.partial_fit(rows, np.zeros(len(rows), dtype=int), classes=self._classes)

    def _coded(self, labels: _Array) -> tuple[_Array, _Array]:
        hits = labels.reshape(-1, 1) == self._classes
        is_known = hits.any(axis=1)
        if not is_known.all():
            strange = labels[~is_known][0]
            raise FedbiomedTrainingError(f"labels must be integers from 0 to {self._n_classes - 1} (n_classes), found {strange!r:.40}")
        if self._n_classes == 2:
            return np.where(hits[:, 1:], 1.0, -1.0), np.where(hits[:, 1:], self._weights[1], self._weights[0])
        return np.where(hits, 1.0, -1.0), np.where(hits, self._weights, 1.0)


def _as_array(name: str, value: Any) -> _Array:
    """A copy, float64."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FedbiomedModelError(f"parameter {name!r} is a {type(value).__name__}, not an array of numbers") from error
