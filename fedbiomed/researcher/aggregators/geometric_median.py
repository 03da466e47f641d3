"""Robust federated aggregation, Pillutla et al. 2019 (arXiv:1912.13445), algorithm 2: smoothed Weiszfeld.

With w_k the update of node k and a_k its share of the samples, v begins at the mean, and

    b_k <- a_k / max(nu, ||v - w_k||)       v <- sum_k b_k w_k / sum_k b_k

until the sum of a_k ||v - w_k|| falls by less than the tolerance, or the iterations are done.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._options import above_zero, at_least_zero, checked_count, checked_flag
from fedbiomed.researcher.aggregators._stored import StoredUpdates
from fedbiomed.researcher.aggregators._update_files import Array, UpdateFiles


class GeometricMedian(StoredUpdates):
    """The point of the smallest summed distance to all updates, RFA (Pillutla et al. 2019, arXiv:1912.13445).

    Holds as long as wrong updates have less than half of the weight. Distances are those of the trained parameters. Exchanged: parameters.
    Stays on the nodes: data.

    Args:
        iterations: at most; the paper finds 3 enough, its code makes 4.
        nu: smoothing, the least distance that counts.
        tolerance: relative; less gain ends it.
        weighted: let nodes count by their samples, as in the paper; a node that lies about its samples then counts for more.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, iterations: int = 4, nu: float = 1e-5, tolerance: float = 1e-6, *, weighted: bool = True) -> None:
        super().__init__()
        self.iterations = checked_count("GeometricMedian", "iterations", iterations, 1)
        self.nu = above_zero("GeometricMedian", "nu", nu)
        self.tolerance = at_least_zero("GeometricMedian", "tolerance", tolerance)
        self.weighted = checked_flag("GeometricMedian", "weighted", weighted)

    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """See `StoredUpdates`."""
        names = self.trained_names(files)
        alpha = np.array([shares[node_id] for node_id in files.nodes]) if self.weighted else np.full(len(shares), 1 / len(shares))
        factors, distances = alpha, _distances(files, names, alpha)
        for _ in range(self.iterations):
            former = float(alpha @ distances)
            factors = alpha / np.maximum(self.nu, distances)
            factors /= factors.sum()
            distances = _distances(files, names, factors)
            if abs(former - float(alpha @ distances)) < self.tolerance * former:
                break
        return files.by_coordinate(lambda block: np.asarray(factors @ block))


def _distances(files: UpdateFiles, names: Sequence[str], factors: Array) -> Array:
    """Of each update to the mean with these factors."""
    squared = np.zeros(len(factors))
    for block in files.blocks(names):
        apart = block - factors @ block
        squared += np.einsum("ij,ij->i", apart, apart)
    return np.sqrt(squared)
