"""What nodes say about a training plan, in words."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.messages.approval import PlanStatusReply
from fedbiomed.common.messages.failure import ErrorReply

logger = logging.getLogger(__name__)


def told(replies: Mapping[str, PlanStatusReply | ErrorReply], nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The replies of these nodes as users see them; each verdict, and who did not answer, stands in the log too."""
    for node_id in nodes:
        logger.info("training plan on node %s: %s", node_id, verdict(replies.get(node_id)))
    return [as_dict(replies[node_id]) for node_id in nodes if node_id in replies]


def as_dict(reply: PlanStatusReply | ErrorReply) -> dict[str, Any]:
    """A reply as users see it; an error has the status `Error`."""
    known = {"researcher_id": reply.researcher_id, "node_id": reply.node_id}
    if isinstance(reply, ErrorReply):
        return {**known, "success": False, "approval_obligation": None, "status": "Error", "msg": f"{reply.errnum}: {reply.msg}"}
    return {
        **known,
        "success": reply.success,
        "approval_obligation": reply.approval_obligation,
        "status": reply.status,
        "msg": reply.msg,
    }


def verdict(reply: PlanStatusReply | ErrorReply | None) -> str:
    """One clause for users: what the operator decided, and what to do."""
    if reply is None:
        return "no answer; is the node running?"
    if isinstance(reply, ErrorReply) or not reply.success:
        return f"it could not be looked up: {reply.msg}"
    if not reply.approval_obligation:
        return "this node trains without approval"
    if reply.status == "Approved":
        return "approved"
    return f"approval is needed, and it is {reply.status}: {reply.msg}; ask for it with training_plan_approve(), its operator decides"
