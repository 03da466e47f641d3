"""Federated averaging, McMahan et al. 2017 (arXiv:1602.05629)."""

import math
from collections.abc import Mapping
from typing import Any

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params, RunningMean
from fedbiomed.researcher.aggregators.aggregator import Aggregator


class FedAverage(Aggregator):
    """The mean of the nodes' parameters, each node counting by its number of samples (McMahan et al. 2017, arXiv:1602.05629).

    Streams: holds one sum in float64, whatever the number of nodes. Exchanged: parameters. Stays on the nodes: data.
    """

    takes_sums = True

    def __init__(self) -> None:
        super().__init__(aggregator_name="FedAverage")
        self._mean = RunningMean()
        self._nodes: set[str] = set()

    def begin(self, round: int) -> None:
        """Start from nothing."""
        self._mean, self._nodes = RunningMean(), set()

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Fold one node's update into the mean; one that is refused leaves the mean as it was.

        Raises:
            AggregationError: this node was added before, its names or shapes differ from the first node's, a value is not finite.
        """
        if node_id in self._nodes:
            raise AggregationError(f"the update of {node_id} came twice in one round")
        self._mean.add(params, weight, source=node_id)
        self._nodes.add(node_id)

    def finish(self) -> Params:
        """The mean of what was added since `begin`.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        mean = self._mean.mean()
        self.begin(0)
        return mean

    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """The mean of all updates at once.

        Args:
            model_params: parameters by node.
            weights: numbers from 0 to 1 by node, not all 0; shares of the sum count.

        Raises:
            AggregationError: the nodes differ, a weight is not such a number, or the parameters do not fit together.
        """
        if model_params.keys() != weights.keys():
            raise AggregationError(f"updates of {sorted(model_params)}, but weights of {sorted(weights)}")
        if not all(0 <= weight <= 1 for weight in weights.values()) or math.fsum(weights.values()) <= 0:
            raise AggregationError(f"weights must lie between 0 and 1 and not all be 0, not {dict(weights)}")
        mean = RunningMean()
        for node_id, params in model_params.items():
            mean.add(params, weights[node_id], source=node_id)
        return mean.mean()
