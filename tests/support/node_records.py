"""What nodes logged, as a researcher's log shows it."""

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator


class _Kept(logging.Handler):
    def __init__(self, blocks: "queue.Queue[str]") -> None:
        super().__init__()
        self._blocks = blocks

    def emit(self, record: logging.LogRecord) -> None:
        self._blocks.put(f"{record.levelname} {record.getMessage()}")


class NodeRecords:
    """Blocks that came in, in order."""

    def __init__(self, blocks: "queue.Queue[str]") -> None:
        self._blocks = blocks
        self.seen: list[str] = []

    def wait(self, is_wanted: Callable[[str], bool], timeout_s: float = 20.0) -> str:
        """The next block of that kind; all that come by are `seen`."""
        deadline = time.monotonic() + timeout_s
        while True:
            block = self._blocks.get(timeout=max(0.01, deadline - time.monotonic()))
            self.seen.append(block)
            if is_wanted(block):
                return block

    def with_words(self, *words: str) -> str:
        """The next block that holds all of these."""
        return self.wait(lambda block: all(word in block for word in words))


@contextlib.contextmanager
def node_records() -> Iterator[NodeRecords]:
    """Keep the blocks for the length of the block; records of INFO are made."""
    blocks: queue.Queue[str] = queue.Queue()
    handler, ours, shown = _Kept(blocks), logging.getLogger("fedbiomed"), logging.getLogger("fedbiomed.researcher.node_logs")
    level = ours.level
    shown.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield NodeRecords(blocks)
    finally:
        ours.setLevel(level)
        shown.removeHandler(handler)
