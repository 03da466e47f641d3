"""Averages for one's own aggregators and scripts, on lists instead of nodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common import params
from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params


def initialize(val: Any) -> tuple[str, Any]:
    """Zeros to sum values of one kind into.

    Args:
        val: a torch tensor, or an array or list.

    Returns:
        `("tensor", zeros)`, float32 of the tensor's shape, or `("array", zeros)`, float64 of the array's shape.
    """
    if hasattr(val, "new_zeros"):
        return "tensor", val.new_zeros(val.shape).float()
    return "array", np.zeros(np.shape(val))


def federated_averaging(model_params: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> Params:
    """Mean of parameter sets, each counting by its share of the weights.

    Args:
        model_params: one mapping per node; same names in all, and one shape per name.
        weights: one number from 0 to 1 per node, not all 0.

    Raises:
        AggregationError: the lengths, names or shapes differ, or a weight is not such a number.
    """
    if not all(0 <= weight <= 1 for weight in weights):
        raise AggregationError(f"weights must lie between 0 and 1, not {list(weights)}")
    return params.weighted_mean(model_params, weights)


def weighted_sum(model_params: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> Params:
    """Sum of parameter sets, each times its weight (>= 0), which need not sum to 1.

    Raises:
        AggregationError: there are none, the lengths, names or shapes differ, or a weight is negative.
    """
    return params.weighted_sum(model_params, weights)
