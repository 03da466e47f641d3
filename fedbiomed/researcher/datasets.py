"""`FederatedDataSet`: which dataset of which node takes part in an experiment."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedFederatedDataSetError


class FederatedDataSet:
    """One dataset description per node.

    Args:
        data: `{node_id: description}` or `{node_id: [description]}`; it is copied, never changed. A description is what a search
            gives: name, data_type, tags, description, shape, dataset_id, dtypes, dataset_parameters.

    Raises:
        FedbiomedFederatedDataSetError: not of that form, or a list that does not hold exactly one description.

    Examples:
        >>> data = FederatedDataSet({"node_a": [{"dataset_id": "dataset_1", "shape": [40, 2]}], "node_b": {"shape": [60, 2]}})
        >>> data.node_ids(), data.shapes(), data.sample_sizes()
        (['node_a', 'node_b'], {'node_a': 40, 'node_b': 60}, [40, 60])
        >>> data.data()["node_a"]["dataset_id"]
        'dataset_1'
    """

    def __init__(self, data: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> None:
        if not isinstance(data, Mapping):
            raise _error(f"the data is a dict of one dataset per node, not {type(data).__name__}")
        self._data = {_node_id(node_id): _single(node_id, entry) for node_id, entry in data.items()}

    def data(self) -> dict[str, dict[str, Any]]:
        """`{node_id: description}`, a copy."""
        return copy.deepcopy(self._data)

    def node_ids(self) -> list[str]:
        """Ids of the nodes, in the order in which they were given."""
        return list(self._data)

    def sample_sizes(self) -> list[int]:
        """Number of rows of each node's dataset, in the order of `node_ids`."""
        return list(self.shapes().values())

    def shapes(self) -> dict[str, int]:
        """Number of rows of each node's dataset, by node.

        Raises:
            FedbiomedFederatedDataSetError: a description has no shape that begins with a number of rows.
        """
        return {node_id: _rows(node_id, entry.get("shape")) for node_id, entry in self._data.items()}

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"FederatedDataSet({self._data!r})"


def _error(text: str) -> FedbiomedFederatedDataSetError:
    return FedbiomedFederatedDataSetError(f"{ErrorNumbers.FB416.value}: {text}")


def _node_id(node_id: object) -> str:
    if not isinstance(node_id, str) or not node_id:
        raise _error(f"a node is named by its id, not {node_id!r:.80}")
    return node_id


def _single(node_id: str, entry: object) -> dict[str, Any]:
    if isinstance(entry, list | tuple):
        if len(entry) != 1:
            raise _error(f"{len(entry)} datasets of node {node_id}; choose exactly one per node")
        entry = entry[0]
    if not isinstance(entry, Mapping):
        raise _error(f"the dataset of node {node_id} is described by a dict, not {type(entry).__name__}")
    return copy.deepcopy(dict(entry))


def _rows(node_id: str, shape: object) -> int:
    if isinstance(shape, Mapping):
        shape = next((part for part in shape.values() if isinstance(part, list | tuple)), None)
    if not isinstance(shape, list | tuple) or not shape or type(shape[0]) is not int:
        raise _error(f"the dataset of node {node_id} has no shape that begins with its number of rows: {shape!r:.80}")
    return shape[0]
