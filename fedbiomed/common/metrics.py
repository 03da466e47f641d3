"""Metrics of a validation: names that travel, and their computation by scikit-learn on what a plan predicted."""

from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedMetricError
from fedbiomed.common.params import numpy_ready

_Array = np.ndarray[Any, Any]


class MetricCategory(StrEnum):
    """What a metric compares."""

    CLASSIFICATION_LABELS = "classification labels"
    REGRESSION = "regression"


class MetricTypes(Enum):
    """The metrics that a plan is validated with unless it has a `testing_step`."""

    ACCURACY = (0, MetricCategory.CLASSIFICATION_LABELS)
    F1_SCORE = (1, MetricCategory.CLASSIFICATION_LABELS)
    PRECISION = (2, MetricCategory.CLASSIFICATION_LABELS)
    RECALL = (3, MetricCategory.CLASSIFICATION_LABELS)
    MEAN_SQUARE_ERROR = (4, MetricCategory.REGRESSION)
    MEAN_ABSOLUTE_ERROR = (5, MetricCategory.REGRESSION)
    EXPLAINED_VARIANCE = (6, MetricCategory.REGRESSION)

    def metric_category(self) -> MetricCategory:
        """Whether it compares class labels or numbers."""
        return self.value[1]

    @staticmethod
    def get_all_metrics() -> list[str]:
        """Names of all metrics."""
        return [metric.name for metric in MetricTypes]

    @staticmethod
    def get_metric_type_by_name(metric_name: str) -> "MetricTypes":
        """The metric of a name, in upper or lower case.

        Raises:
            FedbiomedMetricError: there is none of that name.
        """
        found = MetricTypes.__members__.get(metric_name.upper()) if isinstance(metric_name, str) else None
        if found is None:
            raise FedbiomedMetricError(
                _text(f"no metric is called {metric_name!r:.80}; there are {', '.join(MetricTypes.get_all_metrics())}")
            )
        return found


class Metrics:
    """Computes metrics from true and predicted values.

    >>> Metrics().evaluate([0, 1, 1, 1], [0, 1, 1, 0], MetricTypes.ACCURACY)
    0.75
    >>> Metrics().evaluate([0, 1], [[0.9, 0.1], [0.2, 0.8]], MetricTypes.ACCURACY)
    1.0
    >>> Metrics().evaluate([1.0, 2.0], [1.0, 4.0], MetricTypes.MEAN_SQUARE_ERROR)
    2.0
    """

    def evaluate(self, y_true: Any, y_pred: Any, metric: MetricTypes, **kwargs: Any) -> Any:
        """Compare predictions with the truth.

        Args:
            y_true: `(n,)` or `(n, 1)` labels or numbers; `(n, k)` one-hot labels or several numbers per sample.
            y_pred: labels or numbers of the same form; for class metrics also `(n, k)` scores (the highest counts) or `(n,)` scores from
                0 to 1 (over 0.5 is class 1).
            metric: what to compute.
            **kwargs: of the scikit-learn function. F1, precision and recall take by default, with two classes, `average="binary"` and the
                smallest label as `pos_label`, with more `average="weighted"`; what is undefined counts as 0.

        Returns:
            A float; for several numbers per sample (or `average=None`) an array.

        Raises:
            FedbiomedMetricError: not a metric, the shapes do not fit, a value is NaN, or scikit-learn cannot compute it.
        """
        if not isinstance(metric, MetricTypes):
            raise FedbiomedMetricError(_text(f"a metric is one of MetricTypes, not {metric!r:.80}"))
        true, predicted = _aligned(y_true, y_pred)
        prepare = _labels if metric.metric_category() is MetricCategory.CLASSIFICATION_LABELS else _numbers
        try:
            value = _COMPUTE[metric](*prepare(true, predicted), kwargs)
        except (TypeError, ValueError) as error:
            raise FedbiomedMetricError(_text(f"{metric.name} of {true.shape} values cannot be computed: {error}")) from error
        return float(value) if np.ndim(value) == 0 else value


def _text(reason: str) -> str:
    return f"{ErrorNumbers.FB611.value}: {reason}"


def _aligned(y_true: Any, y_pred: Any) -> tuple[_Array, _Array]:
    """Both as arrays of n samples, without axes of length 1 behind the first."""
    true, predicted = _squeezed(y_true), _squeezed(y_pred)
    if len(true) != len(predicted):
        true, predicted = np.atleast_1d(true.squeeze()), np.atleast_1d(predicted.squeeze())
    if true.ndim > 2 or predicted.ndim > 2:
        raise FedbiomedMetricError(
            _text(f"values of shape {true.shape} and {predicted.shape} have more than 2 dimensions; define testing_step() in the plan")
        )
    if len(true) != len(predicted) or not len(true):
        raise FedbiomedMetricError(_text(f"{len(true)} true and {len(predicted)} predicted values cannot be compared"))
    for which, array in (("true", true), ("predicted", predicted)):
        if array.dtype.kind == "f" and np.isnan(array).any():  # a comparison would take them for class 0
            raise FedbiomedMetricError(_text(f"{np.isnan(array).sum()} of the {array.size} {which} values are NaN"))
    return true, predicted


def _squeezed(values: Any) -> _Array:
    array = np.atleast_1d(np.asarray(numpy_ready(values)))
    return array.reshape([n for axis, n in enumerate(array.shape) if axis == 0 or n != 1])


def _labels(true: _Array, predicted: _Array) -> tuple[_Array, _Array]:
    if true.ndim == 2:
        if predicted.shape != true.shape or not ((true == true.max(axis=1, keepdims=True)).sum(axis=1) == 1).all():
            raise FedbiomedMetricError(
                _text(f"true labels of shape {true.shape} must be one-hot, beside scores of the same shape; else define testing_step()")
            )
        true = true.argmax(axis=1)
    if predicted.ndim == 2:
        predicted = predicted.argmax(axis=1)
    return _whole(true), _whole(predicted, threshold=0.5)


def _whole(labels: _Array, threshold: float | None = None) -> _Array:
    """Labels given as floats become integers; scores become 0 or 1."""
    if labels.dtype.kind != "f":
        return labels
    if (labels == np.floor(labels)).all() and np.isfinite(labels).all():
        return labels.astype(np.int64)
    return labels if threshold is None else (labels > threshold).astype(np.int64)


def _numbers(true: _Array, predicted: _Array) -> tuple[_Array, _Array]:
    if true.shape != predicted.shape:
        raise FedbiomedMetricError(_text(f"true values of shape {true.shape} cannot be compared with predictions of {predicted.shape}"))
    return true, predicted


def _accuracy(true: _Array, predicted: _Array, options: Mapping[str, Any]) -> Any:
    from sklearn.metrics import accuracy_score  # heavy, loaded when something is validated

    return accuracy_score(true, predicted, **options)


def _by_class(name: str) -> Callable[[_Array, _Array, Mapping[str, Any]], Any]:
    """Weighting one-hot columns by their support, or the classes: scikit-learn gives the same number, so labels stay labels."""

    def compute(true: _Array, predicted: _Array, options: Mapping[str, Any]) -> Any:
        from sklearn import metrics  # heavy, loaded when something is validated

        labels = np.union1d(true, predicted)
        defaults: dict[str, Any] = {"zero_division": 0.0, "average": "weighted"}
        if len(labels) <= 2:
            defaults |= {"average": "binary", "pos_label": labels[0]}
        chosen = defaults | dict(options)
        if chosen["average"] != "binary":
            chosen.pop("pos_label", None)
        return getattr(metrics, name)(true, predicted, **chosen)

    return compute


def _by_output(name: str) -> Callable[[_Array, _Array, Mapping[str, Any]], Any]:
    def compute(true: _Array, predicted: _Array, options: Mapping[str, Any]) -> Any:
        from sklearn import metrics  # heavy, loaded when something is validated

        defaults = {"multioutput": "raw_values"} if true.ndim == 2 else {}
        return getattr(metrics, name)(true, predicted, **(defaults | dict(options)))

    return compute


_COMPUTE: Mapping[MetricTypes, Callable[[_Array, _Array, Mapping[str, Any]], Any]] = {
    MetricTypes.ACCURACY: _accuracy,
    MetricTypes.F1_SCORE: _by_class("f1_score"),
    MetricTypes.PRECISION: _by_class("precision_score"),
    MetricTypes.RECALL: _by_class("recall_score"),
    MetricTypes.MEAN_SQUARE_ERROR: _by_output("mean_squared_error"),
    MetricTypes.MEAN_ABSOLUTE_ERROR: _by_output("mean_absolute_error"),
    MetricTypes.EXPLAINED_VARIANCE: _by_output("explained_variance_score"),
}
