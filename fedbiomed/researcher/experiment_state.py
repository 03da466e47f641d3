"""What a breakpoint tells, made into objects again.

Classes that it names are found among our own files, or among what the user has defined in this process already. A breakpoint is data:
nothing is imported because it says so.
"""

import inspect
import logging
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedExperimentError, FedbiomedPluginError
from fedbiomed.common.files import link_or_copy, sha256_of_file
from fedbiomed.common.plugins import load_class
from fedbiomed.researcher import aggregators, events, strategies
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.breakpoints import State
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.strategies.strategy import Strategy

logger = logging.getLogger(__name__)
T = TypeVar("T")
_OF_SINGLE_NODES = ("node_params", "node_optimizers")


def restored_aggregator(state: Mapping[str, Any]) -> Aggregator:
    """The aggregator that a breakpoint tells of.

    Raises:
        FedbiomedBreakpointError: its class is not known in this process, or cannot be made without arguments.
    """
    aggregator = _made(checks.aggregator, class_of(state, aggregators, Aggregator))
    aggregator.load_state_breakpoint(state)
    return aggregator


def restored_strategy(state: Mapping[str, Any], data: FederatedDataSet) -> Strategy:
    """The strategy that a breakpoint tells of, for the same data set.

    Raises:
        FedbiomedBreakpointError: its class is not known in this process.
    """
    chosen = class_of(state, strategies, Strategy)  # type: ignore[type-abstract]  # any class of that base
    strategy = _made(checks.strategy_for, chosen, data)
    strategy.load_state_breakpoint(state)
    return strategy


def restored_trainer(state: Mapping[str, Any] | None, round_: int) -> ModelTrainer:
    """The trainer that a breakpoint tells of, after so many rounds; the plain one where it tells of none.

    Raises:
        FedbiomedBreakpointError: its class is not known in this process, or its state is malformed.
    """
    if state is None:
        return ModelTrainer.plain()
    trainer = _made(checks.trainer, class_of(state, events, ModelTrainer))
    trainer.load_state_breakpoint(state, round_)
    return trainer


def _made(make: Callable[..., T], chosen: type[Any], *args: Any) -> T:
    try:
        return make(chosen, *args)
    except FedbiomedExperimentError as error:
        raise FedbiomedBreakpointError(
            f"{ErrorNumbers.FB413.value}: the breakpoint uses {chosen.__name__}, which cannot be made again: {error.__cause__ or error}; "
            "let its arguments have defaults, and load_state_breakpoint() set what save_state_breakpoint() told"
        ) from error


def folder_to_go_on_in(breakpoint_folder: Path, experiments: Path, name: str) -> str | None:
    """Name of the experiment folder for the next rounds; None for a new one.

    A breakpoint that was moved here must not write into another experiment that happens to have the same name.

    Args:
        breakpoint_folder: that was loaded.
        experiments: folder of this researcher's experiments.
        name: of the experiment when the breakpoint was written.
    """
    here = experiments / name
    if not here.exists() or breakpoint_folder.parent.resolve() == here.resolve():
        return name
    logger.warning("%s goes on in a new folder: %s belongs to another experiment", breakpoint_folder, here)
    return None


def settled(state: State, folder: Path) -> State:
    """The state with the rounds' files at home in the experiment's folder, so that breakpoints may be removed afterwards.

    Args:
        state: of a breakpoint.
        folder: the experiment's; what is not there gets a link.

    Raises:
        FedbiomedBreakpointError: it cannot be linked or copied there.
    """
    job, params = state["job"], state["aggregated_params"]
    params = {round_: {"params_path": _at_home(entry["params_path"], folder)} for round_, entry in params.items()}
    replies = [[_with_file_at_home(reply, folder) for reply in replies] for replies in job["training_replies"]]
    current = params.get(str(state["round_current"] - 1), {}).get("params_path")
    if current is None or not _are_equal(Path(current), Path(job["model_params_path"])):  # amid a chain, or they were set by hand
        current = _at_home(job["model_params_path"], folder, f"aggregated_params_{uuid.uuid4()}.mpk")
    own = {kind: {node_id: _at_home(path, folder) for node_id, path in job.get(kind, {}).items()} for kind in _OF_SINGLE_NODES}
    job = {**job, "training_replies": replies, "model_params_path": current, **own}
    return {**state, "aggregated_params": params, "job": job}


def _with_file_at_home(reply: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    path = reply.get("params_path")
    return {**reply, "params_path": path and _at_home(path, folder)}


def _at_home(path: str, folder: Path, name: str = "") -> str:
    target = folder / (name or Path(path).name)
    try:
        if not target.exists():
            link_or_copy(Path(path).resolve(), target)
        elif not _are_equal(target, Path(path)):
            return path  # only the breakpoint's own file was checked
    except OSError as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: cannot link {path} into {folder}: {error}") from error
    return str(target)


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two names are of one file, or of two of the same content: a folder that was copied has no links any more."""
    return one.samefile(other) or (one.stat().st_size == other.stat().st_size and sha256_of_file(one) == sha256_of_file(other))


def class_of(state: Mapping[str, Any], family: ModuleType, base: type[T]) -> type[T]:
    """The class that a state names by `module` and `class`: of a family's files, or one that the user has defined in this process.

    Raises:
        FedbiomedBreakpointError: there is none, or it is not derived from `base`.
    """
    module, name = str(state.get("module")), str(state.get("class"))
    if module.startswith(f"{family.__name__}."):
        try:
            return load_class(family, module, name, base)
        except FedbiomedPluginError as error:
            raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: {error}") from error
    found = getattr(sys.modules.get(module), name, None)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise FedbiomedBreakpointError(
            f"{ErrorNumbers.FB413.value}: the breakpoint uses the {base.__name__} {name!r:.80} of {module!r:.80}, which is not defined in "
            "this process; import it, or run the cell that defines it, before load_breakpoint"
        )
    return found
