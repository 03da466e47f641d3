"""Messages to bytes and back: one JSON object with the message's type, the protocol version and its fields."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from fedbiomed.common.constants import MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.messages import approval, discovery, failure, joye_libert, monitoring, presence, secagg, training
from fedbiomed.common.messages.message import Message, field_types, from_json, read_json


def _by_name() -> Mapping[str, type[Message]]:
    found = {}
    for module in (approval, discovery, failure, joye_libert, monitoring, presence, secagg, training):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.__name__:
                found[value.__name__] = value
    return found


MESSAGE_TYPES = _by_name()


def encode(message: Message) -> bytes:
    """Write a message as UTF-8 JSON.

    Raises:
        FedbiomedMessageError: it is over 64 KB or holds a number that JSON has not (NaN, infinity).
    """
    content = {"type": type(message).__name__, "protocol_version": PROTOCOL_VERSION}
    content |= {name: getattr(message, name) for name in field_types(type(message))}
    try:
        payload = json.dumps(content, separators=(",", ":"), allow_nan=False, default=asdict).encode()
    except (TypeError, ValueError) as error:
        raise FedbiomedMessageError(f"{type(message).__name__} cannot be written as JSON: {error}") from error
    if len(payload) > MAX_MESSAGE_BYTES:
        raise FedbiomedMessageError(
            f"{type(message).__name__} has {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} may travel; put large things in a file"
        )
    return payload


def decode(payload: bytes) -> Message:
    """Read a message, checking everything.

    Raises:
        FedbiomedMessageError: too large, not JSON, unknown type or field, field missing or of wrong type, other protocol version.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise FedbiomedMessageError(f"a message of {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    content = _object(payload)
    version, type_name = content.pop("protocol_version", None), content.pop("type", None)
    if version != PROTOCOL_VERSION:
        raise FedbiomedMessageError(f"protocol version {version!r:.40}, this side speaks {PROTOCOL_VERSION!r}: use the same release")
    message_type = MESSAGE_TYPES.get(type_name) if isinstance(type_name, str) else None
    if message_type is None:
        raise FedbiomedMessageError(f"unknown message type {type_name!r:.80}")
    return _build(message_type, content)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        content = read_json(payload)
    except (ValueError, RecursionError) as error:
        raise FedbiomedMessageError(f"a message that is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FedbiomedMessageError(f"a message is a JSON object, not {type(content).__name__}")
    return content


def _build(message_type: type[Message], content: dict[str, Any]) -> Message:
    kinds = field_types(message_type)
    required = {field.name for field in fields(message_type) if field.default is MISSING and field.default_factory is MISSING}
    if content.keys() - kinds.keys() or required - content.keys():
        raise FedbiomedMessageError(
            f"{message_type.__name__}: unknown fields {sorted(content.keys() - kinds.keys())!r:.120}, "
            f"missing fields {sorted(required - content.keys())}"
        )
    return message_type(**{name: from_json(value, kinds[name]) for name, value in content.items()})
