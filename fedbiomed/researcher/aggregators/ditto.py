"""Ditto, Li et al. 2021 (ICML, arXiv:2012.04221). The nodes' half is `common/training_plans/corrections/ditto.py`.

The global model w is that of `FedAverage`, to the bit. Beside it each node trains a personal model v on the same batches:

    v <- v - lr (grad f(v) + lambda (v - w_0))          w_0: w with which the round began
"""

from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import at_least_zero


class Ditto(MeanWithNodeHalf):
    """The mean of the nodes' parameters, and on each node a personal model that is pulled towards it (Li et al. 2021, ICML,
    arXiv:2012.04221).

    Exchanged: parameters of the shared model. Stays on the nodes: data, the personal model.

    For torch plans with optimizers of torch; a step takes twice the time. Persistent buffers: the personal model has its own, which stay;
    those of the shared model are averaged. Nodes test the personal model, and report the shared one's metrics as `shared_<metric>`. The
    personal model begins as the first global model that its node gets. Its optimizer is made by `init_optimizer`, too, and begins anew in
    each round.

    Args:
        lambda_: strength of the pull, 0 or more; 0 trains the personal models alone.

    Raises:
        FedbiomedAggregatorError: `lambda_` is not such a number.
    """

    needs_torch_optimizer = True

    def __init__(self, lambda_: float = 1.0) -> None:
        super().__init__()
        self.lambda_ = at_least_zero("Ditto", "lambda_", lambda_)
