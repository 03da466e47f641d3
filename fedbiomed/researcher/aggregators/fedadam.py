"""FedAdam, Reddi et al. 2021 (arXiv:2003.00295), algorithm 2."""

from fedbiomed.researcher.aggregators._adaptive import Adaptive
from fedbiomed.researcher.aggregators._from_global import Array
from fedbiomed.researcher.aggregators._options import decay_rate


class FedAdam(Adaptive):
    """Adam on the mean of the nodes' ways: v <- beta_2 v + (1 - beta_2) D^2 (Reddi et al. 2021, arXiv:2003.00295).

    The step is x <- x + eta m / (sqrt(v) + tau), with m <- beta_1 m + (1 - beta_1) D; no correction for the start.
    Exchanged: parameters. Stays on the nodes: data.

    Args:
        eta: server's step size; the paper tunes it for each task.
        beta_1, beta_2: decay of m and v.
        tau: degree of adaptivity; the smaller, the more.
        initial_v: v before the first round; None: tau^2.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(
        self, eta: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3, *, initial_v: float | None = None
    ) -> None:
        super().__init__(eta, beta_1, tau, initial_v)
        self.beta_2 = decay_rate("FedAdam", "beta_2", beta_2)

    def second_moment(self, v: Array, squared: Array) -> Array:
        """See `FedAdam`."""
        return self.beta_2 * v + (1 - self.beta_2) * squared
