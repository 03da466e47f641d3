"""The replies of one round on their way into the aggregate."""

import inspect
import logging
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import (
    AggregationError,
    FedbiomedOptimizerError,
    FedbiomedResponsesError,
    FedbiomedStrategyError,
    FedbiomedTrainerError,
)
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.exchange import OnProgress
from fedbiomed.researcher.history import Point, points_of
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy

logger = logging.getLogger(__name__)


class RoundUpdates:
    """Judges each reply as it comes and folds it into the aggregate; a strategy that overrides `refine` judges all of them at the end.

    Args:
        round_: counted from 0.
        sampled: nodes that are asked.
        strategy: whose reply counts.
        aggregator: how updates become the next parameters.
        aux: takes the auxiliary variables of those nodes whose reply counts.
    """

    def __init__(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> None:
        self._round, self._sampled = round_, list(sampled)
        self._strategy, self._aggregator, self._aux = strategy, aggregator, aux
        self._is_judged_at_end = inspect.getattr_static(type(strategy), "refine") is not inspect.getattr_static(Strategy, "refine")
        self._good: list[str] = []
        self._is_closed = False
        self._refused: dict[str, str] = {}
        aggregator.begin(round_)

    @property
    def order(self) -> dict[str, Any] | None:
        """What the orders of the round tell of secure aggregation; None without it."""
        return None

    def points(self, datasets: Mapping[str, str]) -> list[Point]:
        """What belongs into the history beside the nodes' reports; here nothing.

        Args:
            datasets: ids of the datasets, by node.
        """
        return []

    def collect(self, job: Job, ask: Callable[[], object]) -> None:
        """Let the replies of the round come.

        Args:
            job: asks.
            ask: sends the orders and waits.
        """
        ask()

    def hearing(self, job: Job, hear: OnProgress) -> OnProgress:
        """What hears of the nodes' progress while the replies come; what it raises ends the round.

        Args:
            job: asks.
            hear: of the experiment.
        """
        return hear

    @property
    def good(self) -> list[str]:
        """Nodes whose reply counts, in the order in which they came."""
        return list(self._good)

    def add(self, reply: Mapping[str, Any]) -> None:
        """Take in one reply; one that does not count, or does not fit to the others, is left out with the reason.

        The first of two replies of a node counts. A node that was not asked is left out.

        Raises:
            FedbiomedTrainerError: the round is over.
            FedbiomedStrategyError: the strategy's verdict is neither a number nor a text.
        """
        node_id = str(reply["node_id"])
        if self._is_closed:
            raise FedbiomedTrainerError(f"{ErrorNumbers.FB411.value}: a reply of {node_id} came after round {self._round} was over")
        if node_id in self._good or node_id not in self._sampled:
            logger.warning(
                "round %d: a reply of %s is left out: %s", self._round, node_id, "a second one" if node_id in self._good else "not asked"
            )
            return
        if self._is_judged_at_end:
            self._good.append(node_id)
            return
        verdict: Any = self._strategy.accept(reply)
        if isinstance(verdict, bool) or not isinstance(verdict, str | numbers.Real):
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB402.value}: accept() of {type(self._strategy).__name__} must return by what the reply of {node_id} "
                f"counts, or the reason why it does not, not {verdict!r:.80}"
            )
        try:
            if isinstance(verdict, str):
                self._refused[node_id] = verdict
            else:
                aux = self._aux.checked(node_id, reply["optim_aux_var"])
                self._fold(node_id, reply, float(verdict))
                self._aux.add(aux)
                self._good.append(node_id)
        except (AggregationError, FedbiomedOptimizerError, FedbiomedResponsesError) as error:
            self._refused[node_id] = str(error)

    def _fold(self, node_id: str, reply: Mapping[str, Any], weight: float) -> None:
        self._aggregator.hear(node_id, reply)
        self._aggregator.add(node_id, reply["params"], weight)

    def failures(self, job: Job) -> dict[str, str]:
        """Why nodes do not count, as far as it is known: what the exchange told, then what was refused here."""
        return {**job.failures.get(self._round, {}), **self._refused}

    def check(self, job: Job) -> None:
        """Close the round: no reply is taken any more.

        Raises:
            FedbiomedStrategyError: not enough good replies: how many, which nodes, why.
        """
        self._is_closed = True
        self._strategy.check_round(self._round, self._sampled, self._good, self.failures(job))

    def aggregate(self, job: Job) -> Params:
        """The next parameters.

        Raises:
            FedbiomedStrategyError: not enough good replies: how many, which nodes, why.
            FedbiomedAggregatorError: the updates cannot be aggregated.
            FedbiomedOptimizerError: a reply that a strategy's `refine` took has auxiliary variables that do not fit.
        """
        if not self._is_judged_at_end:
            self.check(job)
            self._aggregator.hear_measures(self._measures(job, self._good))
            return self._aggregator.finish()
        self._is_closed, failures = True, self.failures(job)
        if not self._good:
            reasons = "; ".join(f"{node_id}: {failures.get(node_id, 'no answer')}" for node_id in self._sampled)
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB407.name}: 0 of {len(self._sampled)} nodes answered round {self._round}: {reasons}"
            )
        replies = job.training_replies[self._round]
        params, weights = self._refined(replies)
        for reply in replies:
            if reply["node_id"] in params:
                self._aggregator.hear(reply["node_id"], reply)
                self._aux.add(self._aux.checked(reply["node_id"], reply["optim_aux_var"]))
        self._aggregator.hear_measures(self._measures(job, params))
        return self._aggregator.aggregate(params, weights)

    def _refined(self, replies: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        """What a strategy's own `refine` chose, by node: parameters and weights."""
        given: Any = self._strategy.refine(replies, self._round)
        if not isinstance(given, tuple | list) or len(given) != 4 or not all(isinstance(part, Mapping) for part in given[:2]):
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB402.value}: refine() of {type(self._strategy).__name__} must return parameters and weights by node, the "
                f"number of samples, and encryption factors by node, not {given!r:.80}"
            )
        return given[0], given[1]

    def _measures(self, job: Job, nodes: Iterable[str]) -> dict[str, Sequence[Mapping[str, Any]]]:
        reported = job.reported_metrics.get(self._round, {})
        return {node_id: reported.get(node_id, ()) for node_id in nodes}


def reports(round_: int, job: Job, updates: RoundUpdates | None = None) -> list[Point]:
    """What the nodes of a round reported; what did not go well without ending their round is told in the log."""
    replies = job.training_replies[round_]
    for reply in replies:
        if reply["msg"]:
            logger.warning("round %d: %s says: %s", round_, reply["node_id"], reply["msg"])
    datasets = {reply["node_id"]: reply["dataset_id"] for reply in replies}
    points = points_of(round_, datasets, job.reported_metrics.get(round_, {}))
    return points if updates is None else points + updates.points(datasets)


def sample(strategy: Strategy, round_: int, known: Sequence[str]) -> list[str]:
    """The nodes that a strategy asks in a round.

    Raises:
        FedbiomedStrategyError: none, one twice, or one that has no part in the training data.
    """
    drawn: Any = strategy.sample_nodes(round_)
    sampled = list(drawn) if isinstance(drawn, Iterable) and not isinstance(drawn, str) else []
    is_right = all(isinstance(node_id, str) and node_id in known for node_id in sampled)
    if not sampled or not is_right or len(set(sampled)) < len(sampled):
        raise FedbiomedStrategyError(
            f"{ErrorNumbers.FB402.value}: {type(strategy).__name__} must draw one or more of {list(known)} for round {round_}, "
            f"it drew {drawn!r:.200}; after a change of the training data call set_strategy() and set_job()"
        )
    return sampled
