"""The researcher's half of tabular alignment: one schema of what the nodes told of their tables."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fedbiomed.common.data.tabular_alignment import TabularSchema
from fedbiomed.common.exceptions import FedbiomedDatasetError
from fedbiomed.common.params import as_array

_NAME = "description"


def tabular_schema(replies: Iterable[Mapping[str, Any]], node_id: str | None = None) -> TabularSchema:
    """The schema of all nodes, or that of one node, whose columns, ranges and categories then count for all.

    Args:
        replies: of a round with a `TableStatisticsPlan`: `exp.training_replies()[0]`.
        node_id: whose schema it shall be; None: the union of all.

    Raises:
        FedbiomedDatasetError: that node is not among them, a reply tells of no table, or what was told does not fit together.
    """
    told = {str(reply["node_id"]): _told(reply) for reply in replies}
    if node_id is not None and node_id not in told:
        raise FedbiomedDatasetError(f"{node_id} told of no table; those who did are {', '.join(sorted(told)) or 'none'}")
    return TabularSchema.union(told.values() if node_id is None else [told[node_id]])


def _told(reply: Mapping[str, Any]) -> dict[str, Any]:
    who, params = reply["node_id"], reply["params"]
    if _NAME not in params:
        raise FedbiomedDatasetError(f"the reply of {who} tells of no table: was its plan a TableStatisticsPlan?")
    try:
        found = json.loads(as_array(params[_NAME], _NAME, str(who)).tobytes().rstrip(b"\0"))
    except ValueError as error:
        raise FedbiomedDatasetError(f"what {who} told of its table cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
        raise FedbiomedDatasetError(f"what {who} told of its table is not a description of columns")
    return found
