"""The arguments of a training, checked once where the researcher gives them; defaults stand here."""

import copy
import math
import numbers
from collections.abc import Mapping
from typing import Any, Self

from fedbiomed.common.argument_rules import NO_DEFAULT, Rule, checked, checked_scheme, entry_of, filled, free_dict, refused
from fedbiomed.common.exceptions import FedbiomedMetricError
from fedbiomed.common.metrics import MetricTypes

_TESTING = ("test_ratio", "test_on_local_updates", "test_on_global_updates", "test_metric", "test_metric_args")
_PURE = ("batch_maxnum", "fedprox_mu", "log_interval", "dry_run", "epochs", "use_gpu", "num_updates")


class DPArgsValidator:
    """Checks the arguments of differential privacy.

    `type` (`central` or `local`), `sigma` and `clip` (floats, to be given); and, if wanted, `delta` (at which epsilon is told) and
    `epsilon_budget` (beyond which no node begins a round of the experiment).
    """

    @staticmethod
    def populate_with_defaults(dp_args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the default of `type` filled in.

        Raises:
            FedbiomedUserInputError: as `validate`.
        """
        return filled(dp_args, _DP_SCHEME, "dp_args", only_required=True)

    @staticmethod
    def validate(dp_args: Mapping[str, Any]) -> bool:
        """True, or an error.

        Raises:
            FedbiomedUserInputError: a key is missing or unknown, or a value is wrong: which, what was given, what is allowed.
        """
        DPArgsValidator.populate_with_defaults(dp_args)
        return True


def _count(value: Any, least: int = 0, most: float = math.inf) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= int(value) <= most:
        raise ValueError
    return int(value)


def _real(value: Any, most: float = math.inf) -> float:
    if not isinstance(value, float) or not 0 <= value <= most or math.isinf(value):
        raise ValueError
    return float(value)


def _positive(value: Any, below: float = math.inf) -> float:
    if not 0 < _real(value) < below:
        raise ValueError
    return float(value)


def _metric_name(value: Any) -> str:
    if isinstance(value, MetricTypes):
        return value.name
    try:
        return MetricTypes.get_metric_type_by_name(value).name
    except FedbiomedMetricError as error:
        raise ValueError from error


def _dp_type(value: Any) -> str:
    if value not in ("central", "local"):
        raise ValueError
    return str(value)


def _or_none(rule: Rule) -> Rule:
    return Rule(f"None or {rule.needed}", lambda value: None if value is None else rule.normal(value))


def _dp_args(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004  # one way to say no, for all rules
    return DPArgsValidator.populate_with_defaults(value)


_DICT = Rule("a dict of None, bool, int, float, str, lists and dicts", free_dict)
_OPTIONAL_COUNT = _or_none(Rule("an integer of 0 or more", _count))

_DP_SCHEME: dict[str, dict[str, Any]] = {
    "type": {"rules": [Rule("'central' or 'local'", _dp_type)], "required": True, "default": "central"},
    "sigma": {"rules": [Rule("a float of 0 or more", _real)], "required": True, "default": NO_DEFAULT},
    "clip": {"rules": [Rule("a float above 0", _positive)], "required": True, "default": NO_DEFAULT},
    "delta": {"rules": [Rule("a float between 0 and 1", lambda value: _positive(value, below=1.0))], "required": False},
    "epsilon_budget": {"rules": [Rule("a float above 0", _positive)], "required": False},
}

_RULES: Mapping[str, tuple[Any, Any]] = {
    "optimizer_args": (_DICT, {}),
    "loader_args": (_DICT, {}),
    "epochs": (_OPTIONAL_COUNT, None),
    "num_updates": (_OPTIONAL_COUNT, None),
    "dry_run": (bool, False),
    "batch_maxnum": (_OPTIONAL_COUNT, None),
    "test_ratio": (Rule("a float from 0.0 to 1.0", lambda value: _real(value, most=1.0)), 0.0),
    "test_on_local_updates": (bool, False),
    "test_on_global_updates": (bool, False),
    "test_metric": (_or_none(Rule(f"one of {', '.join(MetricTypes.get_all_metrics())}", _metric_name)), None),
    "test_metric_args": (_DICT, {}),
    "log_interval": (Rule("an integer of 1 or more", lambda value: _count(value, least=1)), 10),
    "fedprox_mu": (_or_none(Rule("a float of 0 or more", _real)), None),
    "use_gpu": (bool, False),
    "dp_args": (_or_none(Rule("a dict with 'sigma', 'clip' and perhaps 'type'", _dp_args)), None),
    "share_persistent_buffers": (bool, True),
    "random_seed": (_or_none(Rule("an integer from 0 to 4294967295", lambda value: _count(value, most=2**32 - 1))), None),
}


_Dict = dict[str, Any]  # a name for what `TrainingArgs.dict` hides in the class body


class TrainingArgs:
    """A checked set of training arguments; what is not given has its default.

    Values come out as copies. `test_metric` is kept as the metric's name in upper case, numbers of numpy as numbers of Python.

    >>> args = TrainingArgs({"epochs": 2, "loader_args": {"batch_size": 8}, "test_metric": "f1_score"})
    >>> args["log_interval"], args["test_metric"], args.loader_arguments()
    (10, 'F1_SCORE', {'batch_size': 8})
    >>> args ^= {"epochs": 3}
    >>> args["epochs"]
    3
    >>> args["epoch"] = 4
    Traceback (most recent call last):
        ...
    fedbiomed.common.exceptions.FedbiomedUserInputError: FB414: ... training_args has no key 'epoch'; did you mean 'epochs'? known are ...

    Args:
        ta: given values by name.
        extra_scheme: further keys, or other rules for known ones: `{key: {"rules": [...], "required": bool, "default": value}}`. A rule
            is a type, or a function of the value that gives whether it is right, or that and a reason.
        only_required: leave out keys of `extra_scheme` that are neither given nor required; else they are filled with their defaults.

    Raises:
        FedbiomedUserInputError: a key is unknown or missing, or a value is wrong: which, what was given, what is allowed.
    """

    def __init__(
        self,
        ta: Mapping[str, Any] | None = None,
        extra_scheme: Mapping[str, Any] | None = None,
        only_required: bool = True,  # by position in the public signature
    ) -> None:
        self._scheme = self.default_scheme() | checked_scheme(extra_scheme or {})
        self._values = filled({} if ta is None else ta, self._scheme, "training_args", only_required=only_required)

    @classmethod
    def default_scheme(cls) -> dict[str, dict[str, Any]]:
        """Rules, defaults and whether it must be there, for every known key."""
        return {key: {"rules": [rule], "required": True, "default": copy.copy(default)} for key, (rule, default) in _RULES.items()}

    def scheme(self) -> dict[str, dict[str, Any]]:
        """As `default_scheme`, with the extra keys of this object."""
        return {key: copy.copy(found) for key, found in self._scheme.items()}

    def default_value(self, key: str) -> Any:
        """The default of a key.

        Raises:
            FedbiomedUserInputError: the key is unknown or has no default.
        """
        found = entry_of(key, self._scheme, "training_args")
        if found.get("default", NO_DEFAULT) is NO_DEFAULT:
            raise refused(f"training_args[{key!r}] has no default")
        return copy.deepcopy(found["default"])

    def testing_arguments(self) -> dict[str, Any]:
        """The five `test_...` arguments."""
        return self._some(_TESTING)

    def loader_arguments(self) -> _Dict:
        """Arguments of the data loader."""
        args: _Dict = self["loader_args"]
        return args

    def optimizer_arguments(self) -> _Dict:
        """Arguments of the optimizer."""
        args: _Dict = self["optimizer_args"]
        return args

    def dp_arguments(self) -> _Dict | None:
        """Arguments of differential privacy, None for none."""
        args: _Dict | None = self["dp_args"]
        return args

    def pure_training_arguments(self) -> _Dict:
        """The seven arguments of the training loop itself."""
        return self._some(_PURE)

    def dict(self) -> _Dict:
        """All arguments; they can travel as JSON, except what an extra scheme lets in."""
        return copy.deepcopy(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where there is none."""
        return copy.deepcopy(self._values[key]) if key in self._values else default

    def update(self, values: Mapping[str, Any]) -> Self:
        """Set several values, all or, when one is refused, none.

        Raises:
            FedbiomedUserInputError: a key is unknown or a value is wrong.
        """
        self._values = self._values | checked(values, self._scheme, "training_args")
        return self

    def __ixor__(self, values: Mapping[str, Any]) -> Self:
        return self.update(values)

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            entry_of(key, self._scheme, "training_args")
            raise refused(f"training_args[{key!r}] was not given")
        return copy.deepcopy(self._values[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __str__(self) -> str:
        return str(self._values)

    def __repr__(self) -> str:
        return f"TrainingArgs(scheme: {self._scheme}, values: {self._values})"

    def _some(self, keys: tuple[str, ...]) -> _Dict:
        return {key: self[key] for key in keys}
