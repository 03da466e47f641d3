"""May this training plan run on a node?"""

from dataclasses import dataclass

from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.message import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStatusRequest(Request):
    """Ask what a node's operator decided about a plan."""

    job_id: str
    plan: FileRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStatusReply(Reply):
    """What the operator decided.

    Args:
        success: whether the node could look it up.
        approval_obligation: whether the node runs approved plans only.
        status: `Approved`, `Rejected`, `Pending`, `Not Registered` or `Error`.
        msg: the same as a sentence, with what to do.
    """

    job_id: str
    success: bool
    approval_obligation: bool
    status: str
    msg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanApproveRequest(Request):
    """Ask a node's operator to look at a plan and decide."""

    description: str
    plan: FileRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanApproveReply(Reply):
    """The plan lies before the operator (which does not mean that it is approved)."""

    success: bool
    status: str
    msg: str
