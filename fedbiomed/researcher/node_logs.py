"""What nodes log, in the researcher's own log: one block per record, with node and level."""

import logging
from datetime import UTC, datetime

from fedbiomed.common.messages.monitoring import LogLine, NodeLog

logger = logging.getLogger(__name__)


def show(told: NodeLog) -> None:
    """Log a node's records; always at INFO: a warning there is no warning here."""
    for text in blocks(told):
        logger.info("%s", text)


def blocks(told: NodeLog) -> list[str]:
    """Each record as a few lines; what could steer a terminal is spelled out."""
    texts = [_block(told.node_id, line) for line in told.lines]
    if told.dropped > 0 and texts:
        texts[0] += f"\n  ({told.dropped} records before it were not sent)"
    return texts


def _block(node_id: str, line: LogLine) -> str:
    return "\n".join(
        (
            "log of a node",
            f"  node:    {node_id}",
            f"  level:   {_plain(line.level)}",
            f"  time:    {_time(line.at)}",
            f"  logger:  {_plain(line.logger)}",
            f"  message: {_plain(line.msg)}",
        )
    )


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return repr(at)
