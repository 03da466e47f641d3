"""Named arrays as one flat vector, and back."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fedbiomed.common.params import as_array
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.security.framing import Part, joined

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Way:
    """The difference of two arrays of one shape, worked out part by part when it is looked at.

    Args:
        new, old: minuend and subtrahend.
    """

    def __init__(self, new: np.ndarray[Any, np.dtype[Any]], old: np.ndarray[Any, np.dtype[Any]]) -> None:
        self.shape: tuple[int, ...] = new.shape
        self.dtype, self.size = new.dtype, new.size
        self._new, self._old = new.reshape(-1), old.reshape(-1)  # copies of those only that are not contiguous

    def __getitem__(self, part: slice) -> Floats:
        """A part of the flat difference."""
        difference: Floats = np.subtract(self._new[part], self._old[part], dtype=np.float64)
        return difference


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes, in the order in which they lie in the vector.

    Args:
        shapes: name and shape of each array.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The layout of these arrays, sorted by name.

        Raises:
            FedbiomedSecureAggregationError: there are none, or no values in them.
        """
        layout = cls(tuple((name, tuple(np.shape(params[name]))) for name in sorted(params)))
        if not layout.size:
            raise round_error("there are no values to protect")
        return layout

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def digest(self) -> bytes:
        """SHA-256 of names and shapes."""
        parts: list[Part] = []
        for name, shape in self.shapes:
            parts += [name, len(shape), *shape]
        return hashlib.sha256(joined(*parts)).digest()

    def flat_parts(self, params: Mapping[str, Any]) -> Iterator[tuple[str, slice, Way | np.ndarray[Any, np.dtype[Any]]]]:
        """Name, place in the vector and flat values of each array, or way.

        Raises:
            AggregationError: a value is not an array of numbers.
            FedbiomedSecureAggregationError: other names or shapes than those of the layout, or complex numbers.
        """
        if params.keys() != dict(self.shapes).keys():
            raise round_error(f"values of the names {sorted(dict(self.shapes))[:5]} are expected, not of {sorted(params)[:5]}")
        start = 0
        for name, shape in self.shapes:
            given = params[name]
            array = given if isinstance(given, Way) else as_array(given, name, "the update")
            if array.shape != shape or array.dtype.kind == "c":
                raise round_error(f"{name!r} must hold real numbers of shape {shape}, not {array.dtype} of shape {array.shape}")
            yield name, slice(start, start + array.size), array if isinstance(array, Way) else array.reshape(-1)
            start += array.size

    def unflattened(self, vector: Floats) -> dict[str, Floats]:
        """Views of the vector's parts by name, in their shapes."""
        found, start = {}, 0
        for name, shape in self.shapes:
            found[name] = vector[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return found
