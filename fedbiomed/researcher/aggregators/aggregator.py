"""What an aggregator is. Deriving from it and defining `aggregate` is enough."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedBreakpointError
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._sums import SumTerms


class Aggregator(ABC):
    """Turns the updates of a round into the next parameters.

    The loop calls `begin`, `hear` and `add` for each good reply as it comes, and `finish`. Here these collect the updates and call
    `aggregate` at the end; an aggregator that can work on one update at a time overrides them and needs memory for one model only.

    Args:
        aggregator_name: under which it is known to the nodes' plans; the name of the class by default.

    Attributes:
        takes_sums: whether the mean of all nodes does in the place of their updates, as secure aggregation gives it. Each round then calls
            `expect_sums` first, `hear_sum` and `add` once, the latter with that mean and the weight of all, and `hear` never.
    """

    takes_sums = False

    def __init__(self, aggregator_name: str = "") -> None:
        self.aggregator_name = aggregator_name or type(self).__name__
        self._updates: dict[str, Mapping[str, Any]] = {}
        self._weights: dict[str, float] = {}
        self._fds: Any = None
        self._training_plan_type: TrainingPlans | None = None

    @abstractmethod
    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """Next parameters from all updates of a round at once.

        Args:
            model_params: parameters by node.
            weights: by which each node counts; they sum to 1.
            *args, **kwargs: of single aggregators.

        Returns:
            New parameters; the inputs stay untouched.

        Raises:
            FedbiomedAggregatorError: these updates cannot be aggregated.
        """

    def begin(self, round: int) -> None:
        """Forget the updates of an earlier round, finished or not."""
        self._updates, self._weights = {}, {}

    def hear(self, node_id: str, reply: Mapping[str, Any]) -> None:  # noqa: B027  may be left out
        """Hear what a reply tells beside its parameters, before they are added; here it does not matter.

        Args:
            node_id: whose it is.
            reply: as in `Responses`: `optimizer_args`, `sample_size`, `told` (numbers by name, from the node's half) and so on.

        Raises:
            AggregationError: this aggregator needs something that the reply does not tell.
        """

    def expect_sums(self, aux_range: float | None) -> None:  # noqa: B027  may be left out
        """Hear, before `create_aggregator_args`, what the round will give; here it does not matter.

        Args:
            aux_range: sums over nodes, for which the nodes cut what they send beside their parameters to plus and minus this; None: single
                updates.
        """

    def sum_terms(self, training_plan: Any) -> SumTerms:
        """How nodes are summed in rounds that give sums; here by their samples, and nothing beside the parameters.

        Args:
            training_plan: the researcher's, built.
        """
        return SumTerms()

    def hear_sum(self, nodes: Sequence[str], weight: float, beside: Mapping[str, Any]) -> None:  # noqa: B027  may be left out
        """Hear of the sum before it is added; here it does not matter.

        Args:
            nodes: in the sum.
            weight: of all of them together.
            beside: means of what `sum_terms` asks for beside the parameters, float64, by name.
        """

    def hear_measures(self, measures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:  # noqa: B027  may be left out
        """Hear what the nodes of the round measured, after the last update was added; here it does not matter.

        Args:
            measures: by node, in the order in which they were made: `phase`, `metric`, `value`, `iteration`, `epoch`.

        Raises:
            AggregationError: this aggregator needs something that was not measured.
        """

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Take one node's update in.

        Args:
            node_id: whose it is.
            params: its parameters; may be read only later, and must not be changed until `finish`.
            weight: by which it counts: its number of samples.

        Raises:
            AggregationError: this node was added before, or its update cannot be aggregated with the others.
        """
        if node_id in self._updates:
            raise AggregationError(f"the update of {node_id} came twice in one round")
        self._updates[node_id], self._weights[node_id] = params, weight

    def finish(self) -> Params:
        """Next parameters from what was added since `begin`.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        updates, weights, total = self._updates, self._weights, sum(self._weights.values())
        if not total > 0:
            raise AggregationError(f"cannot aggregate {len(updates)} updates whose weights sum to {total}")
        self.begin(0)
        return self.aggregate(updates, {node_id: weight / total for node_id, weight in weights.items()})

    def travels(self, name: str) -> bool:
        """Whether a parameter of that name goes to and fro; one that does not stays as each node has made it, and here as it was made.

        The node's half must leave out the same names in `leaving`.
        """
        return True

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Put all attributes back as they were when the block raises; so a state is renewed by a new object, never changed in place."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def check_values(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the settings of the experiment suit this aggregator; called before each round.

        Raises:
            FedbiomedAggregatorError: they do not: which, and what is needed.
        """
        return True

    def set_fds(self, fds: Any) -> Any:
        """Tell which `FederatedDataSet` is trained on; gives it back."""
        self._fds = fds
        return self._fds

    def set_training_plan_type(self, training_plan_type: TrainingPlans) -> TrainingPlans:
        """Tell on which library the plan stands; gives it back."""
        self._training_plan_type = training_plan_type
        return training_plan_type

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What the nodes' half of the algorithm needs in this round.

        Args:
            global_model: current parameters.
            node_ids: nodes of the round.

        Returns:
            Small arguments per node, which travel in the order, and large ones per node, which travel as files.
        """
        return {node_id: {"aggregator_name": self.aggregator_name} for node_id in node_ids}, {node_id: {} for node_id in node_ids}

    def save_state_breakpoint(self, breakpoint_path: str | Path | None = None, **kwargs: Any) -> dict[str, Any]:
        """State from which `load_state_breakpoint` goes on.

        Args:
            breakpoint_path: folder for files of an aggregator whose state does not fit into JSON.
            **kwargs: of single aggregators.

        Returns:
            `class`, `module` and `parameters`, all JSON.
        """
        return {"class": type(self).__name__, "module": type(self).__module__, "parameters": {}}

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """Take over what `save_state_breakpoint` gave; here only checked to be of this class, for there is nothing more.

        Raises:
            FedbiomedBreakpointError: it is the state of another aggregator.
        """
        if state.get("class") != type(self).__name__:
            raise FedbiomedBreakpointError(f"the state of a {state.get('class')!r:.80} cannot be given to a {type(self).__name__}")
