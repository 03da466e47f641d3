"""Who is there, and with which datasets."""

from dataclasses import dataclass
from typing import Any

from fedbiomed.common.messages.message import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest(Request):
    """Ask whether a node is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReply(Reply):
    """A node is there."""

    node_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest(Request):
    """Ask for all datasets of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest(Request):
    """Ask for the datasets that bear all of these tags; no tag asks for any dataset."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetsReply(Reply):
    """Datasets of a node (none is an answer, too); a long list comes in parts.

    Args:
        databases: one description per dataset, without its path: name, data_type, tags, description, shape, dataset_id, dtypes,
            dataset_parameters, and dlp_id where it has a loading plan.
        count: datasets in all parts together.
        part: number of this part, from 0.
        parts: how many parts there are, at least 1.
    """

    databases: tuple[dict[str, Any], ...]
    count: int
    part: int = 0
    parts: int = 1
