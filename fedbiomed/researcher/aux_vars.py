"""Auxiliary variables of the server's optimizer, `{module: {...}}`, sorted by whom they are for."""

from collections.abc import Iterable, Mapping
from typing import Any

AuxVar = dict[str, dict[str, Any]]


def split_by_reader(
    aux_var: Mapping[str, Mapping[str, Any]], nodes: Iterable[str], known: Iterable[str]
) -> tuple[AuxVar, dict[str, AuxVar]]:
    """Split into what all nodes share and what is one node's own.

    Args:
        aux_var: by module; a key that is the id of a known node stands over what is that node's own.
        nodes: whose own variables are wanted.
        known: ids of all nodes there are: what is under one of these is never shared.

    Returns:
        The shared ones, and by node its own; modules and nodes that have nothing are absent.
    """
    wanted = list(nodes)
    private = {*known, *wanted}
    shared = {module: {key: value for key, value in content.items() if key not in private} for module, content in aux_var.items()}
    by_node = {
        node_id: {module: dict(content[node_id]) for module, content in aux_var.items() if content.get(node_id)} for node_id in wanted
    }
    return (
        {module: content for module, content in shared.items() if content},
        {node_id: content for node_id, content in by_node.items() if content},
    )


def collate(replies: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sort what nodes sent by module, then node: `{module: {node_id: {...}}}`; modules and nodes without any are absent."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for reply in replies:
        for module, content in (reply.get("optim_aux_var") or {}).items():
            if content:
                found.setdefault(module, {})[reply["node_id"]] = content
    return found
