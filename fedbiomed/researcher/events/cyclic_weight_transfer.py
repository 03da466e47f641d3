"""Cyclic weight transfer: one model travels from node to node, and nothing is averaged.

Source: Chang et al. 2018, Distributed deep learning networks among institutions for medical imaging (doi:10.1093/jamia/ocy017).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedStrategyError, FedbiomedTrainerError
from fedbiomed.researcher import optimizer_travel
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.course import CollectedRound, Step, TrainingState
from fedbiomed.researcher.events.cyclic_visit_finished import CyclicVisitFinished
from fedbiomed.researcher.events.model_trainer import ArgsByNode, ModelTrainer
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.cyclic_order import CyclicOrder
from fedbiomed.researcher.strategies.strategy import Strategy
from fedbiomed.researcher.visit_updates import VisitUpdates

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer

logger = logging.getLogger(__name__)


class CyclicWeightTransfer(ModelTrainer):
    """One model travels from node to node; each round is one visit, as many rounds as there are nodes are a cycle
    (Chang et al. 2018, doi:10.1093/jamia/ocy017). Exchanged: parameters, to each node another's as they are. Stays on the nodes: data.

    Goes with the strategy `CyclicOrder`, which says who is visited. A node that fails or does not answer in time is skipped: the model goes
    on to the next node as it was, and `skipped`, the log and `exp.history_transitions()` tell which node and why. A model test asks all
    nodes. Mind that a node gets another's model as it is.

    Args:
        with_optimizer: True: the optimizer's state travels with the model, see `DaisyChainTrainer`; refused where it cannot. None: where it
            can. False, as in the paper: only weights travel.
        skip_model_tests, model_test_after_each_round, delete_local_models_after_aggregation: see `ModelTrainer`.

    Attributes:
        skipped: node and reason, by round.
    """

    round_event = CyclicVisitFinished

    def __init__(
        self,
        *,
        with_optimizer: bool | None = False,
        skip_model_tests: bool = False,
        model_test_after_each_round: bool = False,
        delete_local_models_after_aggregation: bool = True,
    ) -> None:
        super().__init__(
            skip_model_tests=skip_model_tests,
            model_test_after_each_round=model_test_after_each_round,
            delete_local_models_after_aggregation=delete_local_models_after_aggregation,
        )
        self.skipped: dict[int, tuple[str, str]] = {}
        self.with_optimizer = optimizer_travel.checked_option(with_optimizer)
        self._nodes: tuple[str, ...] = ()
        self._next = ""
        self._states = optimizer_travel.RoundStates()

    def args_for_nodes(self, job: Job, small: ArgsByNode, large: ArgsByNode) -> tuple[ArgsByNode, ArgsByNode]:
        """See `ModelTrainer.args_for_nodes`; adds the state that goes with the model."""
        if not optimizer_travel.is_wanted(type(self).__name__, self.with_optimizer, job):
            return small, large
        is_training, optimizers = self.training.step is Step.ROUND, job.node_params.optimizers
        if is_training:
            self._states.optimizer = job.training_plan.optimizer()
            if optimizers.paths().keys() - set(job.nodes):  # the node that was to get it was skipped
                optimizers.set_paths(dict(zip(job.nodes, optimizers.paths().values(), strict=True)))
        return optimizer_travel.args_with_states(job, small, is_training=is_training), large

    def check(self, aggregator: Aggregator, strategy: Strategy, agg_optimizer: "Optimizer | None") -> None:
        """See `ModelTrainer.check`: what averages, or steps, does not go with a model that travels as it is."""
        if not isinstance(strategy, CyclicOrder):
            self._refuse(f"the strategy {type(strategy).__name__} does not visit node by node; give node_selection_strategy=CyclicOrder()")
        if type(aggregator) is not FedAverage:
            self._refuse(f"nothing is aggregated, so the aggregator {type(aggregator).__name__} has no use; leave it out")
        if agg_optimizer is not None:
            self._refuse("the model travels as it is, so an agg_optimizer has no use; leave it out")

    def updates(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> RoundUpdates:
        """See `ModelTrainer.updates`."""
        if isinstance(strategy, CyclicOrder):
            self._nodes, self._next = tuple(strategy.cycle_order(0)), strategy.sample_nodes(round_ + 1)[0]
        self._states = optimizer_travel.RoundStates()
        return VisitUpdates(round_, sampled, strategy, aggregator, aux, self._states)

    def take_over(self, collected: CollectedRound) -> None:
        """Keep the model that a node made as the next one; without any, write down why.

        Raises:
            FedbiomedTrainerError: the round was not collected for a visit.
            FedbiomedStrategyError: no node made one since a whole cycle.
        """
        updates = collected.updates
        if not isinstance(updates, VisitUpdates):
            self._refuse(f"round {collected.round} was collected as {type(updates).__name__}, not by this trainer's `updates`")
        model = updates.visited(collected.job)
        if isinstance(model, str):
            self._skip(collected.round, updates.sampled[0], model)
            collected.keep(None)
        else:
            self._states.keep(collected, model, {self._next: updates.sampled[0]}, others_keep=False)
        collected.job.nodes = list(self._nodes)  # a model test asks them all

    def _skip(self, round_: int, node_id: str, reason: str) -> None:
        self.training.note("node skipped", TrainingState.ONGOING, f"{node_id}: {reason}"[:500])
        logger.warning("round %d: %s is skipped, the model goes on as it was: %s", round_, node_id, reason)
        self.skipped = {**self.skipped, round_: (node_id, reason)}
        cycle = range(round_ - len(self._nodes) + 1, round_ + 1)
        if all(visit in self.skipped for visit in cycle):
            reasons = "; ".join(f"{node}: {why}" for node, why in (self.skipped[visit] for visit in cycle))
            raise FedbiomedStrategyError(f"{ErrorNumbers.FB407.name}: no node of a whole cycle trained the model: {reasons}")

    def _refuse(self, why: str) -> NoReturn:
        raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: {type(self).__name__}: {why}")

    def _parameters(self) -> dict[str, Any]:
        return {
            **super()._parameters(),
            "with_optimizer": self.with_optimizer,
            "skipped": {str(round_): list(visit) for round_, visit in self.skipped.items()},
        }

    def _take_parameters(self, parameters: Mapping[str, Any]) -> None:
        super()._take_parameters(parameters)
        self.with_optimizer = optimizer_travel.checked_option(parameters.get("with_optimizer", False))
        self.skipped = {int(round_): (str(node_id), str(reason)) for round_, (node_id, reason) in parameters["skipped"].items()}
