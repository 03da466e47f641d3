"""FedNova, Wang et al. 2020 (arXiv:2007.07481), equations 6 to 8: normalised averaging.

With x the parameters that were sent, y_i those that node i made of them in K_i steps, p_i its share of the samples:

    a_i <- K_i                                          plain gradient descent
    a_i <- (K_i - rho (1 - rho^K_i) / (1 - rho)) / (1 - rho)    with momentum rho
    x   <- x + (sum_i p_i a_i) * sum_i p_i (y_i - x) / a_i

Without it a node that makes more steps draws the model towards its own optimum. With equal numbers of steps it is `FedAverage`.
"""

import math
from collections.abc import Mapping
from typing import Any

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params, RunningMean, checked_arrays
from fedbiomed.researcher.aggregators._from_global import FromGlobal
from fedbiomed.researcher.aggregators._options import decay_rate


class FedNova(FromGlobal):
    """The mean of the nodes' ways, each divided by its number of local steps (Wang et al. 2020, arXiv:2007.07481).

    Exchanged: parameters, number of local steps (`optimizer_args["num_updates"]` of a reply). Stays on the nodes: data. Streams: holds one
    sum in float64. What is not trained takes the plain mean. Made for `torch.optim.SGD` on the nodes; with other optimizers, or a proximal
    term, the division by the number of steps is an approximation.

    Args:
        momentum: rho of the nodes' `torch.optim.SGD`; 0 for plain gradient descent.

    Raises:
        FedbiomedAggregatorError: `momentum` is not a number from 0 to below 1.
    """

    def __init__(self, momentum: float = 0.0) -> None:
        super().__init__()
        self.momentum = decay_rate("FedNova", "momentum", momentum)
        self._steps: dict[str, int] = {}
        self.begin(0)

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not."""
        super().begin(round)
        self._ways, self._rest = RunningMean(), RunningMean()
        self._lengths: dict[str, float] = {}

    def hear(self, node_id: str, reply: Mapping[str, Any]) -> None:
        """Take the number of local steps out of a reply: `optimizer_args["num_updates"]`.

        Raises:
            AggregationError: it is not there, or is not an integer above 0.
        """
        optimizer_args = reply.get("optimizer_args")
        found = optimizer_args.get("num_updates") if isinstance(optimizer_args, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise AggregationError(
                f"{node_id} does not tell how many steps it made: optimizer_args['num_updates'] is {found!r:.80}; FedNova needs plans that "
                "leave training_routine as it is"
            )
        self._steps = {**self._steps, node_id: found}

    def length(self, steps: int) -> float:
        """a_i, the sum by which so many steps count."""
        rho = self.momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)

    def finish(self) -> Params:
        """The next parameters.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        total = math.fsum(self._added.values())
        if not total > 0:
            raise AggregationError(f"cannot aggregate the updates of {sorted(self._added) or 'no node'}, whose weights sum to {total}")
        mean_length = math.fsum(weight * self._lengths[node_id] for node_id, weight in self._added.items()) / total
        scale = mean_length * self._ways.total_weight / total
        params: Params = {}
        for name in self._sent:
            of = self._ways if self._is_trained(name) else self._rest
            step = of.mean_of(name) - self._sent_array(name)
            params[name] = self._moved(name, step * scale if of is self._ways else step, of.kind(name))
        self.begin(0)
        return params

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        if node_id not in self._steps:
            raise AggregationError(f"FedNova cannot use the update of {node_id}: it must be told its number of steps (hear) before")
        length = self.length(self._steps[node_id])
        trained = {name: value for name, value in params.items() if self._is_trained(name)}
        rest = {name: value for name, value in params.items() if name not in trained}
        if rest and weight:
            checked_arrays(rest, node_id)  # before the first of two sums is changed
        if trained:
            self._ways.add(trained, weight / length, source=node_id)
        if rest:
            self._rest.add(rest, weight, source=node_id)
        self._lengths = {**self._lengths, node_id: length}
