"""The controls of Scaffold in files of a breakpoint."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError
from fedbiomed.common.params import Params
from fedbiomed.common.serializer import Serializer

_GLOBAL, _BY_NODE = "global_state_filename", "aggregator_correction_filename"
_STATE, _DELTA = "node_state", "aggregator_correction"


@dataclass(frozen=True, slots=True)
class Controls:
    """c, and by node c_i and delta_i; a node that left the data set has no delta_i."""

    global_state: Params
    nodes_states: dict[str, Params]
    nodes_deltas: dict[str, Params]


def write(controls: Controls, folder: Path) -> dict[str, Any]:
    """Write the controls into a folder.

    Returns:
        The names of the files, in a form for JSON.

    Raises:
        FedbiomedBreakpointError: a node's id cannot be part of the name of a file.
    """
    strange = [node_id for node_id in controls.nodes_states if not ID_PATTERN.fullmatch(node_id)]
    if strange:
        raise FedbiomedBreakpointError(f"{strange[0]!r:.80} is not the id of a node, no file can be called after it")
    center = folder / f"global_state_{uuid.uuid4()}.mpk"
    Serializer.dump(controls.global_state, center)
    files = {}
    for node_id, state in controls.nodes_states.items():
        path = folder / f"aggregator_correction_{node_id}.mpk"
        Serializer.dump({_DELTA: controls.nodes_deltas.get(node_id), _STATE: state}, path)
        files[node_id] = str(path)
    return {_GLOBAL: str(center), _BY_NODE: files}


def read(parameters: Mapping[str, Any]) -> Controls:
    """Read what `write` wrote.

    Raises:
        FedbiomedBreakpointError: a file is not named, missing, or not what it should be.
    """
    files = parameters.get(_BY_NODE)
    if not isinstance(files, Mapping):
        raise FedbiomedBreakpointError(f"the state of Scaffold has no {_BY_NODE!r}")
    by_node = {str(node_id): _loaded(path) for node_id, path in files.items()}
    if any(_STATE not in content or _DELTA not in content for content in by_node.values()):
        raise FedbiomedBreakpointError(f"a file of the controls of Scaffold lacks {_STATE!r} or {_DELTA!r}")
    return Controls(
        global_state=_loaded(parameters.get(_GLOBAL)),
        nodes_states={node_id: content[_STATE] for node_id, content in by_node.items()},
        nodes_deltas={node_id: content[_DELTA] for node_id, content in by_node.items() if content[_DELTA] is not None},
    )


def _loaded(path: Any) -> dict[str, Any]:
    try:
        content = Serializer.load(path)
    except (OSError, TypeError, FedbiomedError) as error:
        raise FedbiomedBreakpointError(f"the controls of Scaffold cannot be read from {path}: {error}") from error
    if not isinstance(content, dict):
        raise FedbiomedBreakpointError(f"{path} does not hold controls of Scaffold")
    return content
