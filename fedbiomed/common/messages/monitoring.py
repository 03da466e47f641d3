"""What a node tells of itself without being asked."""

from dataclasses import dataclass

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.messages.message import Message

MAX_LOG_TEXT = 2000
MAX_LOG_TEXTS = 8000  # however JSON spells them, a message of so many characters is not too large


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A record of a log.

    Args:
        at: seconds since 1970 by the node's clock.
        logger: name of the logger.
        level: as `logging` spells it, `INFO` for instance.
        msg: at most 2000 characters, without data, paths or traces.

    Raises:
        FedbiomedMessageError: a field has another type, or `msg` is too long.
    """

    at: float
    logger: str
    level: str
    msg: str

    def __post_init__(self) -> None:
        if type(self.at) not in (int, float) or not all(isinstance(text, str) for text in (self.logger, self.level, self.msg)):
            raise FedbiomedMessageError(f"a LogLine holds a number and three texts, not {self!r:.120}")
        if len(self.msg) > MAX_LOG_TEXT:
            raise FedbiomedMessageError(f"LogLine.msg has {len(self.msg)} characters, at most {MAX_LOG_TEXT} may travel")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLog(Message):
    """Records of a node's log, the oldest first.

    Args:
        researcher_id, node_id: to whom, and from where.
        lines: the records, their texts having at most 8000 characters together.
        dropped: records that were held back since the last one that was sent to anyone.

    Raises:
        FedbiomedMessageError: the texts are too long.
    """

    researcher_id: str
    node_id: str
    lines: tuple[LogLine, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        Message.__post_init__(self)
        size = sum(len(line.msg) for line in self.lines)
        if size > MAX_LOG_TEXTS:
            raise FedbiomedMessageError(f"NodeLog.lines have {size} characters, at most {MAX_LOG_TEXTS} may travel")
