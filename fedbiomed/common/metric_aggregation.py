"""One value of each metric out of those of several nodes, and a metric that remembers.

A mean divides by those who reported: with 1.0 from one of two nodes it is 1.0, whatever the other one's samples are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedMetricError

Results = Sequence[tuple[int | float, Mapping[str, Any]]]


def weighted_metrics(results: Results) -> dict[str, float]:
    """Mean of each metric over those who reported it, each counting by its samples.

    >>> weighted_metrics([(30, {"ACCURACY": 0.5}), (10, {"ACCURACY": 0.9, "F1_SCORE": 1.0})])
    {'ACCURACY': 0.6, 'F1_SCORE': 1.0}

    Args:
        results: of each node, number of samples and metrics by name; what `evaluate_metrics_aggregation_fn` of a merge strategy gets.

    Returns:
        Every metric that someone reported. A NaN stays one.

    Raises:
        FedbiomedMetricError: a value or a number of samples is no number, a number of samples is below 0, or those of all who reported a
            metric are 0.
    """
    return _means([(_samples(size), metrics) for size, metrics in _pairs(results)])


def uniform_metrics(results: Results) -> dict[str, float]:
    """As `weighted_metrics`, but all who reported count alike.

    >>> uniform_metrics([(30, {"ACCURACY": 0.5}), (10, {"ACCURACY": 1.0})])
    {'ACCURACY': 0.75}
    """
    return _means([(1.0, metrics) for _, metrics in _pairs(results)])


class EmaMetric:
    """Exponential moving average of a metric: the first value as it is, then `s * new + (1 - s) * old`.

    >>> accuracy = EmaMetric("ACCURACY")
    >>> print(*(round(accuracy.update(value), 4) for value in (1, 0, 1)))
    1.0 0.9 0.91

    Args:
        metric: its name.
        smoothing_factor: s, above 0 and at most 1.

    Attributes:
        name: under which `added_to` reports it, `EMA_<metric>`.
        value: the average; None before the first value.

    Raises:
        FedbiomedMetricError: the factor is out of its range.
    """

    def __init__(self, metric: str, smoothing_factor: float = 0.1) -> None:
        factor = _number("smoothing_factor", smoothing_factor)
        if not 0 < factor <= 1:
            raise FedbiomedMetricError(f"smoothing_factor must be above 0 and at most 1, not {smoothing_factor!r:.80}")
        self.metric, self.name, self.smoothing_factor = metric, f"EMA_{metric}", factor
        self.value: float | None = None

    def update(self, value: float) -> float:
        """Take a value in; returns the average.

        Raises:
            FedbiomedMetricError: it is no number, or not finite; the average stays as it was.
        """
        new = _number(self.metric, value)
        if not math.isfinite(new):
            raise FedbiomedMetricError(f"{self.metric} is {new}: it would stay in the average for ever")
        self.value = new if self.value is None else self.smoothing_factor * new + (1 - self.smoothing_factor) * self.value
        return self.value

    def added_to(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """These metrics and the average, after their value was taken in.

        Raises:
            FedbiomedMetricError: the metric is not among them.
        """
        if self.metric not in metrics:
            raise FedbiomedMetricError(f"no {self.metric!r} among the metrics {', '.join(sorted(map(str, metrics))) or '(none)'}")
        return {**metrics, self.name: self.update(metrics[self.metric])}


def _means(results: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for _, metrics in results for name in metrics))
    found = {}
    for name in names:
        reported = [(weight, _number(name, metrics[name])) for weight, metrics in results if name in metrics]
        total = math.fsum(weight for weight, _ in reported)
        if not total > 0:
            raise FedbiomedMetricError(f"all who reported {name} have 0 samples; uniform_metrics counts them alike")
        found[name] = sum(weight * value for weight, value in reported if weight) / total
    return found


def _pairs(results: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    pairs = []
    for one in results:
        if not isinstance(one, tuple | list) or len(one) != 2 or not isinstance(one[1], Mapping):
            raise FedbiomedMetricError(f"results must be pairs of a number of samples and metrics by name, not {one!r:.80}")
        pairs.append((one[0], one[1]))
    return pairs


def _samples(value: Any) -> float:
    number = _number("the number of samples", value)
    if not 0 <= number < math.inf:
        raise FedbiomedMetricError(f"a number of samples must be 0 or more, not {value!r:.80}")
    return number


def _number(name: str, value: Any) -> float:
    """A number of Python or numpy, also one in an array of no dimension; a bool or text is none."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f" if isinstance(value, float) else "i" if isinstance(value, int) else "")
    if isinstance(value, bool) or kind not in ("f", "i", "u") or getattr(value, "shape", ()) != ():
        raise FedbiomedMetricError(f"{name} must be a number, not {value!r:.80}")
    return float(value)
