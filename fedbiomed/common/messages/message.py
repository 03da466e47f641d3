"""The base of every message: a frozen dataclass whose fields are checked when it is made and when it is read."""

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.exceptions import FedbiomedMessageError

_MAX_DEPTH = 16
_MAX_INT = 2**63  # what a database takes
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What travels over the broker.

    Field types may be `str`, `int` (of 64 bits), `float` (an int will do), `bool`, `dict[str, Any]` (of JSON values), a dataclass that
    checks itself (`FileRef`), and of these `X | None`, `tuple[X, ...]` and `dict[str, X]`. Fields called `..._id` must look like ids.

    Raises:
        FedbiomedMessageError: a field has another type, or an id could not be part of a topic.
    """

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, kind):
                raise FedbiomedMessageError(
                    f"{type(self).__name__}.{name} must be {_spell(kind)}, not {type(value).__name__} {value!r:.80}"
                )
            if name.endswith("_id") and value is not None and not ID_PATTERN.fullmatch(value):
                raise FedbiomedMessageError(f"{type(self).__name__}.{name} is not an id: {value!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Message):
    """Asked by a researcher; what answers it carries the same `request_id`.

    Args:
        request_id: drawn anew for each question.
        researcher_id: who asks, and so where the answer goes.
        issued_at: seconds since 1970 by the researcher's clock.
        expires_at: the same; afterwards no answer is wanted.
    """

    request_id: str
    researcher_id: str
    issued_at: float
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Message):
    """Answered by a node to one request."""

    request_id: str
    researcher_id: str
    node_id: str


def field_types(message_type: type[Message]) -> dict[str, Any]:
    """Resolved annotations of the fields of a message type, by name."""
    return _resolved(message_type)  # type: ignore[arg-type]  # the checker looks at the hash of instances, not of the class


@cache
def _resolved(message_type: type[Message]) -> dict[str, Any]:
    hints = typing.get_type_hints(message_type)
    return {field.name: hints[field.name] for field in fields(message_type)}


def _fits(value: object, kind: Any) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, args[1]) for k, v in value.items())
    if kind is Any:
        return is_json(value)
    if type(value) is int and kind in (int, float):
        return -_MAX_INT <= value < _MAX_INT
    return type(value) is (type(None) if kind is None else kind)


def is_json(value: object, depth: int = 0) -> bool:
    """Whether a value can travel as JSON: None, bool, int, float, str, and lists and dicts of these, at most 16 deep."""
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_json(item, depth + 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_json(item, depth + 1) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def read_json(payload: bytes) -> Any:
    """Read JSON in UTF-8 whose numbers are finite; halves of characters, which JSON can spell and nothing can store, become `?`.

    Raises:
        ValueError: it is not JSON, or has a number that is none or too large.
        RecursionError: it is nested too deeply.
    """
    content = json.loads(payload.decode(), parse_constant=_refuse_number, parse_float=_finite)
    if _SURROGATE.search(payload):  # pairs of them, which make a character, too
        content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    return content


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse_number(text)
    return number


def _refuse_number(text: str) -> None:
    raise ValueError(f"{text:.40} is not a JSON number that can be used")


def from_json(value: object, kind: Any) -> object:
    """Turn a decoded JSON value into what a field of that type holds (lists to tuples, maps to dataclasses).

    Raises:
        FedbiomedMessageError: a part of the message is malformed. Other mismatches are left to the message's own check.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else from_json(value, next(arg for arg in args if arg is not type(None)))
    if origin is tuple and isinstance(value, list):
        return tuple(from_json(item, args[0]) for item in value)
    if origin is dict and isinstance(value, dict):
        return {name: from_json(item, args[1]) for name, item in value.items()}
    return _part(value, kind) if is_dataclass(kind) else value


def _part(value: object, kind: Any) -> object:
    """A dataclass from a map of all its fields; it checks them itself."""
    names = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise FedbiomedMessageError(f"a {kind.__name__} holds {', '.join(names)}, not {value!r:.120}")
    try:
        return kind(**value)
    except ValueError as error:
        raise FedbiomedMessageError(str(error)) from error


def _spell(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
