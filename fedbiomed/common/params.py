"""Pure maths on the parameters of models: weighted means, streamed.

`Params` are `dict[str, array]`, numpy or torch. torch is not imported here until a result must be one of its tensors.

One rule for all arrays: what is summed is summed in float64; a floating array comes back in its own dtype, an array of integers or booleans
(a counter, a mask) comes back as the float that its mean is, never rounded and never wrapped. A model that takes it decides on rounding.
Sets that come one by one are multiplied by their weights as they are, for the sum of the weights is not known yet: in float64 that is safe
for any half or single number, and for doubles up to 1e308 divided by the sum of the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError

Params = dict[str, Any]
_Array = np.ndarray[Any, Any]
# Elements taken at a time: what is worked on (twice 256 KiB) stays in the cache, and no copy of a whole array is made.
_BLOCK = 1 << 15
_BEYOND_HALF = 65520.0  # from here on float16 rounds to infinity


@dataclass(frozen=True, slots=True)
class Kind:
    """What the mean of an array must come back as; `tensor_dtype` is the name of a torch dtype, or empty for numpy."""

    dtype: np.dtype[Any]
    tensor_dtype: str = ""


class RunningMean:
    """Weighted mean of parameter sets that come one by one.

    Sums in float64, in place; one division at the end. Holds one float64 copy of the model, whatever the number of sets.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Array] = {}
        self._kinds: dict[str, Kind] = {}
        self._sources: list[str] = []
        self.total_weight = 0.0

    @property
    def count(self) -> int:
        """How many sets were taken in."""
        return len(self._sources)

    def add(self, params: Mapping[str, Any], weight: float, source: str = "") -> None:
        """Take one parameter set in; it stays untouched. A set that is refused leaves the mean as it was.

        Args:
            params: same names as the first set, one shape per name; arrays, tensors or numbers, all finite. The values of a set that counts
                by 0 are not looked at, so they may be anything.
            weight: by which it counts, >= 0; a number of samples will do, weights need not sum to 1.
            source: whose it is, for error messages.

        Raises:
            AggregationError: names or shapes differ from the first set's, a value is not a finite number (or complex, where those of the
                first set are not), or the weight is not.
        """
        who = source or f"parameter set {self.count + 1}"
        if not _is_weight(weight):
            raise AggregationError(f"the weight of {who} must be a number of 0 or more, not {weight!r}")
        shapes = {name: total.shape for name, total in self._sums.items()} if self.count else None
        arrays = checked_arrays(params, who, shapes, self._sources[0] if self.count else "", with_values=weight > 0)
        if not self.count:
            self._kinds = {name: kind_of(params[name], array) for name, array in arrays.items()}
            self._sums = {name: _scaled(array, weight) for name, array in arrays.items()}
        elif weight > 0:
            for name, array in arrays.items():
                _require_addable(self._sums[name], array, name, who)
            for name, array in arrays.items():
                _add_scaled(self._sums[name], array, weight)
        self.total_weight += weight
        self._sources.append(who)

    def mean(self) -> Params:
        """The mean of what was taken in, as new arrays; more may be added afterwards.

        Returns:
            Tensors come back as tensors on the CPU of their own floating dtype, float32 for integers and bools; arrays as arrays of their
            own floating dtype, float64 for integers and bools. The dtypes are those of the first set.

        Raises:
            AggregationError: nothing was taken in, all weights are 0, or a mean is too large for half precision.
        """
        self.require_weight()
        return {name: _held(total, self.total_weight, self._kinds[name], name) for name, total in self._sums.items()}

    def mean_of(self, name: str) -> _Array:
        """The mean of one parameter, as a new array of float64.

        Raises:
            AggregationError: nothing was taken in, or all weights are 0.
        """
        self.require_weight()
        return np.asarray(self._sums[name] / self.total_weight)

    def names(self) -> list[str]:
        """Of the parameters, in the order of the first set."""
        return list(self._sums)

    def kind(self, name: str) -> Kind:
        """What the mean of a parameter comes back as."""
        return self._kinds[name]

    def sum(self) -> Params:
        """The weighted sum of what was taken in, without the division; else as `mean`.

        Raises:
            AggregationError: nothing was taken in, or a sum is too large for half precision.
        """
        if not self.count:
            raise AggregationError("no sum of 0 parameter sets")
        return {name: _held(total, 1.0, self._kinds[name], name) for name, total in self._sums.items()}

    def require_weight(self) -> None:
        """Check that there is a mean.

        Raises:
            AggregationError: nothing was taken in, or all weights are 0.
        """
        if not self.total_weight > 0:
            whose = f": {', '.join(self._sources[:10])}" if self._sources else ""
            raise AggregationError(f"no mean of {self.count} parameter sets whose weights sum to {self.total_weight}{whose}")


def checked_arrays(
    params: Mapping[str, Any],
    who: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    whose: str = "",
    *,
    with_values: bool = True,
) -> dict[str, _Array]:
    """Views of parameters as arrays, found fit to be worked on with others.

    Args:
        params: by name; arrays, tensors or numbers.
        who: sent them, for error messages.
        shapes: by name, as they must be; None: any.
        whose: these shapes are, for error messages.
        with_values: refuse what is not finite.

    Raises:
        AggregationError: there are none, one is not an array of numbers, names or shapes differ, or a value is not finite.
    """
    arrays = {name: as_array(value, name, who) for name, value in params.items()}
    if not arrays:
        raise AggregationError(f"{who} holds no parameters")
    if shapes is not None and arrays.keys() != shapes.keys():
        missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
        raise AggregationError(
            f"the parameters of {who} have other names than those of {whose}: missing {missing[:5]}, in excess {extra[:5]}"
        )
    for name, array in arrays.items():
        if shapes is not None and array.shape != shapes[name]:
            raise AggregationError(f"parameter {name!r} of {who} has shape {array.shape}, that of {whose} has {shapes[name]}")
        if with_values and not is_finite(array):
            raise AggregationError(f"parameter {name!r} of {who} holds NaN or infinite values")
    return arrays


def is_finite(array: _Array) -> bool:
    """Whether all values are."""
    return array.dtype.kind not in "fc" or all(bool(np.isfinite(block).all()) for block in blocks(array))


def weighted_mean(params: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> Params:
    """Average parameter sets, each counting by its weight.

    >>> import numpy as np
    >>> weighted_mean([{"w": np.array([0.0, 1.0])}, {"w": np.array([4.0, 1.0])}], weights=[1, 3])
    {'w': array([3., 1.])}

    Args:
        params: one mapping per node; same names in all, and one shape per name.
        weights: one number per node, >= 0, not all 0 (sample counts will do: they need not sum to 1).

    Returns:
        A new mapping of the same names and shapes; the inputs stay untouched. For its dtypes see `RunningMean.mean`.

    Raises:
        AggregationError: the lengths, names or shapes differ, a value is not finite, or the weights sum to 0.

    Source: McMahan et al. 2017, algorithm 1 (arXiv:1602.05629).
    """
    return _running(params, weights).mean()


def weighted_sum(params: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> Params:
    """Sum of parameter sets, each times its weight; else as `weighted_mean`, but the weights may be all 0."""
    return _running(params, weights).sum()


def combined(terms: Sequence[tuple[float, Any]], name: str = "") -> Any:
    """Sum of arrays, each times its factor, worked out in float64.

    Args:
        terms: factor (any finite number) and array or tensor, one or more; all of one shape.
        name: of the parameter, for error messages.

    Returns:
        A new array of the first one's kind; for its dtype see `RunningMean.mean`.

    Raises:
        AggregationError: the shapes differ, one is not an array of numbers, or a sum is too large for half precision.
    """
    arrays = [as_array(value, name, f"term {index}") for index, (_, value) in enumerate(terms)]
    total = np.zeros(arrays[0].shape, np.result_type(arrays[0].dtype, np.float64))
    for index, ((factor, _), array) in enumerate(zip(terms, arrays, strict=True)):
        _require_addable(total, array, name, f"term {index}")
        if array.shape != total.shape:
            raise AggregationError(f"parameter {name!r} has the shape {array.shape}, {total.shape} is needed")
        _add_scaled(total, array, factor)
    return _held(total, 1.0, kind_of(terms[0][1], arrays[0]), name)


def _running(params: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> RunningMean:
    if len(params) != len(weights):
        raise AggregationError(f"{len(params)} parameter sets, but {len(weights)} weights")
    running = RunningMean()
    for one, weight in zip(params, weights, strict=True):
        running.add(one, weight)
    return running


def _is_weight(value: Any) -> bool:
    try:
        return math.isfinite(value) and value >= 0
    except TypeError:
        return False


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def numpy_ready(value: Any) -> Any:
    """A tensor as one that numpy takes: on the CPU, without gradient, bfloat16 widened, for numpy has none. Anything else as it is."""
    if not _is_tensor(value):
        return value
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def as_array(value: Any, name: str, who: str) -> _Array:
    """A view of a tensor or array where that can be, see `numpy_ready`.

    Raises:
        AggregationError: it does not hold numbers.
    """
    try:
        array = np.asarray(numpy_ready(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise AggregationError(f"parameter {name!r} of {who} is a {type(value).__name__}, not an array of numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise AggregationError(f"parameter {name!r} of {who} is a {type(value).__name__} of dtype {array.dtype}, not numbers")
    return array


def kind_of(value: Any, array: _Array) -> Kind:
    """What an aggregate of such values comes back as.

    Args:
        value: array or tensor.
        array: the same, by `as_array`.
    """
    is_float = array.dtype.kind in "fc"
    if _is_tensor(value):
        return Kind(np.dtype(np.float32), str(value.dtype).removeprefix("torch.") if is_float else "float32")
    return Kind(array.dtype.newbyteorder("=") if is_float else np.dtype(np.float64))


def blocks(array: _Array) -> list[_Array]:
    """The array in flat parts that fit into a processor's cache."""
    flat = array.reshape(-1)  # copies this one array where it is not contiguous
    return [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]


def _scaled(array: _Array, weight: float) -> _Array:
    dtype = np.result_type(array.dtype, np.float64)
    if not weight:  # what counts by 0 may hold NaN
        return np.zeros(array.shape, dtype)
    return np.multiply(array, weight, out=np.empty(array.shape, dtype), dtype=dtype)


def _require_addable(total: _Array, array: _Array, name: str, who: str) -> None:
    if array.dtype.kind == "c" != total.dtype.kind:
        raise AggregationError(f"parameter {name!r} of {who} is complex, others are not")


def _add_scaled(total: _Array, array: _Array, weight: float) -> None:
    """total += weight * array, block by block."""
    scaled = np.empty(min(total.size, _BLOCK), total.dtype)
    for target, block in zip(blocks(total), blocks(array), strict=True):
        part = scaled[: block.size]
        np.multiply(block, weight, out=part, dtype=total.dtype)
        np.add(target, part, out=target)


def _held(total: _Array, divisor: float, kind: Kind, name: str) -> Any:
    """As `as_kind`, but what half precision cannot hold is an error."""
    if "float16" in (kind.dtype.name, kind.tensor_dtype) and np.abs(total).max(initial=0.0) / divisor >= _BEYOND_HALF:
        raise AggregationError(f"{np.abs(total).max() / divisor:g} in {name!r} is beyond 65504, the largest float16: take float32")
    return as_kind(total, divisor, kind)


def as_kind(total: _Array, divisor: float, kind: Kind) -> Any:
    """A new array or tensor of a kind: the total, divided. What is too large for the kind becomes infinite."""
    if not kind.tensor_dtype:
        result = np.empty(total.shape, kind.dtype)
        return np.divide(total, divisor, out=result, casting="same_kind")
    import torch  # heavy; somebody who gave tensors has loaded it

    dtype: torch.dtype = getattr(torch, kind.tensor_dtype)
    return torch.divide(
        torch.from_numpy(np.asarray(total)), torch.tensor(divisor, dtype=torch.float64), out=torch.empty(total.shape, dtype=dtype)
    )
