"""What nodes log, in the researcher's own log: one block per record, with node and level."""

import logging
from datetime import UTC, datetime

from fedbiomed.common.messages.monitoring import NodeLog

logger = logging.getLogger(__name__)


def show(record: NodeLog) -> None:
    """Log a node's record; always at INFO: a warning there is no warning here."""
    logger.info("%s", block(record))


def block(record: NodeLog) -> str:
    """The record as a few lines; what could steer a terminal is spelled out."""
    lines = [
        "log of a node",
        f"  node:    {record.node_id}",
        f"  level:   {_plain(record.level)}",
        f"  time:    {_time(record.at)}",
        f"  logger:  {_plain(record.logger)}",
        f"  message: {_plain(record.msg)}",
    ]
    if record.dropped > 0:
        lines.append(f"  ({record.dropped} records before it were not sent)")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return repr(at)
