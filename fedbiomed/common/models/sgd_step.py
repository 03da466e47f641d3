"""One batch of scikit-learn's stochastic gradient descent, for all samples at once.

Each sample makes one step of `partial_fit` from the weights at the batch's start; the mean of these steps is applied. scikit-learn would
do so one sample after the other, at some 200 µs each and a new Python call per class. The formulas here are those of its
`linear_model/_sgd_fast.pyx` for one sample and give the same numbers but for rounding (compared for every loss, penalty and learning rate
in `tests/models/test_sgd_step.py`). What was refused: calling the compiled function, which is private to scikit-learn.

Source: Bottou, Stochastic Gradient Descent Tricks, 2012; scikit-learn user guide, "Stochastic Gradient Descent: mathematical formulation".
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]
_MAX_SLOPE = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class SGDRule:
    """Hyper-parameters of an `SGDClassifier` or `SGDRegressor`, under their names there."""

    loss: str
    penalty: str | None
    alpha: float
    l1_ratio: float
    fit_intercept: bool
    learning_rate: str
    eta0: float
    power_t: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """Weights of k linear functions of d features.

    Args:
        coef: `(k, d)`.
        intercept: `(k,)`.
    """

    coef: _Array
    intercept: _Array


def is_known(rule: SGDRule) -> bool:
    """Whether the formulas of this rule stand here."""
    return rule.loss in _LOSSES and rule.learning_rate in _RATES and rule.penalty in (None, "l1", "l2", "elasticnet")


def mean_step(
    rule: SGDRule, start: LinearWeights, inputs: _Array, targets: _Array, *, importance: _Array, step: float
) -> tuple[LinearWeights, float]:
    """Weights after a batch, and the mean loss before it.

    Args:
        rule: hyper-parameters.
        start: weights of k functions; untouched.
        inputs: `(n, d)` float64, n >= 1.
        targets: `(n, k)`: -1 or 1 for classes, numbers for a regression.
        importance: `(n, k)`, by which a sample's step is multiplied (weights of classes).
        step: number of the batch's first sample among all samples trained on so far, from 1; learning rates fall with it.

    Returns:
        New weights; the mean over samples and functions of the loss without penalty.
    """
    scores = inputs @ start.coef.T + start.intercept
    loss, slope = _LOSSES[rule.loss]
    losses = loss(scores, targets, rule.epsilon)
    etas = _etas(rule, step + np.arange(len(inputs)))
    if rule.learning_rate in ("pa1", "pa2"):
        moves = _passive_aggressive(rule, scores, targets, losses, (inputs**2).sum(axis=1, keepdims=True))
    else:
        moves = -etas[:, None] * np.clip(slope(scores, targets, rule.epsilon), -_MAX_SLOPE, _MAX_SLOPE)
    moves = moves * importance
    intercept = start.intercept + moves.mean(axis=0) if rule.fit_intercept else start.intercept
    return LinearWeights(_mean_coef(rule, start.coef, inputs, moves, etas), intercept), float(losses.mean())


def _etas(rule: SGDRule, steps: _Array) -> _Array:
    """Learning rate of each sample, `(n,)`."""
    return _RATES[rule.learning_rate](rule, steps)


def _optimal(rule: SGDRule, steps: _Array) -> _Array:
    typical = math.sqrt(1 / math.sqrt(rule.alpha))
    slope = _LOSSES[rule.loss][1](np.array(-typical), np.array(1.0), rule.epsilon)
    first = typical / max(1.0, float(slope))
    return 1 / (rule.alpha * (1 / (first * rule.alpha) + steps - 1))


def _passive_aggressive(rule: SGDRule, scores: _Array, targets: _Array, losses: _Array, norms: _Array) -> _Array:
    """Steps of Crammer et al. 2006 (JMLR 7), variants I and II; `eta0` is their C, `norms` the squared lengths of the inputs."""
    if rule.learning_rate == "pa1":
        sizes = np.where(norms == 0, 0.0, np.minimum(rule.eta0, losses / np.where(norms == 0, 1.0, norms)))
    else:
        sizes = losses / (norms + 0.5 / rule.eta0)
    return sizes * (targets if rule.loss in ("hinge", "perceptron") else np.where(targets - scores < 0, -1.0, 1.0))


def _mean_coef(rule: SGDRule, coef: _Array, inputs: _Array, moves: _Array, etas: _Array) -> _Array:
    """Mean over samples of the weights after the sample's step and the penalty's."""
    if rule.penalty is None:
        return coef + moves.T @ inputs / len(inputs)
    l1_ratio = {"l1": 1.0, "l2": 0.0}.get(rule.penalty, rule.l1_ratio)
    shrink = np.maximum(0.0, 1 - (1 - l1_ratio) * etas * rule.alpha) if rule.penalty != "l1" else np.ones(len(inputs))
    cut = l1_ratio * etas * rule.alpha
    if rule.learning_rate == "pa1":  # scikit-learn leaves an empty sample out, penalty and all
        is_empty = ~inputs.any(axis=1)
        shrink, cut = np.where(is_empty, 1.0, shrink), np.where(is_empty, 0.0, cut)
    if rule.penalty == "l2":
        mean: _Array = coef * shrink.mean() + moves.T @ inputs / len(inputs)
        return mean
    total = np.zeros_like(coef)
    for row, move, share, threshold in zip(inputs, moves, shrink, cut, strict=True):
        stepped = coef * share + move[:, None] * row
        total += np.sign(stepped) * np.maximum(0.0, np.abs(stepped) - threshold)
    return total / len(inputs)


_RATES: Mapping[str, Callable[[SGDRule, _Array], _Array]] = {
    "constant": lambda rule, steps: np.full(len(steps), rule.eta0),
    "optimal": _optimal,
    "invscaling": lambda rule, steps: rule.eta0 / steps**rule.power_t,
    "adaptive": lambda rule, steps: np.full(len(steps), rule.eta0),  # one pass never shows that it does not improve
    "pa1": lambda rule, steps: np.full(len(steps), rule.eta0),
    "pa2": lambda rule, steps: np.full(len(steps), rule.eta0),
}


def _hinge_pair(threshold: float) -> tuple["_Elementwise", "_Elementwise"]:
    return (
        lambda p, y, _: np.maximum(0.0, threshold - p * y),
        lambda p, y, _: np.where(p * y <= threshold, -y, 0.0),
    )


def _modified_huber(p: _Array, y: _Array, _epsilon: float) -> _Array:
    z = p * y
    loss: _Array = np.where(z >= -1, np.maximum(0.0, 1 - z) ** 2, -4 * z)
    return loss


def _modified_huber_slope(p: _Array, y: _Array, _epsilon: float) -> _Array:
    slope: _Array = np.where(p * y >= -1, -2 * y * np.maximum(0.0, 1 - p * y), -4 * y)
    return slope


def _huber(p: _Array, y: _Array, epsilon: float) -> _Array:
    r = np.abs(y - p)
    loss: _Array = np.where(r <= epsilon, r**2 / 2, epsilon * r - epsilon**2 / 2)
    return loss


def _excess(p: _Array, y: _Array, epsilon: float) -> _Array:
    """By how much a prediction misses by more than `epsilon`."""
    excess: _Array = np.maximum(0.0, np.abs(y - p) - epsilon)
    return excess


_Elementwise = Callable[[_Array, _Array, float], _Array]

# Loss and its derivative by the score: functions of scores p, targets y and epsilon.
_LOSSES: Mapping[str, tuple[_Elementwise, _Elementwise]] = {
    "hinge": _hinge_pair(1.0),
    "perceptron": _hinge_pair(0.0),
    "squared_hinge": (
        lambda p, y, _: np.maximum(0.0, 1 - p * y) ** 2,
        lambda p, y, _: -2 * y * np.maximum(0.0, 1 - p * y),
    ),
    "log_loss": (
        lambda p, y, _: np.logaddexp(0.0, -p * y),
        lambda p, y, _: -y * np.exp(-np.logaddexp(0.0, p * y)),
    ),
    "modified_huber": (_modified_huber, _modified_huber_slope),
    "squared_error": (lambda p, y, _: (y - p) ** 2 / 2, lambda p, y, _: p - y),
    "huber": (_huber, lambda p, y, epsilon: np.clip(p - y, -epsilon, epsilon)),
    "epsilon_insensitive": (_excess, lambda p, y, epsilon: np.where(_excess(p, y, epsilon) > 0, np.sign(p - y), 0.0)),
    "squared_epsilon_insensitive": (
        lambda p, y, epsilon: _excess(p, y, epsilon) ** 2,
        lambda p, y, epsilon: 2 * np.sign(p - y) * _excess(p, y, epsilon),
    ),
}
