"""The reply of the one node that a model visits."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params, checked_arrays
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.optimizer_travel import RoundStates
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy


class VisitUpdates(RoundUpdates):
    """Keeps the model of the node as it is: nothing is averaged, so not a bit of it changes.

    Args:
        round_, sampled, strategy, aggregator, aux: see `RoundUpdates`.
        states: of the optimizer that goes with the model.
    """

    def __init__(  # noqa: PLR0917  those of the base class, and one
        self,
        round_: int,
        sampled: Sequence[str],
        strategy: Strategy,
        aggregator: Aggregator,
        aux: AuxTotal,
        states: RoundStates,
    ) -> None:
        super().__init__(round_, sampled, strategy, aggregator, aux)
        self._states = states
        self._model: Params | None = None

    @property
    def sampled(self) -> Sequence[str]:
        """Nodes that were asked: one."""
        return tuple(self._sampled)

    def _fold(self, node_id: str, reply: Mapping[str, Any], weight: float) -> None:
        checked_arrays(reply["params"], node_id)
        self._states.take(node_id, reply)
        self._model = dict(reply["params"])

    def check(self, job: Job) -> None:
        """Close the round; that the node did not answer well is no error here."""
        self._is_closed = True

    def visited(self, job: Job) -> Params | str:
        """The model that the node made of that of the job, or why there is none."""
        if self._model is None:
            return self.failures(job).get(self._sampled[0], "no answer")
        sent = job.training_plan.get_model_params()
        shapes = {name: tuple(value.shape) for name, value in sent.items() if name in self._model}
        try:
            checked_arrays({name: self._model[name] for name in shapes}, self._sampled[0], shapes, "the model that was sent")
        except AggregationError as error:
            return str(error)
        return self._model
