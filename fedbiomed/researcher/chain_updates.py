"""The replies of one round in a chain, in which nodes have models of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedbiomed.common.params import Params, RunningMean
from fedbiomed.researcher.aggregated_params import read_params
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.optimizer_travel import RoundStates
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Chain:
    """How a round of a chain is to be taken.

    Args:
        is_end: whether the models are averaged after it.
        is_weighted: whether they count by samples then, or all alike.
        weights: of the models that nodes hold, by node.
        states: of optimizers that go with the models.
    """

    is_end: bool
    is_weighted: bool
    weights: Mapping[str, float] = field(default_factory=dict)
    states: RoundStates = field(default_factory=RoundStates)


class ChainUpdates(RoundUpdates):
    """Checks each reply; at the end of the chain averages them, together with the models of nodes that did not answer in this round.

    Args:
        round_, sampled, strategy, aggregator, aux: see `RoundUpdates`.
        chain: how the round is to be taken.
    """

    def __init__(  # noqa: PLR0917  those of the base class, and one
        self, round_: int, sampled: list[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal, chain: Chain
    ) -> None:
        super().__init__(round_, sampled, strategy, aggregator, aux)
        self._chain = chain
        self._alike = RunningMean()
        self.weights: dict[str, float] = {}

    def _fold(self, node_id: str, reply: Mapping[str, Any], weight: float) -> None:
        self._chain.states.take(node_id, reply)
        params = reply["params"]
        self._alike.add(params, 0.0, source=node_id)  # only to be checked: names, shapes, finite numbers
        if self._chain.is_end:
            self._aggregator.add(node_id, params, self._counted(weight))
        self.weights[node_id] = weight

    def check(self, job: Job) -> None:
        """See `RoundUpdates.check`."""
        super().check(job)
        self._aux.hand_over()

    def aggregate(self, job: Job) -> Params:
        """See `RoundUpdates.aggregate`; nothing that was trained since the last average is left out.

        Raises:
            FedbiomedExperimentError: as there; or the file of a model that a node holds is gone.
        """
        for node_id, path in job.node_params.paths().items():
            if node_id not in self.good:
                self._aggregator.add(node_id, read_params(path), self._counted(self._chain.weights.get(node_id, 1.0)))
        return super().aggregate(job)

    def _counted(self, weight: float) -> float:
        return weight if self._chain.is_weighted else 1.0
