"""Coordinate-wise trimmed mean, Yin et al. 2018 (arXiv:1803.01498), definition 2."""

import math
from collections.abc import Mapping

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._options import checked_number
from fedbiomed.researcher.aggregators._stored import StoredUpdates
from fedbiomed.researcher.aggregators._update_files import Array, UpdateFiles


class TrimmedMean(StoredUpdates):
    """The mean of each number over the nodes, without the largest and the smallest ones (Yin et al. 2018, arXiv:1803.01498).

    Of n nodes floor(beta n) are left out at either end. All nodes count alike, whatever their samples.
    Exchanged: parameters. Stays on the nodes: data.

    Args:
        beta: share of the nodes that is left out at either end, from 0 to below 0.5; as many may send wrong updates.

    Raises:
        FedbiomedAggregatorError: `beta` is out of its range.
    """

    def __init__(self, beta: float = 0.2) -> None:
        super().__init__()
        self.beta = checked_number("TrimmedMean", "beta", beta, "a number from 0 to below 0.5", within=(0.0, 0.5), ends="[)")

    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """See `StoredUpdates`.

        Raises:
            AggregationError: so few nodes that nothing would be left out, where something is to be.
        """
        count = len(shares)
        cut = math.floor(self.beta * count + 1e-9)  # 0.29 * 100 is 28.999...
        if self.beta and not cut:
            least = math.ceil(1 / self.beta - 1e-9)
            raise AggregationError(
                f"TrimmedMean(beta={self.beta}) leaves out no node of {count} ({', '.join(shares)}): it needs {least} or more, "
                "or a larger beta"
            )

        def mean(block: Array) -> Array:
            block.sort(axis=0)
            return np.asarray(block[cut : count - cut].mean(axis=0))

        return files.by_coordinate(mean)
