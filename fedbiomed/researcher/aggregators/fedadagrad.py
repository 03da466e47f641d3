"""FedAdagrad, Reddi et al. 2021 (arXiv:2003.00295), algorithm 2."""

from fedbiomed.researcher.aggregators._adaptive import Adaptive
from fedbiomed.researcher.aggregators._from_global import Array


class FedAdagrad(Adaptive):
    """Adagrad on the mean of the nodes' ways: v <- v + D^2 (Reddi et al. 2021, arXiv:2003.00295).

    The step is x <- x + eta m / (sqrt(v) + tau), with m <- beta_1 m + (1 - beta_1) D; v only grows, so steps shrink.
    Exchanged: parameters. Stays on the nodes: data.

    Args:
        eta: server's step size; the paper tunes it for each task.
        beta_1: decay of m; the paper's is 0.
        tau: degree of adaptivity; the smaller, the more.
        initial_v: v before the first round; None: tau^2.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, eta: float = 0.1, beta_1: float = 0.0, tau: float = 1e-3, *, initial_v: float | None = None) -> None:
        super().__init__(eta, beta_1, tau, initial_v)

    def second_moment(self, v: Array, squared: Array) -> Array:
        """See `FedAdagrad`."""
        return v + squared
