"""The state of an optimizer on its way with a model: names under which it goes, and what is checked before it is used elsewhere."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedOptimizerError

# Of an aggregator's arguments, whether the state travels, and the state that came with the model; the first is also its key in a result.
TRAVELS_KEY = "travelling_optimizer"
STATE_KEY = "travelling_optimizer_state"


def require_finite(value: Any, what: str) -> None:
    """Check that all numbers in a nested state are finite.

    Raises:
        FedbiomedOptimizerError: which is not.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            require_finite(item, f"{what}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            require_finite(item, what)
    elif not _is_finite(value):
        raise FedbiomedOptimizerError(f"FB621: {what} holds NaN or infinite values")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if hasattr(value, "isfinite"):  # a tensor
        return bool(value.isfinite().all())
    return not isinstance(value, np.ndarray) or value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
