"""Aggregators that need all updates of a round together: they keep them as memory-mapped files."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregators._options import OfPlan
from fedbiomed.researcher.aggregators._update_files import UpdateFiles


class StoredUpdates(OfPlan):
    """Writes each update to a file and works on all of them at the end, block by block. Integers and booleans are worked on like floats.

    A node that counts by 0 does not take part.
    """

    def __init__(self) -> None:
        super().__init__()
        self._added: dict[str, float] = {}
        self._files: UpdateFiles | None = None

    def begin(self, round: int) -> None:
        """Forget the updates of an earlier round, finished or not."""
        super().begin(round)
        self._added, self._files = {}, None

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Keep one node's update; one that is refused leaves everything as it was.

        Raises:
            AggregationError: this node was added before, its weight is not a number of 0 or more, its names or shapes differ from the
                first node's, a value is not finite.
        """
        if node_id in self._added:
            raise AggregationError(f"the update of {node_id} came twice in one round")
        if not (math.isfinite(weight) and weight >= 0):
            raise AggregationError(f"the weight of {node_id} must be a number of 0 or more, not {weight!r}")
        if weight > 0:
            files = self._files or UpdateFiles()
            files.put(node_id, params)
            self._files = files
        self._added = {**self._added, node_id: weight}

    def finish(self) -> Params:
        """The next parameters from what was added since `begin`.

        Raises:
            AggregationError: nothing was added, all weights are 0, or there are too few nodes.
        """
        files, total = self._files, math.fsum(self._added.values())
        if files is None or not total > 0:
            raise AggregationError(f"cannot aggregate the updates of {sorted(self._added) or 'no node'}, whose weights sum to {total}")
        params = self.combined(files, {node_id: self._added[node_id] / total for node_id in files.nodes})
        self.begin(0)
        return params

    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """The next parameters from all updates at once.

        Args:
            model_params: parameters by node.
            weights: by node.
            *args, **kwargs: not needed here.

        Raises:
            AggregationError: the nodes differ, the updates do not fit together, or there are too few nodes.
        """
        if model_params.keys() != weights.keys():
            raise AggregationError(f"updates of {sorted(model_params)}, but weights of {sorted(weights)}")
        self.begin(0)
        for node_id, params in model_params.items():
            self.add(node_id, params, weights[node_id])
        return self.finish()

    @abstractmethod
    def combined(self, files: UpdateFiles, shares: Mapping[str, float]) -> Params:
        """The next parameters.

        Args:
            files: the updates of all nodes that count.
            shares: by which they count, in the same order; they sum to 1.
        """

    def trained_names(self, files: UpdateFiles) -> list[str]:
        """The parameters between which distances are measured.

        Raises:
            AggregationError: there are none.
        """
        arrays = files.arrays(files.nodes[0])
        names = [name for name, array in arrays.items() if self.is_trained(name, array)]
        if not names:
            raise AggregationError(f"{type(self).__name__} finds no trained parameter among {sorted(arrays)[:5]}")
        return names
