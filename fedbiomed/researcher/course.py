"""Where an experiment stands in its course of rounds, and what a trainer's events get into their hands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ErrorNumbers, Phase
from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.params import Params, checked_arrays
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import RoundUpdates


class TrainingState(StrEnum):
    """How a training stands."""

    INITIAL = "initial"
    ONGOING = "ongoing"
    SWAG_ROUND = "swag_round"
    COMPLETED = "completed"
    ERROR = "error"


class Step(StrEnum):
    """What follows next."""

    ROUND = "training round"
    TEST = "model test"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Transition:
    """One event in the course of a training.

    Args:
        round: rounds done when it happened.
        event: what happened.
        state: value of the `TrainingState` after it.
        note: why, where something went wrong.
    """

    round: int
    event: str
    state: str
    note: str = ""


@dataclass(slots=True)
class Training:
    """The state of a training.

    Args:
        round: rounds done, which is the index of the next one.
        target: how many rounds there shall be; None for no limit.
        step: what follows next.
        are_tests_on: whether the nodes are set to test global models.
        is_test_asked: whether a test was asked for after this very round.
        transitions: what happened, the oldest first.
        metrics: common metrics of the model tests, by rounds done and name.
    """

    state: TrainingState = TrainingState.INITIAL
    round: int = 0
    target: int | None = None
    step: Step = Step.ROUND
    are_tests_on: bool = True
    is_test_asked: bool = False
    transitions: list[Transition] = field(default_factory=list)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def is_target_reached(self) -> bool:
        """Whether no round is left."""
        return self.target is not None and self.round >= self.target

    def note(self, event: str, state: TrainingState, note: str = "") -> None:
        """Take a state and write down what led to it."""
        self.state = state
        self.transitions.append(Transition(self.round, event, str(state), note))

    def save(self) -> dict[str, Any]:
        """JSON from which `load` goes on."""
        return {
            "state": str(self.state),
            "step": str(self.step),
            "transitions": [[t.round, t.event, t.state, t.note] for t in self.transitions],
            "metrics": {str(round_): metrics for round_, metrics in self.metrics.items()},
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any], round_: int) -> "Training":
        """The training that `save` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is not of that form.
        """
        return cls(
            state=TrainingState(saved["state"]),
            round=round_,
            step=Step(saved["step"]),
            transitions=[
                Transition(int(r), str(event), str(TrainingState(state)), str(note)) for r, event, state, note in saved["transitions"]
            ],
            metrics={int(r): {str(name): float(value) for name, value in found.items()} for r, found in saved["metrics"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedRound:
    """A training round of which no more updates will come.

    Args:
        round: counted from 0.
        job: by which the nodes were asked.
        updates: what came, judged.
        step: gives the next parameters from the aggregate (a server optimizer's step).
        keep: takes the next parameters over, or without any only the end of the round.
    """

    round: int
    job: Job
    updates: RoundUpdates
    step: Callable[[Params], Params]
    keep: Callable[[Params | None], None]

    def next_params(self) -> Params:
        """The new global model.

        Raises:
            FedbiomedStrategyError: not enough updates: how many, which nodes, why.
            FedbiomedAggregatorError: they cannot be aggregated, or the result are no parameters, or not finite.
        """
        params = self.step(_named_params(self.updates.aggregate(self.job)))
        checked_arrays(params, "the new global model")
        return params

    def drop_local_models(self) -> None:
        """Remove the nodes' result files; their replies stay, without parameters."""
        for reply in self.job.training_replies[self.round]:
            path, reply["params_path"] = reply["params_path"], None
            reply["params"] = reply["optim_aux_var"] = None
            if path:
                Path(path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedTest:
    """A model test of which no more reports will come.

    Args:
        points: what the nodes reported.
        sizes: samples that each node tested on.
    """

    points: Sequence[Point]
    sizes: Mapping[str, int]

    def metrics(self) -> dict[str, float]:
        """Mean of each metric over the nodes that reported it, weighted by their test samples."""
        last = {(p.metric, p.node): p.value for p in self.points if p.phase == Phase.TEST_GLOBAL}
        return {name: mean for name in {metric: None for metric, _ in last} if (mean := self._mean(name, last)) is not None}

    def _mean(self, name: str, last: Mapping[tuple[str, str], float]) -> float | None:
        reports = [(self.sizes.get(node, 0), value) for (metric, node), value in last.items() if metric == name]
        total = sum(size for size, _ in reports)
        return sum(size / total * value for size, value in reports) if total else None


def _named_params(given: Any) -> Params:
    """What an aggregator gave, which may be a user's."""
    if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) for name in given):
        raise FedbiomedAggregatorError(
            f"{ErrorNumbers.FB401.value}: an aggregator must return the next parameters, a dict of arrays by name, not {given!r:.80}"
        )
    return dict(given)
