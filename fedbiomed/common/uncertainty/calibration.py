"""Whether probabilities can be believed: of what was said with 80 %, four out of five should be right."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedUncertaintyError

_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A reliability diagram in numbers; bins of equal width over the confidence, the empty ones left out.

    Args:
        confidence: mean probability of the class that was named, by bin.
        accuracy: share of those that were right, by bin.
        count: samples, by bin.
        ece: expected calibration error, from 0 to 1: mean distance of the two, bins counting by their samples.
    """

    confidence: _Array
    accuracy: _Array
    count: np.ndarray[Any, np.dtype[np.int64]]
    ece: float


def calibration_curve(probabilities: Any, labels: Any, bins: int = 10) -> Calibration:
    """Compare how sure a model was with how often it was right.

    Args:
        probabilities: `(samples, classes)`, rows of sum 1.
        labels: the true class of each sample.
        bins: how many, 1 or more; bin i holds confidences above i/bins, up to (i+1)/bins.

    Raises:
        FedbiomedUncertaintyError: they are not of that form.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), section 2.
    """
    shares, truth = _checked(probabilities, labels, bins)
    confidence, is_right = shares.max(axis=1), (shares.argmax(axis=1) == truth).astype(np.float64)
    place = np.clip(np.ceil(np.round(confidence * bins, 9)).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    sure = np.bincount(place, weights=confidence, minlength=bins)[filled] / count[filled]
    right = np.bincount(place, weights=is_right, minlength=bins)[filled] / count[filled]
    ece = float(np.sum(count[filled] / len(truth) * np.abs(sure - right)))
    return Calibration(confidence=sure, accuracy=right, count=count[filled], ece=ece)


def expected_calibration_error(probabilities: Any, labels: Any, bins: int = 10) -> float:
    """The `ece` of `calibration_curve`."""
    return calibration_curve(probabilities, labels, bins).ece


def _checked(probabilities: Any, labels: Any, bins: int) -> tuple[_Array, np.ndarray[Any, Any]]:
    shares, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if type(bins) is not int or bins < 1:
        raise FedbiomedUncertaintyError(f"bins must be an integer of 1 or more, not {bins!r:.80}")
    if shares.ndim != 2 or not len(shares) or truth.shape != shares.shape[:1]:
        raise FedbiomedUncertaintyError(f"probabilities of (samples, classes) and as many labels, not {shares.shape} and {truth.shape}")
    if not np.isfinite(shares).all() or (shares < 0).any() or (np.abs(shares.sum(axis=1) - 1) > 1e-3).any():
        raise FedbiomedUncertaintyError("each row of probabilities must be of 0 to 1 and sum to 1; take the softmax of logits first")
    if not np.isin(truth, np.arange(shares.shape[1])).all():
        raise FedbiomedUncertaintyError(f"labels must be classes from 0 to {shares.shape[1] - 1}")
    return shares, truth
