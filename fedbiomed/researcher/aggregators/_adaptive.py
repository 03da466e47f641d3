"""What FedAdam, FedYogi and FedAdagrad have in common: algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295)."""

from abc import abstractmethod

import numpy as np

from fedbiomed.researcher.aggregators._from_global import Array
from fedbiomed.researcher.aggregators._options import above_zero, at_least_zero, decay_rate
from fedbiomed.researcher.aggregators.fedopt import FedOpt, Moments


class Adaptive(FedOpt):
    """Divides the mean way by the root of a second moment: x <- x + eta m / (sqrt(v) + tau), with m <- beta_1 m + (1 - beta_1) D.

    m begins at 0, and neither moment is corrected for its start, as in the paper.

    Args:
        eta: server's step size.
        beta_1: decay of m.
        tau: degree of adaptivity; the smaller, the more.
        initial_v: v before the first round; None: tau^2, the least that the paper allows.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, eta: float, beta_1: float, tau: float, initial_v: float | None) -> None:
        super().__init__(eta)
        who = type(self).__name__
        self.beta_1 = decay_rate(who, "beta_1", beta_1)
        self.tau = above_zero(who, "tau", tau)
        self.initial_v = None if initial_v is None else at_least_zero(who, "initial_v", initial_v)

    @abstractmethod
    def second_moment(self, v: Array, squared: Array) -> Array:
        """The new v, from the former one and D^2."""

    def step(self, delta: Array, former: Moments | None) -> tuple[Array, Moments]:
        """See `FedOpt`."""
        if former is None:
            start = self.tau**2 if self.initial_v is None else self.initial_v
            former = {"m": np.zeros_like(delta), "v": np.full_like(delta, start)}
        m = self.beta_1 * former["m"] + (1 - self.beta_1) * delta
        v = self.second_moment(former["v"], delta * delta)
        return self.eta * m / (np.sqrt(v) + self.tau), {"m": m, "v": v}
