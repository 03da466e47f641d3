"""Krum and Multi-Krum, Blanchard et al. 2017 ("Machine Learning with Adversaries", arXiv:1703.02757), section 4.

With n nodes of which f may send anything, the score of node i is the sum of the squared distances between its update and the n - f - 2
nearest ones. Krum takes the update of the lowest score, Multi-Krum the plain mean of the m lowest. Needs n >= 2 f + 3.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._options import checked_count
from fedbiomed.researcher.aggregators._stored import StoredUpdates
from fedbiomed.researcher.aggregators._update_files import Array, UpdateFiles


class MultiKrum(StoredUpdates):
    """The plain mean of those updates that lie nearest to the others (Blanchard et al. 2017, arXiv:1703.02757).

    Distances are those of the trained parameters. All nodes count alike, whatever their samples; of equal scores the node whose id comes
    first goes first. Exchanged: parameters. Stays on the nodes: data.

    Args:
        byzantine: f, how many nodes may send anything; a round needs 2 f + 3 nodes.
        keep: m, how many updates are averaged, at most n - f; None: n - f.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(self, byzantine: int = 1, keep: int | None = None) -> None:
        super().__init__()
        self.byzantine = checked_count(type(self).__name__, "byzantine", byzantine, 0)
        self.keep = None if keep is None else checked_count(type(self).__name__, "keep", keep, 1)

    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """See `StoredUpdates`.

        Raises:
            AggregationError: too few nodes.
        """
        nodes, who = files.nodes, type(self).__name__
        count, least = len(nodes), 2 * self.byzantine + 3
        if count < least:
            raise AggregationError(
                f"{who} with {self.byzantine} wrong nodes needs {least} updates or more, {count} came: {', '.join(nodes)}; "
                "wait for more nodes, or ask for less"
            )
        keep = count - self.byzantine if self.keep is None else self.keep
        if keep > count - self.byzantine:
            raise AggregationError(f"{who} is to keep {keep} updates of {count}, of which {self.byzantine} may be wrong: keep fewer")
        scores = krum_scores(squared_distances(files, self.trained_names(files)), self.byzantine)
        chosen = sorted(range(count), key=lambda index: (scores[index], nodes[index]))[:keep]
        return files.by_coordinate(lambda block: np.asarray(block[chosen].mean(axis=0)))


class Krum(MultiKrum):
    """The one update that lies nearest to the others (Blanchard et al. 2017, arXiv:1703.02757).

    Distances are those of the trained parameters. All nodes count alike, whatever their samples; of equal scores the node whose id comes
    first is taken. Exchanged: parameters. Stays on the nodes: data.

    Args:
        byzantine: f, how many nodes may send anything; a round needs 2 f + 3 nodes.

    Raises:
        FedbiomedAggregatorError: `byzantine` is not an integer of 0 or more.
    """

    def __init__(self, byzantine: int = 1) -> None:
        super().__init__(byzantine, keep=1)


def squared_distances(files: UpdateFiles, names: Sequence[str]) -> Array:
    """Between each two nodes, over these parameters."""
    count = len(files.nodes)
    distances = np.zeros((count, count))
    for block in files.blocks(names):
        for index in range(count - 1):
            apart = block[index + 1 :] - block[index]
            distances[index, index + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return np.asarray(distances + distances.T)


def krum_scores(distances: Array, byzantine: int) -> Array:
    """Of each node, the sum of the squared distances to its n - f - 2 nearest ones."""
    count = len(distances)
    others = np.sort(distances[~np.eye(count, dtype=bool)].reshape(count, count - 1), axis=1)
    return np.asarray(others[:, : count - byzantine - 2].sum(axis=1))
