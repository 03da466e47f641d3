"""Federated optimization, Reddi et al. 2021 (arXiv:2003.00295), algorithms 1 and 2: the frame in which server optimizers stand.

With x the parameters that were sent and y_i those that node i made of them, n_i its samples:

    D <- sum_i n_i y_i / sum_i n_i - x      the pseudo-gradient, negated
    x <- x + step(D)                        of `FedAvgM`, `FedAdam`, `FedYogi`, `FedAdagrad`, `Flash`

The paper writes the plain mean; counting by samples is its remark on unequal nodes, and what the other aggregators here do.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.params import Params, RunningMean
from fedbiomed.researcher.aggregators._from_global import Array, FromGlobal
from fedbiomed.researcher.aggregators._options import above_zero

logger = logging.getLogger(__name__)

Moments = dict[str, Array]


class FedOpt(FromGlobal):
    """Makes one step of an optimizer along the mean of the nodes' ways.

    Streams: holds one sum, and the optimizer's moments, in float64, whatever the number of nodes. Moments are kept by the name of the
    parameter and go into breakpoints; what is not trained takes the plain mean.

    Args:
        eta: server's step size.

    Attributes:
        moments: of each trained parameter, by its name, then by the name of the moment; float64.
    """

    takes_sums = True

    def __init__(self, eta: float) -> None:
        super().__init__()
        self.eta = above_zero(type(self).__name__, "eta", eta)
        self.moments: dict[str, Moments] = {}
        self._mean = RunningMean()

    @abstractmethod
    def step(self, delta: Array, former: Moments | None) -> tuple[Array, Moments]:
        """The step of one parameter, and its new moments; the inputs stay untouched.

        Args:
            delta: D, mean of the nodes minus what was sent; float64.
            former: moments of the round before; None in the first one.
        """

    def begin(self, round: int) -> None:
        """Forget the updates of an earlier round, finished or not; the moments stay."""
        super().begin(round)
        self._mean = RunningMean()

    def finish(self) -> Params:
        """The next parameters; the moments are renewed.

        Raises:
            AggregationError: nothing was added, all weights are 0, or a step is too large for the dtype of its parameter.
        """
        self._mean.require_weight()
        params: Params = {}
        moments: dict[str, Moments] = {}
        for name in self._mean.names():
            value, kind = self._mean.mean_of(name), self._mean.kind(name)
            step = value - self._sent_array(name)
            if self._is_trained(name):
                step, moments[name] = self.step(step, self.moments.get(name))
            params[name] = self._moved(name, step, kind)
        self.moments = moments
        self.begin(0)
        return params

    def state_arrays(self) -> dict[str, Any]:
        """The moments."""
        return {"moments": self.moments, "shapes": {name: list(shape) for name, shape in self._shapes.items()}} if self.moments else {}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave."""
        moments = {name: {key: np.array(value, np.float64) for key, value in of.items()} for name, of in state["moments"].items()}
        self.moments = moments
        self._shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        self._mean.add(params, weight, source=node_id)

    def _begin_anew(self) -> None:
        logger.warning("the model is another one than in the round before: the moments of %s begin anew", type(self).__name__)
        self.moments = {}
