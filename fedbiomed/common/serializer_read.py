"""Read tagged MessagePack from memory, or from a mapped file, without trust in what it says.

Our own decoder, because the one of msgpack first copies each array into a `bytes` (a second copy would follow to make it writable) and
reserves memory for as many elements as a header claims. Here every claim is checked against the bytes that are there, and an array is
copied once, from the map into its own memory. Long lists of plain numbers still go through msgpack, block by block.
"""

import itertools
import logging
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np

from fedbiomed.common import serializer_types as types
from fedbiomed.common.exceptions import FedbiomedValueError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 14
_MOST_BYTES_OF_A_NUMBER = 9
_FEW = 32  # from so many elements on a list is tried by blocks

# What a first byte announces: kind, how the number after it is coded (None: there is none), and the number itself in that case.
_Form = tuple[str, struct.Struct | None, Any]


def _forms() -> tuple[_Form, ...]:
    forms: list[_Form] = [("refused", None, code) for code in range(256)]
    forms[0x00:0x80] = [("scalar", None, number) for number in range(128)]
    forms[0x80:0xC0] = [(kind, None, n) for kind, most in (("map", 16), ("list", 16), ("text", 32)) for n in range(most)]
    forms[0xE0:] = [("scalar", None, number) for number in range(-32, 0)]
    for code, value in ((0xC0, None), (0xC2, False), (0xC3, True)):
        forms[code] = ("scalar", None, value)
    for first, kind, codes in (
        (0xC4, "bytes", "BHI"),
        (0xCA, "scalar", "fdBHIQbhiq"),
        (0xD9, "text", "BHI"),
        (0xDC, "list", "HI"),
        (0xDE, "map", "HI"),
    ):
        forms[first : first + len(codes)] = [(kind, struct.Struct(f">{code}"), None) for code in codes]
    return tuple(forms)


_FORMS = _forms()


class Reader:
    """Reads one value from a buffer.

    Args:
        data: the whole content, as bytes (format `B`).
        budget: how much it may hold.
    """

    def __init__(self, data: memoryview, budget: types.Budget | None = None) -> None:
        self._data = data
        self._at = 0
        self._budget = budget or types.Budget()
        self._kinds: Mapping[str, Callable[[Any, int], Any]] = {
            "scalar": lambda value, _: value,
            "text": lambda size, _: self._text(size),
            "bytes": lambda size, _: bytes(self._bytes(size)),
            "list": self._list,
            "map": self._map,
        }
        self._tags: Mapping[str, Callable[[int], Any]] = {
            types.TUPLE: lambda depth: tuple(self._items(self._expect("list"), depth)),
            types.INT: lambda _: self._large_int(),
            types.NEGATIVE_INT: lambda _: -self._large_int(),
            types.NDARRAY: lambda _: self._array(),
            types.NDARRAY_PARTS: lambda _: self._array(is_split=True),
            types.GENERIC: lambda _: self._generic(),
            types.TENSOR: lambda _: self._tensor(),
            types.TENSOR_PARTS: lambda _: self._tensor(is_split=True),
            types.VECTOR: self._vector,
        }

    def read(self) -> Any:
        """The value; nothing may stand behind it.

        Raises:
            FedbiomedValueError: where the content is not what this project's files may hold, and why.
        """
        try:
            value = self._value(0)
            if self._at != len(self._data):
                raise FedbiomedValueError(f"{len(self._data) - self._at} bytes stand behind the end of the value")
        except FedbiomedValueError as error:
            raise FedbiomedValueError(f"byte {self._at}: {error}") from error
        return value

    def _value(self, depth: int) -> Any:
        self._budget.spend()
        kind, number = self._head()
        method = self._kinds.get(kind)
        if method is None:
            raise FedbiomedValueError(f"type code 0x{number:02x} is not used in parameter files")
        return method(number, depth)

    def _head(self) -> tuple[str, Any]:
        """Kind of the next value, and the value itself of a scalar, the number of bytes or entries of anything else."""
        kind, coded, number = _FORMS[self._data[self._take(1)]]
        if coded is None:
            return kind, number
        return kind, coded.unpack_from(self._data, self._take(coded.size))[0]

    def _expect(self, kind: str, most: int | None = None) -> Any:
        found, number = self._head()
        if found != kind or (most is not None and number > most):
            limit = "" if most is None else f" of at most {most}"
            raise FedbiomedValueError(f"a {kind}{limit} must stand here, not a {found} ({number!r:.40})")
        return number

    def _take(self, size: int) -> int:
        """Step over so many bytes; gives where they begin."""
        start = self._at
        if size > len(self._data) - start:
            raise FedbiomedValueError(f"{size} bytes are announced, {len(self._data) - start} are there")
        self._at += size
        return start

    def _bytes(self, size: int) -> memoryview:
        start = self._take(size)
        return self._data[start : start + size]

    def _text(self, size: int) -> str:
        try:
            return str(self._bytes(size), "utf-8")
        except UnicodeDecodeError as error:
            raise FedbiomedValueError(f"a text is not UTF-8 ({error.reason})") from error

    def _list(self, count: int, depth: int) -> list[Any]:
        self._budget.enter(depth)
        return self._items(count, depth)

    def _items(self, count: int, depth: int) -> list[Any]:
        self._check_count(count)
        items: list[Any] = self._numbers(count) if count >= _FEW else []
        while len(items) < count:
            items.append(self._value(depth + 1))
        return items

    def _check_count(self, count: int) -> None:
        """An element takes one byte at least."""
        if count > len(self._data) - self._at:
            raise FedbiomedValueError(f"{count} elements are announced, {len(self._data) - self._at} bytes are there")

    def _numbers(self, count: int) -> list[Any]:
        """The first elements of a list, as far as blocks of them are all plain numbers; perhaps none."""
        items: list[Any] = []
        while len(items) < count:
            size = min(_BLOCK, count - len(items))
            chunk = self._data[self._at : self._at + size * _MOST_BYTES_OF_A_NUMBER]
            unpacker = msgpack.Unpacker(read_size=len(chunk), max_array_len=0, max_map_len=0, max_str_len=0, max_bin_len=0, max_ext_len=0)
            unpacker.feed(chunk)
            try:
                block = list(itertools.islice(unpacker, size))
            except ValueError:  # something else stands there
                break
            if len(block) < size:
                break
            self._budget.spend(size)
            self._at += unpacker.tell()
            items += block
        return items

    def _map(self, count: int, depth: int) -> Any:
        self._check_count(2 * count)
        tag = self._first_tag() if count else ""
        self._budget.enter(depth, tag)
        if tag:
            return self._tagged(tag, count, depth)
        entries: dict[Any, Any] = {}
        for _ in range(count):
            key = self._key()
            if key in entries:
                raise FedbiomedValueError(f"a map has the key {key!r:.80} twice")
            self._budget.spend()
            entries[key] = self._value(depth + 1)
        if types.TAG_KEY in entries:
            self._check_unknown(entries[types.TAG_KEY])
        return entries

    def _first_tag(self) -> str:
        """The tag that a map begins with; empty, and nothing is taken, if it does not begin with one of ours."""
        start = self._at
        if self._key() == types.TAG_KEY:
            kind, number = self._head()
            tag = self._text(number) if kind == "text" else ""
            if tag in self._tags:
                return tag
        self._at = start
        return ""

    def _key(self) -> Any:
        kind, value = self._head()
        if kind not in ("scalar", "text", "bytes"):
            raise FedbiomedValueError(f"a key of a map must be a scalar, not a {kind}")
        return self._kinds[kind](value, 0)

    def _tagged(self, tag: str, count: int, depth: int) -> Any:
        if count != 2 or self._key() != types.VALUE_KEY:
            raise FedbiomedValueError(f"a {tag} is a map of {types.TAG_KEY!r} and then {types.VALUE_KEY!r}, and of nothing else")
        return self._tags[tag](depth)

    def _check_unknown(self, tag: object) -> None:
        if isinstance(tag, str) and tag in self._tags:
            raise FedbiomedValueError(f"the tag {tag!r} must be the first entry of its map")
        logger.warning("unknown tag %.80r in a parameter file: its map is given as it is", tag)

    def _large_int(self) -> int:
        return int.from_bytes(self._bytes(self._expect("bytes", types.MAX_INT_BYTES)), "big")

    def _generic(self) -> Any:
        if self._expect("list") != 2:
            raise FedbiomedValueError("a numpy scalar is a list of bytes and dtype")
        raw = self._bytes(self._expect("bytes"))
        return _filled([raw], types.wire_dtype(self._dtype(types.NUMPY_DTYPES)), ())[()]

    def _array(self, *, is_split: bool = False) -> np.ndarray[Any, Any]:
        parts, name, shape = self._array_spec(types.NUMPY_DTYPES, is_split=is_split)
        return _filled(parts, types.wire_dtype(name), shape)

    def _tensor(self, *, is_split: bool = False) -> Any:
        import torch  # heavy, and only needed for files with tensors

        parts, name, shape = self._array_spec(types.TENSOR_DTYPES, is_split=is_split)
        tensor = torch.from_numpy(_filled(parts, types.wire_dtype(name), shape))
        return tensor.view(torch.bfloat16) if name == types.BFLOAT16 else tensor

    def _array_spec(self, dtypes: frozenset[str], *, is_split: bool) -> tuple[list[memoryview], str, tuple[int, ...]]:
        if self._expect("list") != 3:
            raise FedbiomedValueError("an array is a list of bytes, dtype and shape")
        count = self._expect("list", types.MAX_PARTS) if is_split else 1
        parts = [self._bytes(self._expect("bytes")) for _ in range(count)]
        name = self._dtype(dtypes)
        return parts, name, tuple(self._dimension() for _ in range(self._expect("list", types.MAX_DIMENSIONS)))

    def _dtype(self, allowed: frozenset[str]) -> str:
        name = self._text(self._expect("text", 16))
        if name not in allowed:
            raise FedbiomedValueError(f"dtype {name!r} is not carried; {', '.join(sorted(allowed))} are")
        return name

    def _dimension(self) -> int:
        number = self._expect("scalar")
        if type(number) is not int:
            raise FedbiomedValueError(f"a dimension must be an integer, not {number!r}")
        return number

    def _vector(self, depth: int) -> Any:
        coefs = self._value(depth + 1)
        if not isinstance(coefs, dict) or not all(isinstance(name, str) and hasattr(coef, "dtype") for name, coef in coefs.items()):
            raise FedbiomedValueError("a Vector is a map of arrays by name")
        from fedbiomed.common.declearn_library import Vector  # heavy, and only needed for files of declearn's optimizers

        try:
            return Vector.build(coefs)
        except TypeError as error:
            raise FedbiomedValueError(f"a Vector cannot be built: {error}") from error


def _filled(parts: list[memoryview], dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A new array of these bytes; its memory is taken once it is known that they fill it."""
    size, found = types.checked_size(shape, dtype), sum(map(len, parts))
    if size != found:
        raise FedbiomedValueError(f"an array of shape {shape} and dtype {dtype.name} has {size} bytes, {found} are there")
    array = np.empty(shape, dtype)
    flat = array.reshape(-1).view(np.uint8)
    at = 0
    for part in parts:
        flat.data[at : at + len(part)] = part
        at += len(part)
    if dtype.kind == "b" and flat.max(initial=0) > 1:
        raise FedbiomedValueError("a bool array holds bytes other than 0 and 1")
    return array
