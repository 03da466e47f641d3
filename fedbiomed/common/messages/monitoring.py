"""What a node tells of itself without being asked."""

from dataclasses import dataclass

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.messages.message import Message

MAX_LOG_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLog(Message):
    """A record of a node's log.

    Args:
        researcher_id, node_id: to whom, and from where.
        at: seconds since 1970 by the node's clock.
        logger: name of the logger.
        level: as `logging` spells it, `INFO` for instance.
        msg: at most 2000 characters, without data, paths or traces.
        dropped: records that were held back since the last one that was sent to anyone.

    Raises:
        FedbiomedMessageError: `msg` is too long.
    """

    researcher_id: str
    node_id: str
    at: float
    logger: str
    level: str
    msg: str
    dropped: int = 0

    def __post_init__(self) -> None:
        Message.__post_init__(self)
        if len(self.msg) > MAX_LOG_TEXT:
            raise FedbiomedMessageError(f"NodeLog.msg has {len(self.msg)} characters, at most {MAX_LOG_TEXT} may travel")
