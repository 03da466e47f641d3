"""The state of objects as values that the Serializer carries, and back: modules, optimizers, schedulers, generators, plain values.

No class is named in a state: whoever restores it brings objects of the right kind, and they are asked for what they take. A state that
does not fit is refused before anything is changed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from fedbiomed.common.checkpointing.weights import put_weights, require_same, shapes_of, weights_of
from fedbiomed.common.exceptions import FedbiomedCheckpointError
from fedbiomed.common.models.model import Model

State = dict[str, Any]
_PLAIN = (bool, int, float, str, bytes, type(None), np.generic)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of object gives its state, checks another, and takes it over."""

    name: str
    is_of: Callable[[Any], bool]
    take: Callable[[Any], Any]
    check: Callable[[Any, Any, str], None]
    put: Callable[[Any, Any], None]


def snapshot_attributes(subject: object, names: Sequence[str]) -> State:
    """States of attributes of an object, by name; copies, on the CPU.

    Raises:
        FedbiomedCheckpointError: an attribute is missing, or has no state that can be kept.
    """
    return {name: _taken(_attribute(subject, name), name) for name in names}


def restored_attributes(subject: object, names: Sequence[str], state: Mapping[str, Any]) -> None:
    """Give an object the states that `snapshot_attributes` took: objects take theirs over, plain values are set.

    Raises:
        FedbiomedCheckpointError: the state lacks an attribute or does not fit; the object is as before.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise FedbiomedCheckpointError(f"the state lacks {', '.join(missing)}; it has {', '.join(map(str, state)) or 'nothing'}")
    for name in names:
        _check(_attribute(subject, name), state[name], name)
    before = snapshot_attributes(subject, names)
    try:
        for name in names:
            _put_attribute(subject, name, state[name])
    except Exception as error:  # of whatever library the objects are
        for name in names:
            _put_attribute(subject, name, before[name])
        raise FedbiomedCheckpointError(f"the state does not fit: {type(error).__name__}: {error!s:.300}") from error


def copied(value: Any, what: str) -> Any:
    """A copy that the Serializer carries: tensors on the CPU, sub-classes of dict and list as what they are derived from.

    Raises:
        FedbiomedCheckpointError: it holds something else.
    """
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: copied(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item, what) for item in value]
    if isinstance(value, tuple):
        return tuple(copied(item, what) for item in value)
    if isinstance(value, _PLAIN) and not isinstance(value, Enum):
        return value
    raise FedbiomedCheckpointError(
        f"{what} is a {type(value).__name__}, which cannot be kept: numbers, text, arrays, lists and dicts of them, and objects with "
        "state_dict() and load_state_dict() can"
    )


def _attribute(subject: object, name: str) -> Any:
    if not hasattr(subject, name):
        raise FedbiomedCheckpointError(f"a {type(subject).__name__} has no attribute {name!r:.80} to keep")
    return getattr(subject, name)


def _put_attribute(subject: object, name: str, state: Mapping[str, Any]) -> None:
    own = getattr(subject, name)
    if state["kind"] == "value":
        setattr(subject, name, copied(state["value"], name))
    elif state["kind"] == "enum":
        setattr(subject, name, type(own)[state["value"]])
    else:
        _put(own, state)


def _taken(value: Any, what: str) -> State:
    if _is_group(value):
        return {"kind": "objects", "value": {key: _taken(item, f"{what}.{key}") for key, item in _items(value)}}
    kind = _kind_of(value)
    return {"kind": kind.name, "value": copied(kind.take(value), what)}


def _check(own: Any, state: Any, what: str) -> None:
    found = state.get("kind") if isinstance(state, Mapping) and "value" in state else None
    wanted = "objects" if _is_group(own) else _kind_of(own).name
    if found != wanted:
        raise FedbiomedCheckpointError(f"the state of {what} is one of kind {found!r:.40}, a {type(own).__name__} needs {wanted!r}")
    if wanted != "objects":
        _kind_of(own).check(own, state["value"], what)
        return
    items = dict(_items(own))
    if not isinstance(state["value"], Mapping) or items.keys() != state["value"].keys():
        raise FedbiomedCheckpointError(f"the state of {what} is not of {', '.join(map(str, items))}")
    for key, item in items.items():
        _check(item, state["value"][key], f"{what}.{key}")


def _put(own: Any, state: Mapping[str, Any]) -> None:
    if state["kind"] == "objects":
        for key, item in _items(own):
            _put(item, state["value"][key])
    else:
        _kind_of(own).put(own, state["value"])


def _is_group(value: Any) -> bool:
    """Whether it is a dict or list of objects that have states of their own."""
    items = _items(value)
    return bool(items) and all(_kind_of(item).name not in ("value", "enum") for _, item in items)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if type(value) is dict:
        return list(value.items())
    return list(enumerate(value)) if type(value) in (list, tuple) else []


def _kind_of(value: Any) -> _Kind:
    return next(kind for kind in _KINDS if kind.is_of(value))


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _check_weights(own: Any, state: Any, what: str) -> None:
    if not isinstance(state, Mapping):
        raise FedbiomedCheckpointError(f"the state of {what} holds no parameters by name")
    require_same(shapes_of(weights_of(own)), shapes_of(state), f"the state of {what}")


def _optimizer_state(optimizer: Any) -> State:
    return {**optimizer.state_dict(), "shapes": _group_shapes(optimizer)}


def _group_shapes(optimizer: Any) -> list[list[list[int]]]:
    return [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]


def _check_optimizer(own: Any, state: Any, what: str) -> None:
    if not isinstance(state, Mapping) or not {"state", "param_groups", "shapes"} <= state.keys():
        raise FedbiomedCheckpointError(f"the state of {what} is not that of an optimizer")
    needed = _group_shapes(own)
    if state["shapes"] != needed:
        raise FedbiomedCheckpointError(
            f"the state of {what} belongs to parameters of the shapes {state['shapes']!s:.200}, the optimizer has {needed!s:.200}"
        )
    for number, (mine, theirs) in enumerate(zip(own.param_groups, state["param_groups"], strict=True)):
        if mine.keys() - theirs.keys() - {"initial_lr"}:
            missing = ", ".join(sorted(mine.keys() - theirs.keys()))
            raise FedbiomedCheckpointError(f"the state of {what} is that of another optimizer: its group {number} lacks {missing}")


def _put_optimizer(own: Any, state: Mapping[str, Any]) -> None:
    own.load_state_dict(copied({"state": state["state"], "param_groups": state["param_groups"]}, "optimizer"))


def _check_keys(own: Any, state: Any, what: str) -> None:
    wanted = own.state_dict().keys()
    if not isinstance(state, Mapping) or state.keys() != wanted:
        raise FedbiomedCheckpointError(f"the state of {what} is not that of a {type(own).__name__}, which has {', '.join(sorted(wanted))}")


def _put_state_dict(own: Any, state: Mapping[str, Any]) -> None:
    own.load_state_dict({key: _like(value, state[key]) for key, value in own.state_dict().items()})


def _like(own: Any, value: Any) -> Any:
    """A copy of the value, with the counters where the object has them (those of `MultiStepLR`)."""
    if isinstance(own, Counter):
        return Counter(value)
    if isinstance(own, dict) and isinstance(value, dict):
        return {key: _like(own.get(key), item) for key, item in value.items()}
    if isinstance(own, list) and isinstance(value, list) and len(own) == len(value):
        return [_like(*pair) for pair in zip(own, value, strict=True)]
    return copied(value, "state")


def _check_enum(own: Any, state: Any, what: str) -> None:
    if not isinstance(state, str) or state not in type(own).__members__:
        raise FedbiomedCheckpointError(f"the state of {what} is {state!r:.80}, which is no {type(own).__name__}")


def _anything(own: Any, state: Any, what: str) -> None:
    """A plain value has no form to check; libraries check the states of generators themselves."""


def _nothing(own: Any, state: Any) -> None:
    """Plain values are set as attributes, not put into objects."""


def _put_numpy_generator(own: Any, state: Any) -> None:
    own.bit_generator.state = state


# The first that fits counts; the last fits always.
_KINDS = (
    _Kind("enum", lambda value: isinstance(value, Enum), lambda value: value.name, _check_enum, _nothing),
    _Kind(
        "weights",
        lambda value: isinstance(value, Model) or _has("state_dict", "load_state_dict", "named_parameters")(value),
        weights_of,
        _check_weights,
        lambda own, state: put_weights(state, own, "the state"),
    ),
    _Kind("optimizer", _has("state_dict", "load_state_dict", "param_groups"), _optimizer_state, _check_optimizer, _put_optimizer),
    _Kind("state_dict", _has("state_dict", "load_state_dict"), lambda value: value.state_dict(), _check_keys, _put_state_dict),
    _Kind("numpy_generator", _has("bit_generator"), lambda value: value.bit_generator.state, _anything, _put_numpy_generator),
    _Kind(
        "generator",
        _has("get_state", "set_state", "initial_seed"),
        lambda value: value.get_state(),
        _anything,
        lambda own, state: own.set_state(state),
    ),
    _Kind("value", lambda _: True, lambda value: value, _anything, _nothing),
)
