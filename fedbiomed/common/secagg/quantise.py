"""Updates as integers, and the mean of integers as an update.

What is quantised are updates (local minus global parameters), not parameters: they are small, so the clipping range may be small and the
steps fine. With clip C and R = 2**bits - 1: z = round((min(max(x, -C), C) + C) * R / (2C)); the error of a value is at most C / R.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.layout import Floats, Layout
from fedbiomed.common.secagg.terms import Weighting
from fedbiomed.common.security.keystream import BLOCK, WORD, Words

MAX_CLIPPED = 0.001
_MANY_CLIPPED = 0.1
Codes = np.ndarray[Any, np.dtype[np.uint32]]


@dataclass(frozen=True, slots=True)
class Quantised:
    """An update as integers.

    Args:
        values: z, one per value, in the layout's order.
        clipped: the fraction of values that lay outside the range.
        weighting: by what the node counts in their sum.
    """

    values: Codes
    clipped: float
    weighting: Weighting = Weighting.SAMPLES

    def words(self, samples: int) -> Words:
        """The vector that is summed; see `weighted`."""
        return weighted(self.values, weight_of(self.weighting, samples))


class Unquantised:
    """An update that is rounded when its integers are asked for, in one go and without a copy; until then it must not be changed.

    Args:
        update: arrays or tensors by name.
        clip: values are cut to plus and minus this.
        bits: 8 to 32.
        weighting: by what the node counts in their sum.

    Raises:
        FedbiomedSecureAggregationError: there are no values, or the clip is not a positive number.
    """

    def __init__(self, update: Mapping[str, Any], clip: float, bits: int, weighting: Weighting) -> None:
        self._update, self._layout = update, Layout.of(update)
        self._clip, self._bits, self.weighting = checked_clip(clip), bits, weighting
        self._clipped: float | None = None

    @property
    def values(self) -> Codes:
        """See `Quantised`.

        Raises:
            FedbiomedSecureAggregationError: see `quantise`.
        """
        made = quantise(self._update, self._layout, self._clip, self._bits)
        self._clipped = made.clipped
        return made.values

    @property
    def clipped(self) -> float:
        """See `Quantised`; they are rounded for it, if they were not before."""
        if self._clipped is None:
            _ = self.values
        return self._clipped or 0.0

    def words(self, samples: int) -> Words:
        """The vector that is summed; see `weighted`.

        Raises:
            FedbiomedSecureAggregationError: see `quantise`.
        """
        weight, outside = weight_of(self.weighting, samples), 0
        vector = np.empty(self._layout.size + 1, WORD)
        vector[0] = weight
        for start, block in _rounded(self._update, self._layout, self._clip, self._bits):
            np.multiply(block.codes, np.uint64(weight), out=vector[start + 1 : start + 1 + block.codes.size], dtype=WORD)
            outside += block.outside
        self._clipped = outside / self._layout.size
        return vector


@dataclass(frozen=True, slots=True)
class _Block:
    """Some integers, until the next ones take their place; and how many values lay outside the range."""

    codes: Codes
    outside: int


def quantise(update: Mapping[str, Any], layout: Layout, clip: float, bits: int) -> Quantised:
    """Round an update to integers from 0 to 2**bits - 1.

    Args:
        update: arrays or tensors by name.
        layout: their names and shapes.
        clip: values are cut to plus and minus this.
        bits: 8 to 32.

    Raises:
        FedbiomedSecureAggregationError: a value is NaN or infinite (which parameter), the clip is not a positive number, or the layout is
            another one.
    """
    checked_clip(clip)
    values, outside = np.empty(layout.size, np.uint32), 0
    for start, block in _rounded(update, layout, clip, bits):
        values[start : start + block.codes.size] = block.codes
        outside += block.outside
    return Quantised(values, outside / layout.size)


def _rounded(update: Mapping[str, Any], layout: Layout, clip: float, bits: int) -> Iterator[tuple[int, _Block]]:
    """The integers of an update, block by block, each with its place in the vector."""
    buffer, codes = np.empty(min(BLOCK, layout.size)), np.empty(min(BLOCK, layout.size), np.uint32)
    scale = ((1 << bits) - 1) / (2 * clip)
    for name, place, flat in layout.flat_parts(update):
        for start in range(0, flat.size, BLOCK):
            part = buffer[: min(BLOCK, flat.size - start)]
            np.copyto(part, flat[start : start + BLOCK], casting="unsafe")
            outside = _clipped(part, clip, name)
            part += clip
            part *= scale
            np.rint(part, out=part)
            np.copyto(codes[: part.size], part, casting="unsafe")
            yield place.start + start, _Block(codes[: part.size], outside)


def _clipped(part: Floats, clip: float, name: str) -> int:
    """Cut values to the range, in place; how many lay outside."""
    low, high = float(part.min()), float(part.max())  # NaN where one is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise round_error(
            f"the update of {name!r} holds NaN or infinite values; it is not sent. Lower the learning rate, or look at the data"
        )
    if -clip <= low and high <= clip:
        return 0
    outside = int(np.count_nonzero(part < -clip) + np.count_nonzero(part > clip))
    np.clip(part, -clip, clip, out=part)
    return outside


def weight_of(weighting: Weighting, samples: int) -> int:
    """The weight of a node with so many samples."""
    return samples if weighting is Weighting.SAMPLES else 1


def weighted(values: Codes, weight: int) -> Words:
    """The vector that is summed: [w, w*z_1, ..., w*z_d] as 64-bit integers."""
    vector = np.empty(values.size + 1, WORD)
    vector[0] = weight
    np.multiply(values, np.uint64(weight), out=vector[1:], dtype=WORD)
    return vector


def mean_of(sums: Words, layout: Layout, clip: float, bits: int, most: int) -> tuple[int, dict[str, Floats]]:
    """Total weight and weighted mean of an opened sum [W, S_1, ..., S_d].

    The mean takes the memory of the sum, which is no sum any more afterwards.

    Args:
        sums: as opened.
        layout: of the values.
        clip, bits: by which the updates were quantised.
        most: the highest total weight that can be, n * W_max.

    Raises:
        FedbiomedSecureAggregationError: W is 0 or above `most`, or an S_i above W * R: a mask was left in, or a node broke the rules.
    """
    total, steps = int(sums[0]), (1 << bits) - 1
    if sums.size != layout.size + 1:
        raise round_error(f"the sum has {sums.size} values, {layout.size + 1} are needed")
    if not 0 < total <= most:
        raise round_error(
            f"the opened sum has the weight {total}, 1 to {most} can be: it does not open. A node broke the rules, or a share is wrong"
        )
    if int(sums[1:].max()) > total * steps:
        raise round_error(
            "the opened sum holds values above the highest possible: it does not open. A node broke the rules, or a share is wrong"
        )
    mean = sums.view(np.float64)
    factor = 2 * clip / steps / total
    for start in range(0, sums.size, BLOCK):
        block = sums[start : start + BLOCK].astype(np.float64)
        block *= factor
        block -= clip
        mean[start : start + BLOCK] = block
    return total, layout.unflattened(mean[1:])


def better_clip(clip: float, fractions: Sequence[float]) -> float:
    """The clipping range to propose for the next round.

    Only the fraction of clipped values is known, not how large they were, since that could tell of single rows. So the range is doubled
    where a node clipped more than one value in a thousand, and taken four times where one clipped more than one in ten.

    Args:
        clip: of this round.
        fractions: of each node.
    """
    worst = max(fractions, default=0.0)
    if worst <= MAX_CLIPPED:
        return clip
    return clip * (4 if worst > _MANY_CLIPPED else 2)


def checked_clip(clip: float) -> float:
    """A clipping range.

    Raises:
        FedbiomedSecureAggregationError: it is not a positive, finite number.
    """
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not (math.isfinite(clip) and clip > 0):
        raise round_error(f"the clipping range must be a positive number, not {clip!r:.80}")
    return float(clip)
