"""A round of which the researcher sees only the sum.

The nodes' masked vectors are added as they come. When all have come that will, the strategy judges who is there, the nodes reveal what
opens that one sum, and its mean goes to the aggregator as if it were the update of one node.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.messages.training import TrainProgress
from fedbiomed.common.params import Params
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.joye_libert_parties import JoyeLibertServer
from fedbiomed.common.secagg.lom_server import LomServer
from fedbiomed.common.secagg.survivors import LEAST_OF_TWO_WEIGHTINGS
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.secagg.wire import SecaggOrder, read_masked
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.exchange import OnProgress
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.responses import read_result
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.secagg import opened_round
from fedbiomed.researcher.secagg.opened_round import OpenedRound, ReplayedRound
from fedbiomed.researcher.secagg.round_sum import Ranges, RoundSum
from fedbiomed.researcher.secagg.rules import check_parts
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation
from fedbiomed.researcher.secagg.session import SecureSession
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy

logger = logging.getLogger(__name__)
CLIPPED_BY: Mapping[Purpose, str] = {Purpose.WEIGHTS: "Clipped fraction", Purpose.AUX: "Clipped fraction of auxiliary variables"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of an experiment on which a round stands."""

    strategy: Strategy
    aggregator: Aggregator
    trainer: ModelTrainer
    agg_optimizer: Any
    aux: AuxTotal
    data: FederatedDataSet | None


@contextmanager
def updates_of(secagg: SecureAggregation, round_: int, job: Job, parts: Parts) -> Iterator[RoundUpdates]:
    """What takes in the replies of a round: openly as the trainer does, or as a secure sum; the round is closed with the block.

    With secure aggregation `job.nodes` becomes the members of the session, which is agreed on first where that is due.

    Raises:
        FedbiomedSecureAggregationError: a part of the experiment needs single updates: which one, and what to do.
        FedbiomedSecaggError: the nodes do not agree: which ones, why.
        FedbiomedStrategyError: too few nodes take part in the agreement.
    """
    if not secagg.active:
        parts.aggregator.expect_sums(None)
        yield parts.trainer.updates(round_, job.nodes, parts.strategy, parts.aggregator, parts.aux)
        return
    check_parts(parts.aggregator, parts.strategy, parts.trainer, parts.agg_optimizer)
    if job.node_params.paths():
        raise round_error(
            "some nodes hold models of their own, but with secure aggregation all start from one: run a round without it first"
        )
    asked, ranges = list(job.nodes), secagg.ranges
    parts.aggregator.expect_sums(ranges.aux)
    summed = RoundSum.of(job, parts.aggregator, parts.agg_optimizer, lambda: _sent(job), count_alike=secagg.count_alike)
    begun = opened_round.begun_as(job, round_, asked, summed.told)
    opened = opened_round.kept(job, begun)
    if opened is not None:
        yield ReplayedRound(round_, asked, parts.strategy, parts.aggregator, parts.aux, opened)
        return
    session = secagg.session_for(job, asked, _most_rows(parts.data, asked))
    secure = SecureRound(round_, asked, parts, session=session, ranges=ranges, job=job, summed=summed, begun=begun)
    try:
        secure.check_members()
        if summed.weighs_twice:
            secagg.tell_weightings(round_)
        job.nodes = [node for node in asked if node in session.terms.members]
        secagg.tell_cost(round_, session, secure.sizes)
        yield secure
    except BaseException:
        secagg.forget_session()  # masks of this round do not serve again
        raise
    session.close(round_)
    secagg.take_clipped(round_, secure.clipped)


def _sent(job: Job) -> Params:
    params: Params = read_result(Path(job.params_path))["model_weights"]
    return params


def _most_rows(data: FederatedDataSet | None, nodes: Sequence[str]) -> int:
    """Rows of the largest dataset, as far as they are told."""
    try:
        return max((rows for node, rows in data.shapes().items() if node in nodes), default=0) if data is not None else 0
    except FedbiomedError:
        return 0


class SecureRound(RoundUpdates):
    """Adds masked vectors, and opens their sum.

    Args:
        round_, sampled: see `RoundUpdates`.
        parts: of the experiment.
        session: as agreed.
        ranges: to which values are cut.
        job: asks the nodes.
        summed: what is summed.
        begun: see `opened_round.begun_as`.
    """

    def __init__(
        self,
        round_: int,
        sampled: Sequence[str],
        parts: Parts,
        *,
        session: SecureSession,
        ranges: Ranges,
        job: Job,
        summed: RoundSum,
        begun: str,
    ) -> None:
        super().__init__(round_, sampled, parts.strategy, parts.aggregator, parts.aux)
        self._session, self._ranges, self._job_id, self._begun = session, ranges, job.id, begun
        self._summed = summed
        self._before = job.node_states.get_last_node_states()
        self._told_states: dict[str, str | None] = {}
        self._attempt = 0
        self._server = self._new_server()
        self._refused |= session.absent
        self.clipped: dict[str, Mapping[Purpose, float]] = {}

    @property
    def order(self) -> dict[str, Any]:
        """What the orders of the round tell."""
        rules = self._summed.rules(self._ranges)
        return SecaggOrder(sid=self._session.sid, attempt=self._attempt, layout=self._summed.digest, parts=rules).as_dict()

    @property
    def sizes(self) -> dict[Purpose, int]:
        """Number of values that each node hides, by purpose."""
        return {purpose: layout.size for purpose, layout in self._summed.layouts.items()}

    def check_members(self) -> None:
        """Refuse to begin where too few nodes take part in the agreement.

        Raises:
            FedbiomedStrategyError: the strategy needs more.
            FedbiomedSecureAggregationError: two sums would tell the updates of so few nodes.
        """
        if self._summed.weighs_twice and len(self._session.terms.members) < LEAST_OF_TWO_WEIGHTINGS:
            raise round_error(
                f"two sums, one weighted by samples and one not, tell the updates of {len(self._session.terms.members)} nodes; with "
                f"auxiliary variables of agg_optimizer {LEAST_OF_TWO_WEIGHTINGS} are needed, or SecureAggregation(count_alike=True)"
            )
        if self._session.absent:
            members = [node for node in self._sampled if node in self._session.terms.members]
            self._strategy.check_round(self._round, self._sampled, members, self._refused)

    def hearing(self, job: Job, hear: OnProgress) -> OnProgress:
        """End the round as soon as it is known that its sum cannot be opened: the nodes that still work work for nothing."""

        def heard(node_id: str, word: TrainProgress | str) -> None:
            hear(node_id, word)
            lost = {node: reason for node, reason in self.failures(job).items() if node in self._session.terms.members}
            self._session.require_nodes(self._round, [node for node in self._session.terms.members if node not in lost], lost)

        return heard

    def add(self, reply: Mapping[str, Any]) -> None:
        """Add a node's masked vectors; what does not fit is left out with the reason."""
        node_id, path = str(reply["node_id"]), reply["params_path"]
        try:
            self._server.take_upload(read_masked(Path(path), node_id, self._job_id))
        except FedbiomedError as error:
            self._refused[node_id] = str(error)
        else:
            self._good.append(node_id)
        finally:
            Path(path).unlink(missing_ok=True)

    def points(self, datasets: Mapping[str, str]) -> list[Point]:
        """For the history: the fraction of values that each node clipped.

        Args:
            datasets: ids of the datasets, by node.
        """
        return [
            Point(self._round, node, datasets.get(node, ""), Phase.TRAINING.value, name, float(told[purpose]), 1, None)
            for node, told in self._server.clipped.items()
            for purpose, name in CLIPPED_BY.items()
            if purpose in told
        ]

    def aggregate(self, job: Job) -> Params:
        """Open the sum, and give its mean to the aggregator.

        Raises:
            FedbiomedStrategyError: not enough nodes; nothing was revealed then.
            FedbiomedSecureAggregationError: the sum does not open: how many nodes revealed, why the others did not.
            FedbiomedAggregatorError: the mean cannot be aggregated.
        """
        if self._session.asks_again and self._good and len(self._good) < self._session.terms.threshold:
            self._try_again(job)
        self._session.require_nodes(self._round, self._good, self.failures(job))
        self.check(job)
        survivors = self._server.close()
        reasons = self._session.open(self._server) if isinstance(self._server, LomServer) else {}  # the other scheme needs no nodes for it
        for node, reason in sorted(reasons.items()):
            logger.warning("round %d: %s is in the sum, but did not help to open it: %s", self._round, node, reason)
        if not self._server.can_open:
            told = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
            raise round_error(
                f"the sum of round {self._round} does not open: {len(survivors.nodes) - len(reasons)} of {len(survivors.nodes)} nodes "
                f"revealed, {self._session.terms.threshold} are needed ({told}); run again"
            )
        means = self._summed.means(self._server.open(), survivors.nodes, self._session.terms, self._ranges)
        self.clipped = dict(self._server.clipped)
        replies, metrics = job.training_replies[self._round].data(), job.reported_metrics[self._round]
        states = self._states_after(job, survivors.nodes)
        opened_round.keep(job, self._begun, OpenedRound(means=means, replies=replies, metrics=metrics, states=states))
        job.node_states.put(states)
        self._aggregator.hear_measures(self._measures(job, self._good))
        means.hand_on(self._aggregator, self._aux, job.training_plan.get_model_params(only_trainable=True))
        return self._aggregator.finish()

    def _states_after(self, job: Job, survivors: Sequence[str]) -> dict[str, str | None]:
        """What the nodes go on from: those in the sum from this round, the others, of whose work nothing is in it, from the one before."""
        now = {**job.node_states.get_last_node_states(), **self._told_states}
        return {node: now.get(node) if node in survivors else self._before.get(node) for node in self._session.terms.members}

    def _try_again(self, job: Job) -> None:
        """Too few vectors came, and nothing was revealed: let the nodes mask what they keep once more."""
        self._attempt += 1
        logger.warning(
            "round %d: masked updates of %d nodes came, %d are needed; asking once more", self._round, len(self._good), self._needed
        )
        answers = self._session.ask_again(self._round, self._attempt)
        server, good = self._new_server(), []
        with tempfile.TemporaryDirectory(prefix="secagg_") as folder:
            for node, reply in answers.items():
                path = Path(folder) / f"{node}.mpk"
                try:
                    job.repo.get(reply.result, path)
                    upload = read_masked(path, node, self._job_id)
                    server.take_upload(upload)
                    self._told_states[node] = upload.state_id
                except FedbiomedError as error:
                    self._refused[node] = str(error)
                else:
                    good.append(node)
                    self._refused.pop(node, None)
        self._server, self._good = server, good

    @property
    def _needed(self) -> int:
        return self._session.terms.threshold

    def _new_server(self) -> LomServer | JoyeLibertServer:
        return self._session.server(self._round, self._attempt, self.sizes, frozenset(self._summed.weightings.values()))
