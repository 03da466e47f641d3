"""Federated averaging with server momentum, Hsu et al. 2019 (arXiv:1909.06335), section 4.3."""

from fedbiomed.researcher.aggregators._from_global import Array
from fedbiomed.researcher.aggregators._options import decay_rate
from fedbiomed.researcher.aggregators.fedopt import FedOpt, Moments


class FedAvgM(FedOpt):
    """The mean of the nodes' ways, with momentum: v <- beta v + D, x <- x + eta v (Hsu et al. 2019, arXiv:1909.06335).

    Exchanged: parameters. Stays on the nodes: data.

    Args:
        eta: server's step size; the paper's is 1.
        beta: momentum; the paper tries 0, 0.7, 0.9, 0.97, 0.99 and 0.997.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, eta: float = 1.0, beta: float = 0.9) -> None:
        super().__init__(eta)
        self.beta = decay_rate("FedAvgM", "beta", beta)

    def step(self, delta: Array, former: Moments | None) -> tuple[Array, Moments]:
        """See `FedOpt`."""
        momentum = delta if former is None else self.beta * former["momentum"] + delta
        return self.eta * momentum, {"momentum": momentum}
