"""Federated daisy-chaining (FedDC): between averages the models wander over the nodes.

Source: Kamp, Fischer and Vreeken 2023, Federated Learning from Small Datasets, ICLR (arXiv:2110.03469).
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedTrainerError, FedbiomedUserInputError
from fedbiomed.common.params import Params
from fedbiomed.researcher import optimizer_travel
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.chain_updates import Chain, ChainUpdates
from fedbiomed.researcher.course import CollectedRound, Step
from fedbiomed.researcher.events.daisy_chain_round_finished import DaisyChainRoundFinished
from fedbiomed.researcher.events.model_trainer import ArgsByNode, ModelTrainer
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal, aux_to_send
from fedbiomed.researcher.strategies.strategy import Strategy

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer

_NEEDS_EACH_ROUND = ("hear", "create_aggregator_args")


class DaisyChainTrainer(ModelTrainer):
    """Each node trains the model that it holds; models change places every few rounds, and are averaged every so many more
    (Kamp et al. 2023, ICLR, arXiv:2110.03469). Exchanged: parameters, to each node another's as they are, and the state of the optimizer
    where it goes with them. Stays on the nodes: data.

    Rounds t = 0, 1, ...: permuted where `t % daisy_chain_period` is the period less one, averaged where that holds for
    `aggregation_period`, and after the last round of the round limit. A model keeps its optimizer's state where it can (`with_optimizer`):
    the node sends moments and counts of steps with its update, the next node of the model takes them up. At an average, too, each state
    goes where its model would go, so it is kept through averages as in the authors' code; it begins anew with a model of another origin
    (another trainer's, a merge). Settings, such as the learning rate, are always those of the plan. Without, a torch optimizer begins
    anew in each round, and what declearn's modules remember stays with the node. Mind that a state tells of the data as an update does.

    Args:
        daisy_chain_period: rounds from one permutation to the next; 0: the models stay where they are (averaging every few rounds).
        aggregation_period: rounds from one average to the next.
        seed: of the permutations, 0 or more; None: drawn now. Each round has its own stream, made from seed and round.
        weighted: average by the samples of the node that trained a model last; else all models count alike, as in the paper.
        with_optimizer: True: a model keeps its optimizer's state; refused where it cannot: with a scikit-learn plan, which has no state to
            send, with `dp_args`, and with a plan that has a `training_routine` of its own. False: it does not. None: where it can.
        skip_model_tests, delete_local_models_after_aggregation: see `ModelTrainer`; of the models only the last one is tested.

    Attributes:
        seed: that is used.

    Raises:
        FedbiomedUserInputError: an argument is wrong.
    """

    round_event = DaisyChainRoundFinished

    def __init__(
        self,
        daisy_chain_period: int = 1,
        aggregation_period: int = 10,
        seed: int | None = None,
        weighted: bool = False,
        *,
        with_optimizer: bool | None = None,
        skip_model_tests: bool = False,
        delete_local_models_after_aggregation: bool = True,
    ) -> None:
        super().__init__(
            skip_model_tests=skip_model_tests,
            model_test_after_each_round=False,
            delete_local_models_after_aggregation=delete_local_models_after_aggregation,
        )
        self.daisy_chain_period = _count("daisy_chain_period", daisy_chain_period, least=0)
        self.aggregation_period = _count("aggregation_period", aggregation_period, least=1)
        self.seed = secrets.randbits(32) if seed is None else _count("seed", seed, least=0)
        if not isinstance(weighted, bool):
            raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: weighted must be True or False, not {weighted!r:.80}")
        self.weighted = weighted
        self.with_optimizer = optimizer_travel.checked_option(with_optimizer)
        self._weights: dict[str, float] = {}
        self._states = optimizer_travel.RoundStates()

    def is_aggregation_due(self, round_: int) -> bool:
        """Whether this round, counted from 0, ends with an average: one is due, or the round limit is reached."""
        return (round_ + 1) % self.aggregation_period == 0 or round_ + 1 == self.training.target

    def order(self, round_: int, nodes: Sequence[str]) -> dict[str, str]:
        """Who gets whose model after a round: `{receiver: giver}`, each once; a permutation drawn uniformly where one is due."""
        givers = sorted(nodes)
        if not self.daisy_chain_period or (round_ + 1) % self.daisy_chain_period:
            return dict(zip(givers, givers, strict=True))
        places = np.random.default_rng([self.seed, round_]).permutation(len(givers))
        return {givers[place]: giver for place, giver in zip(places, givers, strict=True)}

    def check(self, aggregator: Aggregator, strategy: Strategy, agg_optimizer: "Optimizer | None") -> None:
        """See `ModelTrainer.check`: what needs to hear of the nodes in each round does not go with a chain."""
        if type(strategy).refine is not Strategy.refine:
            self._refuse(f"the strategy {type(strategy).__name__} judges by `refine`; give one that judges by `accept` and `check_round`")
        if any(getattr(type(aggregator), name) is not getattr(Aggregator, name) for name in _NEEDS_EACH_ROUND):
            self._refuse(
                f"the aggregator {type(aggregator).__name__} has a half on the nodes; give one that has not, FedAverage for instance"
            )
        if aux_to_send(agg_optimizer):
            self._refuse("the agg_optimizer exchanges auxiliary variables with the nodes; give one without such modules")

    def args_for_nodes(self, job: Job, small: ArgsByNode, large: ArgsByNode) -> tuple[ArgsByNode, ArgsByNode]:
        """See `ModelTrainer.args_for_nodes`; adds the states that go with the models."""
        if not optimizer_travel.is_wanted(type(self).__name__, self.with_optimizer, job):
            return small, large
        self._states.optimizer = job.training_plan.optimizer()
        return optimizer_travel.args_with_states(job, small, is_training=self.training.step is Step.ROUND), large

    def updates(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> RoundUpdates:
        """See `ModelTrainer.updates`."""
        self._states = optimizer_travel.RoundStates()
        chain = Chain(is_end=self.is_aggregation_due(round_), is_weighted=self.weighted, weights=self._weights, states=self._states)
        return ChainUpdates(round_, list(sampled), strategy, aggregator, aux, chain)

    def pass_on(self, collected: CollectedRound) -> None:
        """Give the models of a round to their next nodes, permuted where that is due; who did not answer keeps what it holds.

        Raises:
            FedbiomedTrainerError: the round was not collected for a chain.
            FedbiomedRepositoryError: a model cannot be uploaded.
        """
        updates, job = collected.updates, collected.job
        if not isinstance(updates, ChainUpdates):
            self._refuse(f"round {collected.round} was collected as {type(updates).__name__}, not by this trainer's `updates`")
        order = self.order(collected.round, updates.good)
        replies = {str(reply["node_id"]): reply for reply in job.training_replies[collected.round]}
        job.node_params.give(_models(order, replies))
        held = {node_id: weight for node_id, weight in self._weights.items() if node_id in job.node_params.paths()}
        self._weights = {**held, **{receiver: updates.weights[giver] for receiver, giver in order.items()}}

    def keep(self, collected: CollectedRound, params: Params | None) -> None:
        """End a round, and let the states of optimizers go where their models go, at an average where they would go.

        Args:
            collected: the round; who did not answer in it keeps its state.
            params: the average; None: none was due.

        Raises:
            FedbiomedRepositoryError: something cannot be uploaded.
        """
        order = self.order(collected.round, collected.updates.good)
        self._states.keep(collected, params, order, others_keep=True)

    def _refuse(self, why: str) -> NoReturn:
        raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: {type(self).__name__}: {why}")

    def _parameters(self) -> dict[str, Any]:
        chain = {"daisy_chain_period": self.daisy_chain_period, "aggregation_period": self.aggregation_period, "seed": self.seed}
        return {
            **super()._parameters(),
            **chain,
            "weighted": self.weighted,
            "weights": self._weights,
            "with_optimizer": self.with_optimizer,
        }

    def _take_parameters(self, parameters: Mapping[str, Any]) -> None:
        super()._take_parameters(parameters)
        self.daisy_chain_period = _count("daisy_chain_period", parameters["daisy_chain_period"], least=0)
        self.aggregation_period = _count("aggregation_period", parameters["aggregation_period"], least=1)
        self.seed = _count("seed", parameters["seed"], least=0)
        self.weighted = bool(parameters["weighted"])
        self.with_optimizer = optimizer_travel.checked_option(parameters.get("with_optimizer", False))  # older ones have none
        self._weights = {str(node_id): float(weight) for node_id, weight in parameters["weights"].items()}


def _models(order: Mapping[str, str], replies: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Params]]:
    for receiver, giver in order.items():
        yield receiver, replies[giver]["params"]


def _count(name: str, given: Any, least: int) -> int:
    if type(given) is not int or given < least:
        raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: {name} must be an integer of {least} or more, not {given!r:.80}")
    return given
