"""Aggregators that work on the way from the parameters that were sent to those that came back."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Kind, Params, as_array, as_kind, checked_arrays, is_finite
from fedbiomed.researcher.aggregators._options import OfPlan

Array = np.ndarray[Any, Any]


class FromGlobal(OfPlan):
    """Knows the parameters that were sent.

    What is not trained (counters, statistics of a batch normalisation) takes the plain mean, by the rule of `common/params.py`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sent: Params = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._added: dict[str, float] = {}

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; takes note of the parameters that are sent."""
        shapes = {name: array.shape for name, array in checked_arrays(global_model, "the researcher").items()}
        if self._shapes and shapes != self._shapes:
            self._begin_anew()
        self._sent, self._shapes = dict(global_model), shapes
        return super().create_aggregator_args(global_model, node_ids)

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not; what is remembered from round to round stays."""
        super().begin(round)
        self._added = {}

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Take one node's update in; one that is refused leaves everything as it was.

        Raises:
            AggregationError: the node was added before, its names or shapes are not those of the model that was sent, a value is not
                finite, or this aggregator was not told what was sent (`create_aggregator_args`).
        """
        if not self._sent:
            raise AggregationError(
                f"{type(self).__name__} cannot use the update of {node_id}: it must be told the model that was sent "
                "(create_aggregator_args) before"
            )
        if node_id in self._added:
            raise AggregationError(f"the update of {node_id} came twice in one round")
        self._check_fit(node_id, params)
        self._fold(node_id, params, weight)
        self._added = {**self._added, node_id: weight}

    def aggregate(
        self,
        model_params: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, float],
        *args: Any,
        global_model: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Params:
        """The next parameters from all updates at once; what is remembered is renewed.

        Args:
            model_params: parameters by node.
            weights: by node.
            *args, **kwargs: not needed here.
            global_model: that was sent; None: as given to `create_aggregator_args`.

        Raises:
            AggregationError: the nodes differ, or the updates do not fit to the model that was sent.
        """
        if model_params.keys() != weights.keys():
            raise AggregationError(f"updates of {sorted(model_params)}, but weights of {sorted(weights)}")
        if global_model is not None:
            self.create_aggregator_args(global_model, list(model_params))
        self.begin(0)
        for node_id, params in model_params.items():
            self.add(node_id, params, weights[node_id])
        return self.finish()

    @abstractmethod
    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Take in an update whose names and shapes fit; check its values first."""

    def _check_fit(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Check that the names and shapes of an update are those of the model that was sent."""
        checked_arrays(params, node_id, self._shapes, "the model that was sent", with_values=False)

    def _total_weight(self) -> float:
        """Of all updates of the round; above 0."""
        total = math.fsum(self._added.values())
        if not total > 0:
            raise AggregationError(f"cannot aggregate the updates of {sorted(self._added) or 'no node'}, whose weights sum to {total}")
        return total

    def _begin_anew(self) -> None:
        """The model is another one than before: forget what is remembered from round to round."""

    def _is_trained(self, name: str) -> bool:
        return self.is_trained(name, as_array(self._sent[name], name, "the researcher"))

    def _sent_array(self, name: str) -> Array:
        return as_array(self._sent[name], name, "the researcher").astype(np.float64)

    def _moved(self, name: str, step: Array, kind: Kind) -> Any:
        """A parameter after a step.

        Raises:
            AggregationError: it is no finite number any more.
        """
        with np.errstate(over="ignore"):
            result = as_kind(self._sent_array(name) + step, 1.0, kind)
        if not is_finite(as_array(result, name, "the researcher")):
            raise AggregationError(f"the step of {type(self).__name__} makes parameter {name!r} infinite: a smaller rate is needed")
        return result
