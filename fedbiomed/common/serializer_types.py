"""The closed table of what a parameter file may hold, and its limits; shared by the writer and the reader.

A value is plain MessagePack, or a tagged map `{"__type__": tag, "value": v}`. Tools of the same family know the first six tags; the
others are ours: they answer cases for which those tools have no layout, and say "unknown tag" there instead of reading nonsense.

    tag               Python                       value
    tuple             tuple                        list
    int               integer over 64 bits, >= 0   big-endian bytes
    np.ndarray        numpy array                  [raw little-endian bytes, dtype, shape]
    np.generic        numpy scalar                 [raw little-endian bytes, dtype]
    torch.Tensor      torch tensor, on CPU         [raw little-endian bytes, dtype, shape]
    Vector            declearn Vector              map of its coefficients
    -int              integer below 64 bits        big-endian bytes of its absolute value
    np.ndarray.parts, torch.Tensor.parts           as above, the bytes as a list of parts (MessagePack counts the bytes of one
                                                   object in 32 bits, so an array from 4 GiB on needs several)

bfloat16 tensors are carried under their own dtype name (other tools refuse that name; converting them to float32 would double the
file and change the type without a word).
"""

import math

import numpy as np

from fedbiomed.common.exceptions import FedbiomedValueError

TAG_KEY, VALUE_KEY = "__type__", "value"
TUPLE, INT, NEGATIVE_INT, VECTOR = "tuple", "int", "-int", "Vector"
NDARRAY, GENERIC, TENSOR = "np.ndarray", "np.generic", "torch.Tensor"
NDARRAY_PARTS, TENSOR_PARTS = "np.ndarray.parts", "torch.Tensor.parts"
TAGS = frozenset({TUPLE, INT, NEGATIVE_INT, VECTOR, NDARRAY, GENERIC, TENSOR, NDARRAY_PARTS, TENSOR_PARTS})

BFLOAT16 = "bfloat16"
NUMPY_DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64", "complex64", "complex128"}
)
TENSOR_DTYPES = NUMPY_DTYPES | {BFLOAT16}

MAX_DEPTH = 16  # containers within containers; a tagged value counts as one
MAX_DIMENSIONS = 8
MAX_INT_BYTES = 1 << 16
MAX_PART_BYTES = (1 << 32) - 1
MAX_PARTS = 1 << 16
# Small values take up to 60 times more memory as Python objects than in the file: these bounds keep that below some 1.5 GiB, and the
# part of it that empty containers could take (the worst by far) below 100 MiB.
MAX_VALUES = 1 << 25
MAX_CONTAINERS = 1 << 20
LARGE_INT_COST = 4  # in values


class Budget:
    """What may still come; the same on both sides, so that nothing is written that cannot be read.

    Args:
        values: scalars, keys and containers together.
        containers: lists, tuples, maps, arrays and vectors.
    """

    def __init__(self, values: int = MAX_VALUES, containers: int = MAX_CONTAINERS) -> None:
        self._values = values
        self._containers = containers

    def spend(self, values: int = 1) -> None:
        """Pay for values.

        Raises:
            FedbiomedValueError: there are too many.
        """
        self._values -= values
        if self._values < 0:
            raise FedbiomedValueError("too many values in one file; put many numbers into one array")

    def enter(self, depth: int, tag: str = "") -> None:
        """Pay for a container, or another tagged value, that stands within `depth` containers.

        Raises:
            FedbiomedValueError: too deep, or there are too many.
        """
        if depth >= MAX_DEPTH:
            raise FedbiomedValueError(f"containers within containers more than {MAX_DEPTH} deep")
        if tag in (INT, NEGATIVE_INT):
            self.spend(LARGE_INT_COST)
            return
        self._containers -= 1
        if self._containers < 0:
            raise FedbiomedValueError("too many containers in one file; put many numbers into one array")


def wire_dtype(name: str) -> np.dtype[np.generic]:
    """The little-endian numpy type whose bytes stand in the file for a dtype name (that of two-byte integers for bfloat16)."""
    return np.dtype("int16" if name == BFLOAT16 else name).newbyteorder("<")


def checked_size(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    """Bytes of an array of that shape.

    Raises:
        FedbiomedValueError: a dimension is negative, there are too many, or such an array cannot be addressed.
    """
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise FedbiomedValueError(f"an array has at most {MAX_DIMENSIONS} dimensions, none negative, not shape {shape}")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 1 << 63:
        raise FedbiomedValueError(f"an array of shape {shape} cannot be addressed")
    return math.prod(shape) * dtype.itemsize
