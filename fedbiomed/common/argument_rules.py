"""Check free dicts of arguments against a scheme: `{key: {"rules": [...], "required": bool, "default": value}}`."""

import copy
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedUserInputError

Scheme = Mapping[str, dict[str, Any]]
NO_DEFAULT = object()
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words, and the function that brings it to its normal form or raises ValueError with a reason."""

    needed: str
    normal: Callable[[Any], Any]

    def __repr__(self) -> str:
        return self.needed


def free_dict(value: Any) -> dict[str, Any]:
    """A dict that can travel as JSON; numbers of numpy become numbers of Python, tuples stay.

    Raises:
        ValueError: it is none: which of its values cannot travel.
    """
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004  # one way to say no, for all rules
    return _plain(value, "", _MAX_DEPTH)  # type: ignore[no-any-return]  # a dict in is a dict out


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth < 0:
        raise ValueError(f"{where:.40}... is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        if any(type(key) is not str for key in value):
            raise ValueError(f"keys{where and f' of {where}'} must be text")
        return {key: _plain(item, f"{where}[{key!r}]", depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}[{i}]", depth - 1) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is not None and type(plain) not in (bool, int, float, str):
        raise ValueError(f"{where} is a {type(value).__name__}, which cannot travel to the nodes")
    if isinstance(plain, float) and not math.isfinite(plain):
        raise ValueError(f"{where} is {plain}, which cannot travel to the nodes: JSON has no such number")
    return plain


def refused(reason: str) -> FedbiomedUserInputError:
    """The error to raise for a wrong argument."""
    return FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: {reason}")


def entry_of(key: Any, scheme: Scheme, what: str) -> dict[str, Any]:
    """The part of a scheme that concerns a key; `what` names the dict in messages.

    Raises:
        FedbiomedUserInputError: the scheme has no such key.
    """
    if key in scheme:
        return scheme[key]
    close = difflib.get_close_matches(str(key), scheme, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise refused(f"{what} has no key {_shown(key)}; {hint}known are {', '.join(scheme)}")


def checked(values: Mapping[str, Any], scheme: Scheme, what: str) -> dict[str, Any]:
    """The values in their normal form.

    Raises:
        FedbiomedUserInputError: not a mapping, a key is unknown, or a value is wrong.
    """
    if not isinstance(values, Mapping):
        raise refused(f"{what} must be a dict, not {_shown(values)} ({type(values).__name__})")
    return {key: _checked_value(key, value, entry_of(key, scheme, what)["rules"], what) for key, value in values.items()}


def filled(values: Mapping[str, Any], scheme: Scheme, what: str, *, only_required: bool) -> dict[str, Any]:
    """As `checked`, in the order of the scheme, with defaults for keys that were not given (only for required ones, if so said).

    Raises:
        FedbiomedUserInputError: as `checked`; or a required key without default was not given.
    """
    given = checked(values, scheme, what)
    result = {}
    for key, entry in scheme.items():
        default, is_required = entry.get("default", NO_DEFAULT), entry.get("required", False)
        if key in given:
            result[key] = given[key]
        elif is_required and default is NO_DEFAULT:
            raise refused(f"{what}[{key!r}] is missing; {_needed(entry['rules'])} is needed")
        elif default is not NO_DEFAULT and (is_required or not only_required):
            result[key] = copy.deepcopy(default)
    return result


def checked_scheme(scheme: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A scheme that a user gave; each rule is a type, or a function of the value that gives whether it is right, or that and a reason.

    Raises:
        FedbiomedUserInputError: it is not of that form.
    """
    if not isinstance(scheme, Mapping):
        raise refused(f"extra_scheme must be a dict of rules by key, not {_shown(scheme)}")
    for key, entry in scheme.items():
        rules = entry.get("rules") if isinstance(entry, dict) else None
        if not isinstance(rules, list | tuple) or not all(isinstance(rule, Rule) or callable(rule) for rule in rules):
            needed = "a dict with 'rules' (a list of types or functions), 'required' and 'default'"
            raise refused(f"extra_scheme[{key!r:.80}] must be {needed}, not {_shown(entry)}")
    return {key: dict(entry) for key, entry in scheme.items()}


def _checked_value(key: str, value: Any, rules: Sequence[Any], what: str) -> Any:
    for rule in rules:
        try:
            value = _applied(rule, value)
        except ValueError as error:
            reason = str(error) or f"{_needed([rule])} is needed"
            raise refused(f"{what}[{key!r}] = {_shown(value)} ({type(value).__name__}) is not allowed: {reason}") from error
    return value


def _applied(rule: Any, value: Any) -> Any:
    if isinstance(rule, Rule):
        return rule.normal(value)
    if isinstance(rule, type):
        outcome: Any = isinstance(value, rule) and not (rule is int and isinstance(value, bool))
    else:
        outcome = rule(value)
    is_right, reason = outcome if isinstance(outcome, tuple) else (outcome, "")
    if not is_right:
        raise ValueError(reason)
    return value


def _needed(rules: Sequence[Any]) -> str:
    return " and ".join(repr(rule) if isinstance(rule, Rule) else f"a {rule.__name__}" for rule in rules)


def _shown(value: Any) -> str:
    """A value in one short line."""
    return f"{' '.join(repr(value).split()):.80}"
