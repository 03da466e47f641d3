"""Aggregators with settings, and with a state of arrays: how both are checked and go through a breakpoint."""

import inspect
import math
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError, FedbiomedError
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.aggregators._scaffold_checks import parameter_names
from fedbiomed.researcher.aggregators.aggregator import Aggregator

_SETTINGS, _FILE = "settings", "state_filename"


class WithOptions(Aggregator):
    """An aggregator whose settings are the arguments of its constructor, each kept as an attribute of the same name."""

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, as they are now."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters if hasattr(self, name)}

    def state_arrays(self) -> dict[str, Any]:
        """What is remembered from round to round: nested dicts of arrays and numbers; empty where there is nothing."""
        return {}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave.

        Raises:
            KeyError, TypeError, AttributeError: it is something else.
        """

    def save_state_breakpoint(self, breakpoint_path: str | Path | None = None, **kwargs: Any) -> dict[str, Any]:
        """See `Aggregator`; a state of arrays is the file `<name>_state_<uuid4>.mpk`.

        Raises:
            FedbiomedBreakpointError: there is such a state, and no folder for it.
        """
        parameters: dict[str, Any] = {_SETTINGS: self.settings()}
        arrays = self.state_arrays()
        if arrays:
            if breakpoint_path is None:
                raise FedbiomedBreakpointError(f"the state of {type(self).__name__} needs a folder: save_state_breakpoint(breakpoint_path)")
            path = Path(breakpoint_path) / f"{type(self).__name__.lower()}_state_{uuid.uuid4()}.mpk"
            Serializer.dump(arrays, path)
            parameters[_FILE] = str(path)
        return {**super().save_state_breakpoint(breakpoint_path), "parameters": parameters}

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """See `Aggregator`; one that is refused leaves everything as it was.

        Raises:
            FedbiomedBreakpointError: it is the state of another aggregator, a setting is not one, or the file is not what it should be.
        """
        super().load_state_breakpoint(state)
        parameters = state.get("parameters")
        who = type(self).__name__
        if not isinstance(parameters, Mapping) or not isinstance(parameters.get(_SETTINGS), Mapping):
            raise FedbiomedBreakpointError(f"the state of {who} has no {_SETTINGS!r}")
        try:
            fresh = type(self)(**parameters[_SETTINGS])
            if parameters.get(_FILE) is not None:
                fresh.take_state_arrays(Serializer.load(parameters[_FILE]))
        except (OSError, TypeError, KeyError, AttributeError, FedbiomedError) as error:
            raise FedbiomedBreakpointError(f"the state of {who} cannot be read: {type(error).__name__}: {error}") from error
        vars(self).update({name: value for name, value in vars(fresh).items() if name not in ("_fds", "_training_plan_type")})


class OfPlan(WithOptions):
    """Knows which parameters are trained: what a torch plan calls a parameter, of other plans every floating array."""

    def __init__(self) -> None:
        super().__init__()
        self._names: frozenset[str] | None = None

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`; takes note of which parameters are trained.

        Args:
            *args, **kwargs: not needed here.
            training_plan: the researcher's, built.
        """
        if training_plan is not None:
            is_torch = training_plan.type() is TrainingPlans.TorchTrainingPlan
            self._names = parameter_names(training_plan) if is_torch else None
        return True

    def is_trained(self, name: str, array: np.ndarray[Any, Any]) -> bool:
        """Whether a parameter of that name is."""
        return name in self._names if self._names is not None else array.dtype.kind in "fc"


def checked_number(who: str, name: str, value: Any, interval: str, *, within: tuple[float, float], ends: str = "[]") -> float:
    """A number of an interval.

    Args:
        who: the aggregator, for the message.
        name: of the setting.
        value: what was given.
        interval: in words, for the message.
        within: its ends.
        ends: whether they belong to it: "[" or "(", then "]" or ")".

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    low, high = within
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        is_in = False
    else:
        is_in = (low <= value if ends[0] == "[" else low < value) and (value <= high if ends[1] == "]" else value < high)
    if not is_in:
        raise FedbiomedAggregatorError(f"FB401: {name} of {who} must be {interval}, not {value!r:.80}")
    return float(value)


def above_zero(who: str, name: str, value: Any) -> float:
    """A finite number above 0."""
    return checked_number(who, name, value, "a number above 0", within=(0.0, math.inf), ends="()")


def at_least_zero(who: str, name: str, value: Any) -> float:
    """A finite number of 0 or more."""
    return checked_number(who, name, value, "a number of 0 or more", within=(0.0, math.inf), ends="[)")


def decay_rate(who: str, name: str, value: Any) -> float:
    """A number from 0 to below 1."""
    return checked_number(who, name, value, "a number from 0 to below 1", within=(0.0, 1.0), ends="[)")


def checked_count(who: str, name: str, value: Any, least: int) -> int:
    """An integer of at least so much.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise FedbiomedAggregatorError(f"FB401: {name} of {who} must be an integer of {least} or more, not {value!r:.80}")
    return value


def checked_weight(node_id: str, weight: float) -> float:
    """By which an update counts: a finite number of 0 or more.

    Raises:
        AggregationError: it is not.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise AggregationError(f"the weight of {node_id} must be a number of 0 or more, not {weight!r}")
    return weight


def require_torch(who: str, training_plan: Any) -> None:
    """Check that a plan, where one is given, is on torch.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    if training_plan is not None and training_plan.type() is not TrainingPlans.TorchTrainingPlan:
        raise FedbiomedAggregatorError(f"FB401: {who} works with torch plans only, this one is a {training_plan.type()}")


def checked_choice(who: str, name: str, value: Any, choices: Iterable[str]) -> str:
    """One of some words.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise FedbiomedAggregatorError(f"FB401: {name} of {who} must be one of {', '.join(known)}, not {value!r:.80}")
    return value


def checked_flag(who: str, name: str, value: Any) -> bool:
    """A bool.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    if not isinstance(value, bool):
        raise FedbiomedAggregatorError(f"FB401: {name} of {who} must be True or False, not {value!r:.80}")
    return value
