"""MR-MTL, Liu et al. 2022 (NeurIPS, arXiv:2206.07902). The nodes' half is `common/training_plans/corrections/mrmtl.py`.

Each node follows the gradient of f(v) + lambda/2 |v - m|^2, v being its own model, which it keeps, and m the mean of all nodes' models.
"""

from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import at_least_zero


class MRMTL(MeanWithNodeHalf):
    """The mean of the nodes' own models, which they are pulled towards but never replaced by: mean-regularised multi-task learning, MR-MTL
    (Liu et al. 2022, NeurIPS, arXiv:2206.07902).

    Exchanged: parameters. Stays on the nodes: data, and from round to round each node's own model, of which a copy is sent.

    For torch plans, with any optimizer. All nodes begin with the same parameters; one that joins later begins with the mean. Persistent
    buffers: each node keeps its own; their mean is taken and used by nobody but the researcher. Nodes test their own model.

    Args:
        lambda_: strength of the pull, 0 or more; 0 lets each node train alone.

    Raises:
        FedbiomedAggregatorError: `lambda_` is not such a number.
    """

    def __init__(self, lambda_: float = 1.0) -> None:
        super().__init__()
        self.lambda_ = at_least_zero("MRMTL", "lambda_", lambda_)
