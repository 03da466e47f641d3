"""Flash, Panchal et al. 2023 ("Flash: Concept Drift Adaptation in Federated Learning", ICML): the researcher's half.

With D the mean of the nodes' ways:

    m   <- beta_1 m + (1 - beta_1) D                v  <- beta_2 v' + (1 - beta_2) D^2,  v' being the former v
    b_3 <- |v'| / (|D^2 - v| + |v'|)                d  <- b_3 d + (1 - b_3) (D^2 - v)
    x   <- x + eta m / (max(sqrt(v) - d, sqrt(v) / 10) + tau)

Two things differ from the paper, where the formula has no sense. Without a former v there is no drift to be seen: b_3 is then 1 (the
paper's is 0 / 0 where D is 0, and elsewhere takes the whole first step for drift). And the drift takes away at most nine tenths of the
divisor, which without the bound comes near 0 or changes its sign, so that the model is thrown far away or backwards.
"""

import numpy as np

from fedbiomed.researcher.aggregators._from_global import Array
from fedbiomed.researcher.aggregators._options import above_zero, decay_rate
from fedbiomed.researcher.aggregators.fedopt import FedOpt, Moments

_LEAST_SHARE = 0.1


class Flash(FedOpt):
    """Adam on the mean of the nodes' ways, that takes larger steps where their size drifts (Panchal et al. 2023, ICML).

    Exchanged: parameters. Stays on the nodes: data. The nodes' early stopping is not part of it.

    Args:
        eta: server's step size.
        beta_1, beta_2: decay of m and v.
        tau: degree of adaptivity.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, eta: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-9) -> None:
        super().__init__(eta)
        self.beta_1 = decay_rate("Flash", "beta_1", beta_1)
        self.beta_2 = decay_rate("Flash", "beta_2", beta_2)
        self.tau = above_zero("Flash", "tau", tau)

    def step(self, delta: Array, former: Moments | None) -> tuple[Array, Moments]:
        """See `FedOpt`."""
        former = former or dict.fromkeys("mvd", np.zeros_like(delta))
        squared = delta * delta
        m = self.beta_1 * former["m"] + (1 - self.beta_1) * delta
        v = self.beta_2 * former["v"] + (1 - self.beta_2) * squared
        drift = squared - v
        beta_3 = np.ones_like(delta)
        np.divide(former["v"], np.abs(drift) + former["v"], out=beta_3, where=former["v"] > 0)
        d = beta_3 * former["d"] + (1 - beta_3) * drift
        root = np.sqrt(v)
        return self.eta * m / (np.maximum(root - d, _LEAST_SHARE * root) + self.tau), {"m": m, "v": v, "d": d}
