"""The aggregated models that an experiment keeps beside its rounds: the latest, the best.

A model is measured after it was made: the nodes validate the parameters of round r at the start of round r+1, or in the validation after
the last round. So checkpointers by score hear of a model one round later than the others.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common import checkpointing
from fedbiomed.common.checkpointing.checkpointer import Checkpointer
from fedbiomed.common.checkpointing.function import FunctionCheckpointer
from fedbiomed.common.checkpointing.server_module import ServerCheckpointAndStateModule
from fedbiomed.common.checkpointing.state_checkpointer import PerRoundStateCheckpointer
from fedbiomed.common.constants import ErrorNumbers, Phase
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedExperimentError
from fedbiomed.common.metric_aggregation import weighted_metrics
from fedbiomed.researcher.experiment_checks import refuse
from fedbiomed.researcher.experiment_state import class_of
from fedbiomed.researcher.history import LOSS, History, Point

State = dict[str, Any]


class KeepsAggregatedModels:
    """The part of an `Experiment` that keeps aggregated models."""

    _checkpointer: ServerCheckpointAndStateModule | None = None
    _history: History
    _aggregated_params: dict[int, Any]
    _measured: Any = None

    def checkpointer(self) -> ServerCheckpointAndStateModule | None:
        """What keeps aggregated models; None: nothing does, beside the files of the rounds."""
        return self._checkpointer

    def set_checkpointer(self, checkpointer: ServerCheckpointAndStateModule | None) -> ServerCheckpointAndStateModule | None:
        """Set what keeps aggregated models, from the next round on; it goes into breakpoints.

        A score is worked out from the nodes' validation of the aggregated model, each node counting by its rows; so
        `test_on_global_updates` must be on for it. With a trainer that tests after each round (`ModelTrainer`) it is known right after that
        test; else with the reports of the next round, and after the last round of the limit with the test that ends `run`. The loss is the
        value that the validation reports under the name `Loss`.

        Raises:
            FedbiomedExperimentError: it is no such module, or uses what could not be found again from a breakpoint.
        """
        self._checkpointer, self._measured = checked(checkpointer), None
        return self._checkpointer

    def _require_scores(self, *, is_tested: bool) -> None:
        if self._checkpointer is not None and self._checkpointer.needs_score and not is_tested:
            raise FedbiomedExperimentError(
                f"{ErrorNumbers.FB411.value}: the checkpointer keeps the best aggregated model, which nobody measures: "
                "set_test_on_global_updates(True), or keep the latest one"
            )

    def _keep_new(self, round_: int) -> None:
        """Hand over the model that a round made; in a chain not every round makes one."""
        if self._checkpointer is not None and round_ in self._aggregated_params:
            self._checkpointer.new_model(self._aggregated_params[round_]["params"])

    def _keep_measured(self, round_: int, rows: Mapping[str, int]) -> None:
        """Hand over the model of the round before, of which the reports of this one tell; once, though a model test came before them."""
        points = [point for point in self._history.points() if point.round == round_ and point.phase == Phase.TEST_GLOBAL]
        model = self._aggregated_params.get(round_ - 1)
        if self._checkpointer is None or not points or model is None or model is self._measured:
            return
        metrics = weighted_values(points, rows)
        self._checkpointer.measured_model(model["params"], metrics.get(LOSS, math.nan), metrics)
        self._measured = model


def weighted_values(points: Iterable[Point], rows: Mapping[str, int]) -> dict[str, float]:
    """Mean of each metric: of a node's batches, then over the nodes that reported it, each counting by its rows."""
    by_node: dict[str, dict[str, list[float]]] = {}
    for point in points:
        by_node.setdefault(point.metric, {}).setdefault(point.node, []).append(point.value)
    return weighted_metrics(
        [(rows[node], {metric: sum(values) / len(values)}) for metric, nodes in by_node.items() for node, values in nodes.items()]
    )


def checked(given: Any) -> ServerCheckpointAndStateModule | None:
    """A module that can go through a breakpoint, or None.

    Raises:
        FedbiomedExperimentError: something else.
    """
    if given is None:
        return None
    if not isinstance(given, ServerCheckpointAndStateModule):
        refuse("checkpointer", given, "a ServerCheckpointAndStateModule or None")
    for keeper in given.model_checkpointers:
        if not isinstance(keeper, Checkpointer):
            refuse("checkpointer", given, f"made of Checkpointers, without the {type(keeper).__name__}")
        if isinstance(keeper, FunctionCheckpointer) and _named_function(_name_of(keeper.score_fn)) is not keeper.score_fn:
            refuse("score_fn", keeper.score_fn, "a function with a name at the top of its module or notebook, so that breakpoints find it")
    if not isinstance(given.state_checkpointer, PerRoundStateCheckpointer | None):
        refuse("state_checkpointer", given.state_checkpointer, "a PerRoundStateCheckpointer or None")
    return given


def save(module: ServerCheckpointAndStateModule | None, experiment: Path) -> State | None:
    """State from which `load` makes the module again; folders within the experiment's are written relative to it."""
    if module is None:
        return None
    states = module.state_checkpointer
    return {
        **_class_name(module),
        "parameters": {
            "model_checkpointers": [
                {**_class_name(keeper), "parameters": _with_function(keeper, experiment)}
                for keeper in module.model_checkpointers
                if isinstance(keeper, Checkpointer)
            ],
            "state_dir": _relative(str(states.checkpoint_dir), experiment) if isinstance(states, PerRoundStateCheckpointer) else None,
        },
    }


def load(state: State | None, experiment: Path) -> ServerCheckpointAndStateModule | None:
    """The module that `save` wrote; folders within the experiment's are those of the present one.

    Raises:
        FedbiomedBreakpointError: it names a class or function that is not known in this process, or is not of this form.
    """
    if state is None:
        return None
    try:
        wanted = state["parameters"]
        keepers = [_loaded(entry, experiment) for entry in wanted["model_checkpointers"]]
        states = None if wanted["state_dir"] is None else PerRoundStateCheckpointer(experiment / wanted["state_dir"])
        return class_of(state, checkpointing, ServerCheckpointAndStateModule)(keepers, states)
    except FedbiomedBreakpointError:
        raise
    except (FedbiomedError, KeyError, TypeError, AttributeError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: the checkpointer cannot be made again: {error}") from error


def _loaded(entry: Mapping[str, Any], experiment: Path) -> Checkpointer:
    chosen = class_of(entry, checkpointing, Checkpointer)  # type: ignore[type-abstract]  # any class of that base
    parameters = {**entry["parameters"], "checkpoint_dir": experiment / entry["parameters"]["checkpoint_dir"]}
    if "score_fn" in parameters:
        name = parameters["score_fn"]
        parameters["score_fn"] = _named_function(name)
        if parameters["score_fn"] is None:
            raise FedbiomedBreakpointError(
                f"{ErrorNumbers.FB413.value}: the checkpointer uses the function {name!s:.120}, which is not defined in this process; "
                "import it, or run the cell that defines it, before load_breakpoint"
            )
    return chosen(**parameters)


def _with_function(keeper: Checkpointer, experiment: Path) -> State:
    parameters = keeper.parameters()
    if isinstance(keeper, FunctionCheckpointer):
        parameters["score_fn"] = _name_of(keeper.score_fn)
    return {**parameters, "checkpoint_dir": _relative(parameters["checkpoint_dir"], experiment)}


def _class_name(value: object) -> State:
    return {"class": type(value).__name__, "module": type(value).__module__}


def _name_of(function: Any) -> list[str]:
    return [str(getattr(function, "__module__", "")), str(getattr(function, "__name__", ""))]


def _named_function(name: Any) -> Any:
    """A function of a module that this process has imported already; None where there is none."""
    module, function = name
    found = getattr(sys.modules.get(str(module)), str(function), None)
    return found if callable(found) and not isinstance(found, type) else None


def _relative(folder: str, experiment: Path) -> str:
    inside = Path(folder).is_relative_to(experiment.absolute())
    return str(Path(folder).relative_to(experiment.absolute())) if inside else folder
