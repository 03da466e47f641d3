"""A request that could not be answered."""

from dataclasses import dataclass

from fedbiomed.common.messages.message import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply(Reply):
    """What went wrong; `request_id` is that of the request.

    Args:
        errnum: a code of `ErrorNumbers`, `FB300` for instance.
        msg: one sentence for users, without data, paths or traces.
    """

    errnum: str
    msg: str
