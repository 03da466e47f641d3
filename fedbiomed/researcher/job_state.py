"""A job's replies and files in a breakpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.files import link_or_copy
from fedbiomed.researcher.responses import FILE_KEYS, Responses, TrainingReply

KEYS = ("researcher_id", "job_id", "model_params_path", "training_replies", "node_state")


def link(source: str, folder: Path, name: str = "") -> str:
    """Give a file a second name in a folder, unless it has that one already; returns its path there."""
    target = folder / (name or Path(source).name)
    if not target.exists():
        link_or_copy(Path(source).resolve(), target)
    return str(target)


def linked(paths: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Give the files of nodes second names in a folder."""
    return {node_id: link(path, folder) for node_id, path in paths.items()}


def saved_replies(replies: Mapping[int, Responses], folder: Path) -> list[list[dict[str, Any]]]:
    """Replies by round, without what lies in their files, which get links in the folder; a round without any is an empty list."""
    return [[_saved(reply, folder) for reply in replies.get(round_, ())] for round_ in range(max(replies, default=-1) + 1)]


def loaded_replies(saved: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, Responses]:
    """The replies that `saved_replies` gave; their parameters are read from the files when somebody looks at them."""
    return {round_: Responses([TrainingReply(reply) for reply in replies]) for round_, replies in enumerate(saved) if replies}


def put_back(by_round: dict[int, Any], round_: int, value: Any) -> None:
    """Let a round have a former value again; None for no value."""
    if value is None:
        by_round.pop(round_, None)
    else:
        by_round[round_] = value


def _saved(reply: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kept = {key: reply[key] for key in reply if key not in FILE_KEYS}
    if kept.get("params_path"):
        kept["params_path"] = link(kept["params_path"], folder)
    return kept
