"""Questions as plain dicts, sent now and collected later: the lower level of `Requests`."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from fedbiomed.common.argument_rules import refused
from fedbiomed.common.constants import Phase
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.messages.training import TrainProgress, TrainRequest
from fedbiomed.researcher.question import Question
from fedbiomed.researcher.responses import Responses

logger = logging.getLogger(__name__)
_KEPT = 64  # questions whose answers nobody collected; the oldest is given up for a new one
_ANSWERED_BY = {"ping": "pong", "search": "search", "list": "list"}


class Asker(Protocol):
    """What can ask nodes; see `Requests`."""

    def ask(self, request: Request, nodes: Sequence[str] | None = None, timeout_s: float | None = None) -> Question:
        """Ask several nodes the same."""

    def stamp(self, timeout_s: float | None = None) -> Any:
        """The fields that every request begins with."""


@dataclass(slots=True)
class _Sent:
    command: str
    sequence: int | None
    question: Question
    parts: dict[str, list[DatasetsReply]] = field(default_factory=dict)


class LooseMessages:
    """What was sent and not collected yet.

    Args:
        asker: sends.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._sent: deque[_Sent] = deque()
        self._numbers = count(1)

    def send(self, msg: Mapping[str, Any], client: str | None, *, add_sequence: bool) -> int | None:
        """Send a question to one node or to all; returns its number where one is wanted."""
        request = self._request(msg)
        sequence = next(self._numbers) if add_sequence else None
        if len(self._sent) >= _KEPT:
            self._sent.popleft().question.__exit__(None, None, None)
        question = self._asker.ask(request, None if client is None else [client])
        self._sent.append(_Sent(_ANSWERED_BY[msg["command"]], sequence, question.__enter__()))
        return sequence

    def collect(self, commands: Sequence[str], timeout_s: float, *, only_successful: bool, while_responses: bool) -> Responses:
        """Answers of these kinds, until all known nodes have answered; or none came for `timeout_s`; or, unless
        `while_responses`, `timeout_s` is over."""
        found = Responses()
        deadline = time.monotonic() + timeout_s
        for sent in [sent for sent in self._sent if not commands or sent.command in commands]:
            while (reply := sent.question.take(deadline - time.monotonic())) is not None:
                if while_responses:
                    deadline = time.monotonic() + timeout_s
                for answer in _as_dicts(reply, sent):
                    if _is_wanted(answer, commands, only_successful=only_successful):
                        found.append(answer)
            if not sent.question.is_open:
                sent.question.__exit__(None, None, None)
                self._sent.remove(sent)
        return found

    def _request(self, msg: Mapping[str, Any]) -> Request:
        command = msg.get("command") if isinstance(msg, Mapping) else None
        if command not in _ANSWERED_BY:
            raise refused(
                f"a message is a dict whose command is one of {', '.join(_ANSWERED_BY)}, not {msg!r:.120}; plans and training have methods "
                "of their own: Requests.training_plan_approve, Experiment.check_training_plan_status, Experiment.run"
            )
        known = {"command", "researcher_id", "sequence", "protocol_version"} | ({"tags"} if command == "search" else set())
        if set(msg) - known or (command == "search" and not _are_names(msg.get("tags"))):
            raise refused(f"a {command} message holds {', '.join(sorted(known))} (tags: a list of strings), not {dict(msg)!r:.200}")
        if command == "search":
            return SearchRequest(**self._asker.stamp(), tags=tuple(msg["tags"]))
        return {"ping": PingRequest, "list": ListRequest}[command](**self._asker.stamp())


def scalar_of(order: TrainRequest, progress: TrainProgress) -> dict[str, Any]:
    """What a monitor's callback is told of a node's progress; sample counts, which only the final reply holds, are None."""
    phase = progress.phase
    return {
        "command": "add_scalar",
        "researcher_id": order.researcher_id,
        "node_id": order.node_id,
        "job_id": order.job_id,
        "round": order.round,
        "train": phase == Phase.TRAINING,
        "test": phase != Phase.TRAINING,
        "test_on_local_updates": phase == Phase.TEST_LOCAL,
        "test_on_global_updates": phase == Phase.TEST_GLOBAL,
        "metric": dict(progress.metrics),
        "epoch": progress.epoch,
        "total_samples": None,
        "batch_samples": None,
        "num_batches": progress.num_iterations,
        "num_samples_trained": None,
        "iteration": progress.iteration,
    }


def told_of_progress(
    orders: Sequence[TrainRequest], callback: Callable[[], Callable[[dict[str, Any]], None] | None], hear: Callable[..., None] | None
) -> Callable[[str, TrainProgress | str], None]:
    """A listener to an exchange that tells a monitor's callback, when there is one, and `hear`."""
    by_node = {order.node_id: order for order in orders}

    def told(node_id: str, what: TrainProgress | str) -> None:
        tell = callback()
        if tell is not None and isinstance(what, TrainProgress) and what.metrics:
            tell(scalar_of(by_node[node_id], what))
        if hear is not None:
            hear(node_id, what)

    return told


def _as_dicts(reply: Reply, sent: _Sent) -> Iterator[dict[str, Any]]:
    told: dict[str, Any] = {"command": sent.command, "researcher_id": reply.researcher_id, "node_id": reply.node_id, "success": True}
    if sent.sequence is not None:
        told["sequence"] = sent.sequence
    if isinstance(reply, ErrorReply):
        yield {**told, "command": "error", "success": False, "errnum": reply.errnum, "extra_msg": reply.msg}
    elif isinstance(reply, PingReply):
        yield told
    elif isinstance(reply, DatasetsReply):
        parts = sent.parts.setdefault(reply.node_id, [])
        parts.append(reply)
        if len(parts) == reply.parts:
            parts.sort(key=lambda part: part.part)
            yield {**told, "databases": [dict(d) for part in parts for d in part.databases], "count": reply.count}


def _is_wanted(answer: Mapping[str, Any], commands: Sequence[str], *, only_successful: bool) -> bool:
    if answer["success"]:
        return True
    logger.warning("node %s could not answer: %s: %s", answer["node_id"], answer["errnum"], answer["extra_msg"])
    return not only_successful and (not commands or "error" in commands)


def _are_names(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
