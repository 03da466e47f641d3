"""APFL, Deng et al. 2020 (arXiv:2003.13461). The nodes' half is `common/training_plans/corrections/apfl.py`.

The global model w is that of `FedAverage`, to the bit. Each node trains a local model v by the loss of the personal one, a v + (1 - a) w.
"""

from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import at_least_zero, checked_flag, checked_number


class APFL(MeanWithNodeHalf):
    """The mean of the nodes' parameters, and on each node a personal model that mixes it with a local one, by a share that is learned
    (Deng et al. 2020, arXiv:2003.13461).

    Exchanged: parameters of the shared model. Stays on the nodes: data, the local model, its share.

    For torch plans with optimizers of torch; a step takes twice the time. The share makes one step in each round. Persistent buffers: the
    personal model has its own, which stay; those of the shared model are averaged. Nodes test the personal model, and report the shared
    one's metrics as `shared_<metric>`. The local model begins as the first global model that its node gets.

    Args:
        alpha: share of the local model in a node's first round, from 0 to 1.
        alpha_lr: length of the share's step, 0 or more.
        adaptive: whether it makes steps.

    Raises:
        FedbiomedAggregatorError: an option is not such a number.
    """

    needs_torch_optimizer = True

    def __init__(self, alpha: float = 0.5, alpha_lr: float = 0.01, *, adaptive: bool = True) -> None:
        super().__init__()
        self.alpha = checked_number("APFL", "alpha", alpha, "a number from 0 to 1", within=(0.0, 1.0))
        self.alpha_lr = at_least_zero("APFL", "alpha_lr", alpha_lr)
        self.adaptive = checked_flag("APFL", "adaptive", adaptive)
