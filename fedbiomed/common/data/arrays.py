"""Arrays that users hand in, in one form."""

import math
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedDataManagerError

_Array = np.ndarray[Any, Any]


def is_table(values: Any) -> bool:
    """Whether it is a numpy array or a pandas DataFrame or Series."""
    return isinstance(values, np.ndarray) or hasattr(values, "to_numpy")


def as_numbers(values: Any, what: str) -> _Array:
    """A table as an array of numbers.

    Args:
        values: numpy array, pandas DataFrame or Series.
        what: its name in messages.

    Raises:
        FedbiomedDataManagerError: it is something else, has no samples' axis, or holds something that is not a number.
    """
    if not is_table(values):
        raise refused(f"{what} must be a numpy array or a pandas DataFrame or Series, not a {type(values).__name__}")
    array = values if isinstance(values, np.ndarray) else values.to_numpy()
    if not array.ndim:
        raise refused(f"{what} is a single value; give one per sample")
    if array.dtype.kind in "biuf":
        return array
    try:
        if array.dtype.kind in "cmM":  # numpy would drop imaginary parts, and turn times into nanoseconds
            raise TypeError(array.dtype)
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise refused(f"{what} holds values that are not numbers; encode or drop those columns in training_data()") from error


def kept_count(count: int, test_ratio: float, *, round_up: bool) -> int:
    """How many of `count` samples are kept for tests; 29 of 100 for 0.29, whatever the rounding of floats says.

    Raises:
        FedbiomedDataManagerError: the ratio is not from 0 to 1.
    """
    if isinstance(test_ratio, bool) or not isinstance(test_ratio, int | float) or not 0 <= test_ratio <= 1:
        raise refused(f"test_ratio must be a number from 0 to 1, not {test_ratio!r:.80}")
    share = round(count * test_ratio, 9)
    return math.ceil(share) if round_up else math.floor(share)


def refused(reason: str) -> FedbiomedDataManagerError:
    """The error to raise for data that cannot be taken."""
    return FedbiomedDataManagerError(f"{ErrorNumbers.FB632.value}: {reason}")
