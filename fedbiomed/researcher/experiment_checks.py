"""What may be set in an experiment: each function gives the value in its normal form, or one error that names argument, given, allowed."""

import copy
import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fedbiomed.common.argument_rules import free_dict
from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.strategies.default_strategy import DefaultStrategy
from fedbiomed.researcher.strategies.model_merge import ModelMergeStrategy
from fedbiomed.researcher.strategies.strategy import Strategy

logger = logging.getLogger(__name__)
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_NAME = 200


def refuse(argument: str, given: Any, allowed: str) -> NoReturn:
    """Raise the error for a wrong argument."""
    raise FedbiomedExperimentError(f"{ErrorNumbers.FB410.value}: {argument} must be {allowed}, not {given!r:.120}")


def tags(given: Any) -> list[str] | None:
    """One tag is a list of one; none at all stays None."""
    return names("tags", [given] if isinstance(given, str) else given)


def names(argument: str, given: Any) -> list[str] | None:
    """A copy of a list of non-empty strings, or None."""
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name for name in given):
        refuse(argument, given, "a list of strings or None")
    return list(given)


def flag(argument: str, given: Any) -> bool:
    """A bool, and nothing that only behaves like one."""
    if not isinstance(given, bool):
        refuse(argument, given, "True or False")
    return given


def count(argument: str, given: Any, least: int) -> int:
    """An integer of at least `least`."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        refuse(argument, given, f"an integer of {least} or more")
    return given


def training_data(given: Any) -> FederatedDataSet | None:
    """A data set, also from a dict by node.

    Raises:
        FedbiomedFederatedDataSetError: the dict is malformed.
    """
    if isinstance(given, FederatedDataSet) or given is None:
        return given
    if not isinstance(given, dict):
        refuse("training_data", given, "a FederatedDataSet, a dict by node, or None")
    return FederatedDataSet(given)


def aggregator(given: Any) -> Aggregator:
    """An aggregator, made without arguments where a class is given."""
    chosen = FedAverage if given is None else given
    made = _made("aggregator", chosen) if inspect.isclass(chosen) and issubclass(chosen, Aggregator) else chosen
    if not isinstance(made, Aggregator):
        refuse("aggregator", given, "an Aggregator, a class of one, or None")
    return made


def trainer(given: Any) -> ModelTrainer:
    """A trainer, made without arguments where a class is given."""
    if given is None:
        return ModelTrainer.plain()
    made = _made("trainer", given) if inspect.isclass(given) and issubclass(given, ModelTrainer) else given
    if not isinstance(made, ModelTrainer):
        refuse("trainer", given, "a ModelTrainer, a class of one, or None")
    return made


def strategy(given: Any, data: FederatedDataSet | None) -> Strategy | None:
    """A strategy for a data set, None without one; a class is called with the data set."""
    chosen = DefaultStrategy if given is None else given
    if not (isinstance(chosen, Strategy) or (inspect.isclass(chosen) and issubclass(chosen, Strategy))):
        refuse("node_selection_strategy", given, "a Strategy, a class of one, or None")
    return None if data is None else strategy_for(chosen, data)


def merge_strategy(given: Any, own: Strategy) -> ModelMergeStrategy:
    """A strategy of a merge; without one, the experiment's own where it is one, else the default."""
    chosen = given if given is not None else own if isinstance(own, ModelMergeStrategy) else ModelMergeStrategy()
    if not isinstance(chosen, ModelMergeStrategy):
        refuse("strategy", given, "a ModelMergeStrategy or None")
    return chosen


def strategy_for(chosen: Strategy | type[Strategy], data: FederatedDataSet) -> Strategy:
    """A strategy, or one made from its class, told of the data set."""
    made: Strategy = chosen if isinstance(chosen, Strategy) else _made("node_selection_strategy", chosen, data)
    made.set_data(data)
    return made


def plan_class(given: Any) -> type[BaseTrainingPlan] | str | None:
    """The class of a plan, or its name where the plan is in a file."""
    if given is None:
        return None
    is_name = isinstance(given, str) and given.isidentifier()
    if not is_name and not (inspect.isclass(given) and issubclass(given, BaseTrainingPlan)):
        refuse("training_plan_class", given, "a class derived from a training plan, its name (with training_plan_path), or None")
    chosen: type[BaseTrainingPlan] | str = given
    return chosen


def plan_path(given: Any) -> str | None:
    """The absolute path of an existing Python file, or None."""
    if given is None:
        return None
    if not isinstance(given, str | Path) or not str(given).strip():
        refuse("training_plan_path", given, "the path of a Python file, or None")
    path = Path(given).expanduser().absolute()
    if path.suffix != ".py" or not path.is_file():
        refuse("training_plan_path", given, "the path of an existing file that ends in .py")
    return str(path)


def folder(given: Any) -> Path:
    """The absolute path of a breakpoint's folder, which may not exist."""
    if not isinstance(given, str | Path) or not str(given).strip():
        refuse("breakpoint_folder_path", given, "the path of a folder, or None for the last breakpoint")
    return Path(given).expanduser().absolute()


def model_args(given: Any) -> dict[str, Any]:
    """A copy of arguments that can travel as JSON."""
    if given is None:
        return {}
    try:
        return free_dict(given)
    except ValueError as error:
        refuse("model_args", given, f"a dict of None, bool, int, float, str, lists and dicts{_because(error)}")


def training_args(given: Any) -> TrainingArgs:
    """Checked arguments of a training, with all defaults, and apart from what was given.

    Raises:
        FedbiomedUserInputError: a key is unknown or a value is wrong.
    """
    if isinstance(given, TrainingArgs):
        return copy.deepcopy(given)
    if given is not None and not isinstance(given, Mapping):
        refuse("training_args", given, "a dict, a TrainingArgs, or None")
    return TrainingArgs(given, only_required=False)


def folder_name(given: Any) -> str:
    """A plain name of a folder; what is not allowed in one is replaced, which the log says."""
    if not isinstance(given, str):
        refuse("experimentation_folder", given, "the name of a folder, or None")
    name = _NOT_IN_A_NAME.sub("_", given).lstrip(".")[:_MAX_NAME]
    if not name.strip("_"):
        refuse("experimentation_folder", given, "a plain name of letters, digits, '_', '-' and '.'")
    if name != given:
        logger.warning("the experiment's folder is called %r: %r is not a plain name", name, given)
    return name


def _made(argument: str, chosen: type[Any], *args: Any) -> Any:
    try:
        return chosen(*args)
    except TypeError as error:
        raise FedbiomedExperimentError(
            f"{ErrorNumbers.FB410.value}: {argument} {chosen.__name__} cannot be made from its class: {error}; give an object"
        ) from error


def _because(error: Exception) -> str:
    return f" ({error})" if str(error) else ""
