"""A job's replies and files in a breakpoint."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedJobError
from fedbiomed.common.files import link_or_copy
from fedbiomed.common.messages.message import is_json
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.common.secagg.wire import SecaggOrder
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher import breakpoints, prepared_plan
from fedbiomed.researcher.responses import FILE_KEYS, Responses, TrainingReply, read_result

_SECAGG = ("secagg_servkey_id", "secagg_biprime_id", "secagg_random")  # keys never travel in an order
KEYS = ("researcher_id", "job_id", "model_params_path", "training_replies", "node_state")


def link(source: str, folder: Path, name: str = "") -> str:
    """Give a file a second name in a folder, unless it has that one already; returns its path there.

    Args:
        source: the file.
        folder: where its second name stands.
        name: that one, with a suffix where another file has it; none: the name that it has, which no other file ever has.
    """
    file = Path(source).resolve()
    target = folder / (name or Path(source).name)
    if name and target.exists() and not target.samefile(file):
        return breakpoints.linked(file, folder, name)
    if not target.exists():
        link_or_copy(file, target)
    return str(target)


def linked(paths: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Give the files of nodes second names in a folder."""
    return {node_id: link(path, folder) for node_id, path in paths.items()}


def saved_replies(replies: Mapping[int, Responses], folder: Path) -> list[list[dict[str, Any]]]:
    """Replies by round, without what lies in their files, which get links in the folder; a round without any is an empty list.

    Of a reply whose file was removed, `optimizer_args` are kept.
    """
    return [[_saved(reply, folder) for reply in replies.get(round_, ())] for round_ in range(max(replies, default=-1) + 1)]


def loaded_replies(saved: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, Responses]:
    """The replies that `saved_replies` gave; their parameters are read from the files when somebody looks at them."""
    return {round_: Responses([TrainingReply(reply) for reply in replies]) for round_, replies in enumerate(saved) if replies}


def saved_staying(plan: BaseTrainingPlan, staying: Collection[str], folder: Path) -> str | None:
    """Write parameters of the plan's model here that do not travel into a folder, so that a resumed job has the same.

    Args:
        plan: of this side.
        staying: names of those.
        folder: gets a new file.

    Returns:
        Its path, None where there are none.
    """
    kept = prepared_plan.some_params(plan, staying)
    if not kept:
        return None
    path = folder / f"staying_params_{uuid.uuid4()}.mpk"
    Serializer.dump({"model_weights": kept}, path)
    return str(path)


def loaded_staying(saved_state: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `saved_staying` wrote; nothing where it wrote nothing.

    Raises:
        FedbiomedResponsesError: the file is missing or is not what it should be.
    """
    path = saved_state.get("staying")
    weights: Mapping[str, Any] = {} if path is None else read_result(Path(path))["model_weights"]
    return weights


def require_fields(obj: Mapping[str, Any], fields: Iterable[str]) -> None:
    """See `Job.validate_minimal_arguments`."""
    for field in fields:
        if field not in obj:
            raise FedbiomedJobError(f"{ErrorNumbers.FB410.value}: {field} is missing among {', '.join(obj) or 'no fields at all'}")
        if "url" in field and not _is_url(obj[field]):
            raise FedbiomedJobError(f"{ErrorNumbers.FB410.value}: {field} must be a URL like http://host/path, not {obj[field]!r:.120}")


def _is_url(value: object) -> bool:
    parts = urlsplit(value) if isinstance(value, str) else None
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


def require_data(round_: int, nodes: Sequence[str], datasets: Mapping[str, Any]) -> None:
    """Check that there are nodes to ask, and that a job has a dataset of each.

    Raises:
        FedbiomedJobError: there is none, or it has not.
    """
    if not nodes or not set(nodes) <= datasets.keys():
        raise FedbiomedJobError(
            f"{ErrorNumbers.FB411.value}: round {round_} asks {', '.join(nodes) or 'no node'}, the data of the job is on "
            f"{', '.join(datasets) or 'no node at all'}; search with tags that nodes have, and set_job() for what was found"
        )


def told_order(order: TrainRequest, params_url: str, training_plan_url: str, aux_var_urls: Sequence[str]) -> dict[str, Any]:
    """The fields of an order, and those of the public names that are called otherwise in it."""
    return {
        "command": "train",
        **asdict(order),
        "training_plan_url": training_plan_url,
        "training_plan_class": order.plan_class,
        "params_url": params_url,
        "aux_var_urls": list(aux_var_urls) or None,
        **dict.fromkeys(_SECAGG),
        "secagg_clipping_range": None if order.secagg is None else SecaggOrder.of(order.secagg).clip,
    }


def put_back(by_round: dict[int, Any], round_: int, value: Any) -> None:
    """Let a round have a former value again; None for no value."""
    if value is None:
        by_round.pop(round_, None)
    else:
        by_round[round_] = value


def _saved(reply: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kept = {key: reply[key] for key in reply if key not in FILE_KEYS}
    if kept.get("params_path"):
        return {**kept, "params_path": link(kept["params_path"], folder)}
    small = reply.get("optimizer_args")  # there is no file any more from which it could be read
    return {**kept, "optimizer_args": small} if is_json(small) else kept
