"""Coordinate-wise median, Yin et al. 2018 (arXiv:1803.01498), definition 1."""

from collections.abc import Mapping

import numpy as np

from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._stored import StoredUpdates
from fedbiomed.researcher.aggregators._update_files import UpdateFiles


class Median(StoredUpdates):
    """The median of each number over the nodes; of an even number of nodes the mean of the two in the middle (Yin et al. 2018,
    arXiv:1803.01498).

    Holds as long as fewer than half of the nodes send wrong updates. All nodes count alike, whatever their samples.
    Exchanged: parameters. Stays on the nodes: data.
    """

    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """See `StoredUpdates`."""
        return files.by_coordinate(lambda block: np.median(block, axis=0))
