"""Write values as tagged MessagePack, array after array straight from where they lie: no copy of the whole is made."""

import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

from fedbiomed.common import serializer_types as types
from fedbiomed.common.exceptions import FedbiomedTypeError, FedbiomedValueError

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_NUMBERS = frozenset({type(None), bool, int, float})
_BLOCK = 1 << 16


class Writer:
    """Writes values one after the other.

    Args:
        write: takes each piece of the file in its order; a piece may be a view of an array of the value, so it must not be kept
            longer than that array stays as it is.
        part_bytes: larger arrays are written in parts.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], part_bytes: int = types.MAX_PART_BYTES) -> None:
        self._write = write
        self._part_bytes = part_bytes
        self._pack = msgpack.Packer(strict_types=True, use_bin_type=True)
        self._budget = types.Budget()

    def write(self, value: object, depth: int = 0) -> None:
        """Write one value that stands within `depth` containers.

        Raises:
            FedbiomedTypeError: the value, or one within it, is of a type that is not carried.
            FedbiomedValueError: too deep, too many values, or a text that has no UTF-8 form.
        """
        self._budget.spend()
        if type(value) in _PLAIN:
            self._plain(value, depth)
            return
        for base, method in _METHODS:
            if isinstance(value, base):
                method(self, value, depth)
                return
        self._foreign(value, depth)

    def _plain(self, value: Any, depth: int) -> None:
        try:
            self._write(self._pack.pack(value))
        except OverflowError:
            self._large_int(value, depth)
        except ValueError as error:
            raise FedbiomedValueError(f"cannot write a {type(value).__name__}: {error}") from error

    def _large_int(self, value: int, depth: int) -> None:
        size = (value.bit_length() + 7) // 8
        if size > types.MAX_INT_BYTES:
            raise FedbiomedValueError(f"cannot write an integer of {size} bytes; {types.MAX_INT_BYTES} are allowed")
        self._tag(types.INT if value >= 0 else types.NEGATIVE_INT, depth)
        self._write(self._pack.pack(abs(value).to_bytes(size, "big")))

    def _dict(self, value: dict[Any, Any], depth: int) -> None:
        self._budget.enter(depth)
        tag = value.get(types.TAG_KEY)
        if isinstance(tag, str) and tag in types.TAGS:
            raise FedbiomedValueError(f"cannot write a dict whose {types.TAG_KEY!r} is {tag!r}: reserved for tagged values")
        self._write(self._pack.pack_map_header(len(value)))
        for key, item in value.items():
            if type(key) not in _PLAIN or (type(key) is int and not -(1 << 63) <= key < 1 << 64):
                raise FedbiomedTypeError(f"cannot write a dict key {key!r:.80} of type {type(key).__name__}; keys are plain scalars")
            self._budget.spend()
            self._plain(key, depth)
            self.write(item, depth + 1)

    def _list(self, value: list[Any], depth: int) -> None:
        self._budget.enter(depth)
        self._items(value, depth)

    def _tuple(self, value: tuple[Any, ...], depth: int) -> None:
        self._tag(types.TUPLE, depth)
        self._items(value, depth)

    def _items(self, items: Sequence[Any], depth: int) -> None:
        self._write(self._pack.pack_array_header(len(items)))
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            if not self._numbers(block):
                for item in block:
                    self.write(item, depth + 1)

    def _numbers(self, items: Sequence[Any]) -> bool:
        """Write items in one go, if all are plain numbers: encrypted parameters are lists of millions."""
        if not _NUMBERS.issuperset(map(type, items)):
            return False
        try:
            packed = b"".join(map(self._pack.pack, items))
        except OverflowError:
            return False
        self._budget.spend(len(items))
        self._write(packed)
        return True

    def _ndarray(self, value: np.ndarray[Any, Any], depth: int) -> None:
        self._array(value, types.NDARRAY, _dtype_name(value), depth)

    def _generic(self, value: np.generic, depth: int) -> None:
        name = _dtype_name(value)
        self._tag(types.GENERIC, depth)
        self._write(self._pack.pack([np.asarray(value, types.wire_dtype(name)).tobytes(), name]))

    def _array(self, value: np.ndarray[Any, Any], tag: str, dtype_name: str, depth: int) -> None:
        dtype = types.wire_dtype(dtype_name)
        types.checked_size(value.shape, dtype)
        # copies this one array at most, and only where its bytes do not lie as the file wants them
        flat = np.ascontiguousarray(value, dtype=dtype).reshape(-1).view(np.uint8)
        is_split = flat.size > self._part_bytes
        self._tag(f"{tag}.parts" if is_split else tag, depth)
        self._write(self._pack.pack_array_header(3))
        parts = [flat[i : i + self._part_bytes] for i in range(0, flat.size, self._part_bytes)] or [flat]
        if is_split:
            self._write(self._pack.pack_array_header(len(parts)))
        for part in parts:
            self._write(_bin_header(part.size))
            self._write(part.data)
        self._write(self._pack.pack(dtype_name) + self._pack.pack(list(value.shape)))

    def _foreign(self, value: Any, depth: int) -> None:
        """Write a value of a library that need not be there: whoever made the value has loaded it, so it is looked up, not imported."""
        torch, declearn = sys.modules.get("torch"), sys.modules.get("declearn.model.api")
        if torch is not None and isinstance(value, torch.Tensor):
            self._tensor(value, depth)
        elif declearn is not None and isinstance(value, declearn.Vector):
            self._tag(types.VECTOR, depth)
            self.write(dict(value.coefs), depth + 1)
        else:
            raise FedbiomedTypeError(
                f"cannot write a {type(value).__module__}.{type(value).__qualname__}; None, bool, int, float, str, bytes, list, tuple, "
                "dict, numpy arrays and scalars, torch tensors and declearn Vectors are carried"
            )

    def _tensor(self, value: Any, depth: int) -> None:
        name = str(value.dtype).removeprefix("torch.")
        if name not in types.TENSOR_DTYPES or str(value.layout) != "torch.strided" or value.is_meta:
            raise FedbiomedTypeError(
                f"cannot write a tensor of dtype {name}, layout {value.layout}, device {value.device}; "
                f"dense ones with data are carried, of dtype {', '.join(sorted(types.TENSOR_DTYPES))}"
            )
        dense = value.detach().cpu().resolve_conj().resolve_neg()
        if name == types.BFLOAT16:
            dense = dense.view(sys.modules["torch"].int16)
        self._array(dense.numpy(), types.TENSOR, name, depth)

    def _tag(self, tag: str, depth: int) -> None:
        """Write what stands before the value of a tagged map."""
        self._budget.enter(depth, tag)
        self._write(_HEADS[tag])


def _head(tag: str) -> bytes:
    packed: list[bytes] = [msgpack.packb(text) for text in (types.TAG_KEY, tag, types.VALUE_KEY)]
    return b"".join([b"\x82", *packed])  # a map of two


_HEADS = {tag: _head(tag) for tag in types.TAGS}


def _dtype_name(value: np.ndarray[Any, Any] | np.generic) -> str:
    name = value.dtype.name
    if name not in types.NUMPY_DTYPES or hasattr(value, "mask"):
        raise FedbiomedTypeError(
            f"cannot write a {type(value).__name__} of dtype {name}; "
            f"plain ones are carried, of dtype {', '.join(sorted(types.NUMPY_DTYPES))}"
        )
    return name


def _bin_header(size: int) -> bytes:
    if size < 1 << 8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 1 << 16 else struct.pack(">BI", 0xC6, size)


# Sub-classes of the containers (an OrderedDict, a torch.Size) are written as what they are derived from; those of scalars are refused.
_METHODS: Sequence[tuple[type, Callable[[Writer, Any, int], None]]] = (
    (np.ndarray, Writer._ndarray),
    (np.generic, Writer._generic),
    (dict, Writer._dict),
    (tuple, Writer._tuple),
    (list, Writer._list),
)
