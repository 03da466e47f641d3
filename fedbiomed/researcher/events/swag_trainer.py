"""SWAG over several nodes: each aggregated round is followed by the moments of the weights, which make a posterior.

Source: Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning (arXiv:1902.02476).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fedbiomed.common.constants import ErrorNumbers, TrainingPlans
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedTrainerError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.swag_schedule import SWAG_KEY, SwagSchedule
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.course import CollectedRound, TrainingState
from fedbiomed.researcher.events.model_trainer import ArgsByNode, ModelTrainer
from fedbiomed.researcher.events.swag_round_finished import SWAGRoundFinished
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy
from fedbiomed.researcher.swag_updates import Moments, SwagUpdates

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer
    from fedbiomed.common.uncertainty.swag import SWAG

_FILE = "swag_moments.mpk"


class SWAGTrainer(ModelTrainer):
    """After each aggregated round, and before the model test, the nodes' moments make the posterior of that round
    (Maddox et al. 2019, arXiv:1902.02476). Exchanged: parameters, and mean and mean square of the snapshots of the weights. Stays on the
    nodes: data, and the last deviations of the snapshots, for the low-rank part.

    The nodes take snapshots of the weights while they train, from the first round on and anew in each; for them to tell something, a
    constant learning rate must keep the weights moving. The moments travel with the update; so a node that does not answer is waited for as
    long as in any round, and the strategy says whether there were enough. Needs a torch plan.

    Args:
        start, every, unit, max_snapshots, max_rank: when a node takes snapshots, and how many deviations it keeps; see `SwagSchedule`.
        skip_model_tests, model_test_after_each_round, delete_local_models_after_aggregation: see `ModelTrainer`.

    Attributes:
        schedule: the first five arguments.

    Raises:
        FedbiomedUserInputError: an argument is wrong.
    """

    state_after_round: ClassVar[TrainingState] = TrainingState.SWAG_ROUND

    def __init__(
        self,
        start: int = 1,
        every: int = 1,
        unit: str = "steps",
        max_snapshots: int | None = None,
        max_rank: int = 20,
        *,
        skip_model_tests: bool = False,
        model_test_after_each_round: bool = True,
        delete_local_models_after_aggregation: bool = True,
    ) -> None:
        super().__init__(
            skip_model_tests=skip_model_tests,
            model_test_after_each_round=model_test_after_each_round,
            delete_local_models_after_aggregation=delete_local_models_after_aggregation,
        )
        self.schedule = SwagSchedule(start=start, every=every, unit=unit, max_snapshots=max_snapshots, max_rank=max_rank)
        self._gathered: SwagUpdates | None = None
        self._moments: Moments | None = None

    @property
    def moments(self) -> Moments | None:
        """Of the last round; None before the first one, and where a round failed in this."""
        return self._moments

    @property
    def swag(self) -> "SWAG":
        """The posterior of the last round, without a network; see `posterior`."""
        return self.posterior()

    def posterior(self, seed: int | None = None) -> "SWAG":
        """The posterior of the last round, diagonal, without a network: `with_model` gives it one, `Experiment.swag` does so.

        Args:
            seed: of its draws; None: drawn now.

        Raises:
            FedbiomedTrainerError: there is none.
        """
        from fedbiomed.common.uncertainty.swag import SWAG  # torch is heavy, and not needed to aggregate

        if self._moments is None:
            self._refuse(f"there is no posterior after {self.training.round} rounds, in the state {self.training.state}; run a round")
        return SWAG(self._moments.first, self._moments.second, seed=seed)

    def check(self, aggregator: Aggregator, strategy: Strategy, agg_optimizer: "Optimizer | None") -> None:
        """See `ModelTrainer.check`."""
        if type(strategy).refine is not Strategy.refine:
            self._refuse(f"the strategy {type(strategy).__name__} judges by `refine`; give one that judges by `accept` and `check_round`")

    def args_for_nodes(self, job: Job, small: ArgsByNode, large: ArgsByNode) -> tuple[ArgsByNode, ArgsByNode]:
        """See `ModelTrainer.args_for_nodes`; adds when snapshots are taken."""
        if job.training_plan.type() != TrainingPlans.TorchTrainingPlan:
            self._refuse(f"{type(job.training_plan).__name__} is no torch plan; SWAG needs one")
        if job.training_args["dp_args"] is not None:
            self._refuse("moments are sent without the noise of differential privacy; leave out dp_args, or take another trainer")
        return {node_id: {**small.get(node_id, {}), SWAG_KEY: self.schedule.save()} for node_id in job.nodes}, large

    def updates(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> RoundUpdates:
        """See `ModelTrainer.updates`."""
        return SwagUpdates(round_, sampled, strategy, aggregator, aux)

    def round_finished(self, collected: CollectedRound) -> None:
        """See `ModelTrainer.round_finished`; the state is that of a SWAG round then, and `go_on` ends it."""
        super().round_finished(collected)
        updates = collected.updates
        self._moments, self._gathered = None, updates if isinstance(updates, SwagUpdates) else None

    def go_on(self) -> None:
        """End the SWAG round, and say what follows.

        Raises:
            FedbiomedTrainerError: moments are missing, or do not fit together.
        """
        event = SWAGRoundFinished(self)
        event.handle()
        event.next()

    def take_moments(self) -> SwagUpdates:
        """The replies of the round with their moments; each only once.

        Raises:
            FedbiomedTrainerError: there are none.
        """
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            self._refuse(f"no moments were gathered after {self.training.round} rounds, in the state {self.training.state}")
        return gathered

    def keep_moments(self, moments: Moments) -> None:
        """Keep aggregated moments beside the model."""
        self._moments = moments

    def save_state_breakpoint(self, folder: Path | None = None) -> dict[str, Any]:
        """See `ModelTrainer.save_state_breakpoint`; the moments go into a file in the folder."""
        state, kept = super().save_state_breakpoint(folder), self._moments
        if kept is None or folder is None:
            return state
        Serializer.dump({"first": kept.first, "second": kept.second}, folder / _FILE)
        about = {"nodes": kept.nodes, "sample_sizes": kept.sample_sizes, "round": kept.round}
        return {**state, "moments": {**about, "path": str(folder / _FILE)}}

    def load_state_breakpoint(self, state: Mapping[str, Any], round_: int) -> None:
        """See `ModelTrainer.load_state_breakpoint`."""
        moments = _loaded(state["moments"]) if "moments" in state else None
        super().load_state_breakpoint(state, round_)
        self._moments = moments

    def _parameters(self) -> dict[str, Any]:
        return {**self.schedule.save(), **super()._parameters()}

    def _take_parameters(self, parameters: Mapping[str, Any]) -> None:
        super()._take_parameters(parameters)
        self.schedule = SwagSchedule.load({name: parameters[name] for name in self.schedule.save()})

    def _refuse(self, why: str) -> NoReturn:
        raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: {type(self).__name__}: {why}")


def _loaded(state: Any) -> Moments:
    try:
        content = Serializer.load(state["path"])
        nodes, sizes = tuple(str(node) for node in state["nodes"]), tuple(int(size) for size in state["sample_sizes"])
        return Moments(
            first=dict(content["first"]), second=dict(content["second"]), nodes=nodes, sample_sizes=sizes, round=int(state["round"])
        )
    except (FedbiomedError, OSError, KeyError, TypeError, ValueError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: the moments of SWAG cannot be read: {error!r:.200}") from error
