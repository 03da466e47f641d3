"""`ModelTrainer`: owns the options and the state of a training, and says what follows when something has finished."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import ExperimentStopped, FedbiomedBreakpointError, FedbiomedTrainerError
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.course import CollectedRound, CollectedTest, Step, Training, TrainingState
from fedbiomed.researcher.events.event import ModelTrainerEvent
from fedbiomed.researcher.events.model_test_finished import ModelTestFinished
from fedbiomed.researcher.events.options import TrainerOptions
from fedbiomed.researcher.events.training_round_finished import TrainingRoundFinished
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer

logger = logging.getLogger(__name__)
ArgsByNode = Mapping[str, Mapping[str, Any]]


class ModelTrainer:
    """Each round is aggregated; what follows depends on the options (McMahan et al. 2017, arXiv:1602.05629). Exchanged: what the aggregator
    says, and the metrics of model tests. Stays on the nodes: data.

    `start_round`, `test_round` and `finish` only say what follows; the experiment's loop does it.

    Args:
        skip_model_tests: no model tests but those asked for with `run_once(test_after=True)`.
        model_test_after_each_round: test each new global model, else only the last one. Both need `test_on_global_updates`.
        delete_local_models_after_aggregation: remove the nodes' result files once they are aggregated.

    Attributes:
        options: the arguments.
        training: how it stands.

    Raises:
        FedbiomedUserInputError: an argument is not a bool.
    """

    def __init__(
        self,
        *,
        skip_model_tests: bool = False,
        model_test_after_each_round: bool = True,
        delete_local_models_after_aggregation: bool = True,
    ) -> None:
        self.options = TrainerOptions(skip_model_tests, model_test_after_each_round, delete_local_models_after_aggregation)
        self.training = Training()
        self._round: CollectedRound | None = None
        self._test: CollectedTest | None = None

    round_event: ClassVar[type[ModelTrainerEvent]] = TrainingRoundFinished
    state_after_round: ClassVar[TrainingState] = TrainingState.ONGOING

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._parameters().items())
        return f"{type(self).__name__}({settings}) after {self.training.round} rounds: {self.training.state}"

    @classmethod
    def plain(cls) -> Self:
        """The trainer of an experiment that names none: tests the final model, and keeps what the nodes sent."""
        return cls(model_test_after_each_round=False, delete_local_models_after_aggregation=False)

    def start_round(self) -> None:
        """Let a training round follow."""
        self.training.step = Step.ROUND

    def test_round(self) -> None:
        """Let a model test follow."""
        self.training.step = Step.TEST

    def finish(self) -> None:
        """Let nothing follow: the training is completed."""
        self.training.step = Step.NOTHING
        self.training.note("finished", TrainingState.COMPLETED)

    def check(self, aggregator: Aggregator, strategy: Strategy, agg_optimizer: "Optimizer | None") -> None:
        """Check that the experiment's other parts suit this trainer; here all do.

        Raises:
            FedbiomedTrainerError: they do not: which, and what is needed.
        """

    def begin(self, round_: int, target: int | None, *, are_tests_on: bool, is_test_asked: bool) -> None:
        """A training round is about to begin, after so many rounds."""
        training = self.training
        training.round, training.target = round_, target
        training.are_tests_on, training.is_test_asked = are_tests_on, is_test_asked
        training.step = Step.ROUND
        training.note("round started", TrainingState.ONGOING)

    def args_for_nodes(self, job: Job, small: ArgsByNode, large: ArgsByNode) -> tuple[ArgsByNode, ArgsByNode]:
        """What the nodes are told for a training round or a model test, by node; here what the aggregator tells them.

        Args:
            job: which is about to ask its `nodes`.
            small, large: of the aggregator.

        Raises:
            FedbiomedTrainerError: the plan or its training arguments do not suit this trainer.
        """
        return small, large

    def updates(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> RoundUpdates:
        """What takes in the replies of a round."""
        return RoundUpdates(round_, sampled, strategy, aggregator, aux)

    def round_finished(self, collected: CollectedRound) -> None:
        """All updates of a round that will come have come: handle it.

        Raises:
            FedbiomedTrainerError: it is not the round that is open.
            FedbiomedError: whatever the event raises.
        """
        if collected.round != self.training.round:
            raise FedbiomedTrainerError(
                f"{ErrorNumbers.FB411.value}: round {collected.round} finished, but round {self.training.round} is the open one; "
                f"updates of {', '.join(collected.updates.good) or 'nobody'} are not taken"
            )
        self._round = collected
        event = self.round_event(self)
        event.handle()
        self.training.note(type(event).__name__, self.state_after_round)

    def test_finished(self, collected: CollectedTest) -> None:
        """All reports of a model test that will come have come: handle it, and say what follows."""
        self._test = collected
        event = ModelTestFinished(self)
        event.handle()
        self.training.note(type(event).__name__, TrainingState.ONGOING)
        event.next()

    def go_on(self) -> None:
        """Say what follows the round that was handled."""
        self.round_event(self).next()

    def take_round(self) -> CollectedRound:
        """The round that has finished; each only once.

        Raises:
            FedbiomedTrainerError: there is none.
        """
        collected, self._round = self._round, None
        if collected is None:
            raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: no round has finished: round {self.training.round} is still to come")
        return collected

    def take_test(self) -> CollectedTest:
        """The model test that has finished; each only once.

        Raises:
            FedbiomedTrainerError: there is none.
        """
        collected, self._test = self._test, None
        if collected is None:
            raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: no model test has finished after {self.training.round} rounds")
        return collected

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Put everything but the list of transitions back as it was when the block raises; so attributes are renewed, never changed."""
        before, round_ = dict(vars(self)), self.training.round
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            self._round = self._test = None
            self.training.round = round_
            raise

    @contextlib.contextmanager
    def failures_noted(self) -> Iterator[None]:
        """Write down how the block ended, if it did not end well; the training can go on in each case."""
        try:
            yield
        except ExperimentStopped:
            self.training.note("stopped", TrainingState.ONGOING)
            raise
        except Exception as error:
            self.training.note("failed", TrainingState.ERROR, f"{type(error).__name__}: {error}"[:500])
            raise
        except BaseException as error:  # a key was pressed
            self.training.note("interrupted", TrainingState.ONGOING, type(error).__name__)
            raise

    def save_state_breakpoint(self, folder: Path | None = None) -> dict[str, Any]:
        """State from which `load_state_breakpoint` goes on: `class`, `module`, `parameters` and `training`, all JSON.

        Args:
            folder: for files of a trainer whose state does not fit into JSON; None: without them.
        """
        return {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "parameters": self._parameters(),
            "training": self.training.save(),
        }

    def load_state_breakpoint(self, state: Mapping[str, Any], round_: int) -> None:
        """Take over what `save_state_breakpoint` gave, after so many rounds.

        Raises:
            FedbiomedBreakpointError: it is the state of another trainer, or malformed.
        """
        if state.get("class") != type(self).__name__:
            raise FedbiomedBreakpointError(f"the state of a {state.get('class')!r:.80} cannot be given to a {type(self).__name__}")
        try:
            training = Training.load(state["training"], round_)
            self._take_parameters(state["parameters"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: the state of the trainer is malformed: {error!r:.200}") from error
        self.training = training

    def _parameters(self) -> dict[str, Any]:
        """Settings of this trainer for the breakpoint, JSON."""
        options = self.options
        return {
            "skip_model_tests": options.skip_model_tests,
            "model_test_after_each_round": options.model_test_after_each_round,
            "delete_local_models_after_aggregation": options.delete_local_models_after_aggregation,
        }

    def _take_parameters(self, parameters: Mapping[str, Any]) -> None:
        names = ("skip_model_tests", "model_test_after_each_round", "delete_local_models_after_aggregation")
        self.options = TrainerOptions(**{name: parameters[name] for name in names})
