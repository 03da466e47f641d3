"""Records of the node's log, sent on to the researchers who have orders open here.

Who logs only puts a record into a bounded queue; a thread of its own filters, looks up whom it concerns and sends, several in one message
and a few records a second: a message of its own for every record would be half of the messages of a quick round. What is too much is
dropped and counted: a log line is never worth a training.

A record leaves the node as its template with harmless arguments: numbers, and words of letters, digits, `_` and `-` (ids, names of
classes, states). Any other text (a path, what a plan raised, the message of a library) could hold data and is left out, but for the code
of one of our own errors; traces never travel. What the training process writes goes to the operator's files and does not come by here.
"""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.messages.message import Message
from fedbiomed.common.messages.monitoring import MAX_LOG_TEXT, MAX_LOG_TEXTS, LogLine, NodeLog
from fedbiomed.node.orders import OrderBook

logger = logging.getLogger(__name__)

RECORDS_PER_S = 20
_BURST = 100
_QUEUED = 200
_GATHER_S = 0.25
_JOIN_S = 5.0
_ROOT = "fedbiomed"
# The other side, where both run in one process; the bus, whose records would follow from sending; what plans do.
_NOT_FROM = tuple(
    f"{_ROOT}.{name}"
    for name in ("researcher", "network", "demo", "cli", "common.transport", "common.training_plans", "node.worker_child", "node.round")
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_CODE = re.compile(r"FB\d{3}\b")
_PATH = re.compile(r"(?<![\w/])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'\",;:)]+")
_LEFT_OUT = "(…)"


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whose work the present thread does: of which forwarder's node, for which researcher (None: for nobody in particular)."""

    owner: object
    researcher_id: str | None = None
    is_order: bool = False


@dataclass(frozen=True, slots=True)
class _Noted:
    record: logging.LogRecord
    scope: _Scope


# Per thread; tells the records of several nodes in one process apart.
_SCOPE: ContextVar[_Scope | None] = ContextVar("fedbiomed_log_scope", default=None)


class LogForwarder(logging.Handler):
    """Sends records of INFO and above of the loggers below `fedbiomed` to researchers.

    Args:
        book: tells who has open orders.
        node_id: whose log.
        publish: sends a message to a researcher.
        is_connected: whether it can be sent now; what cannot is dropped.
        clock: seconds, for the limit.
        gather_s: for how long records are gathered before they are sent.
    """

    def __init__(
        self,
        book: OrderBook,
        node_id: str,
        publish: Callable[[str, Message], None],
        *,
        is_connected: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        gather_s: float = _GATHER_S,
    ) -> None:
        super().__init__(logging.INFO)
        self._book, self._node_id, self._publish, self._is_connected = book, node_id, publish, is_connected
        self._queue: Queue[_Noted | None] = Queue(_QUEUED)
        self._limit = _Limit(clock)
        self._gather_s, self._closing = gather_s, threading.Event()
        self._dropped = 0
        self._thread = threading.Thread(target=self._forward, name=f"logs-{node_id}", daemon=True)

    def start(self) -> None:
        """Hear the loggers from now on."""
        self._thread.start()
        logging.getLogger(_ROOT).addHandler(self)

    def close(self) -> None:
        """Hear nothing more and end the thread; a second call does nothing."""
        logging.getLogger(_ROOT).removeHandler(self)
        self._closing.set()
        if self._thread.is_alive():
            with contextlib.suppress(Full):
                self._queue.put(None, timeout=_JOIN_S)
            self._thread.join(_JOIN_S)
        super().close()

    @contextlib.contextmanager
    def working_for(self, researcher_id: str | None, *, is_order: bool = False) -> Iterator[None]:
        """What this thread logs within the block is this node's, and concerns this researcher only (None: whoever has open orders).

        Args:
            researcher_id: who gave the work.
            is_order: the work is an order, so the researcher has an open one.
        """
        token = _SCOPE.set(_Scope(self, researcher_id, is_order))
        try:
            yield
        finally:
            _SCOPE.reset(token)

    def emit(self, record: logging.LogRecord) -> None:
        """On any thread: note a record down, or drop it; never waits, never raises."""
        scope = _SCOPE.get()
        is_ours = scope.owner is self if scope is not None else record.name == _ROOT or record.name.startswith(f"{_ROOT}.node")
        if not is_ours or record.name.startswith(_NOT_FROM) or threading.current_thread() is self._thread:
            return
        try:
            self._queue.put_nowait(_Noted(record, scope or _Scope(self)))
        except Full:
            self._dropped += 1

    def _forward(self) -> None:
        while (noted := self._queue.get()) is not None:
            self._closing.wait(self._gather_s)
            gathered = [noted, *self._waiting()]
            try:
                self._send([one for one in gathered if one is not None])
            except FedbiomedError as error:
                self._dropped += len(gathered)
                logger.debug("records were not sent on: %s", error)
            if gathered[-1] is None:
                return

    def _waiting(self) -> Iterator[_Noted | None]:
        """What is in the queue, up to the word that nothing more will come."""
        with contextlib.suppress(Empty):
            while True:
                noted = self._queue.get_nowait()
                yield noted
                if noted is None:
                    return

    def _send(self, gathered: Sequence[_Noted]) -> None:
        dropped, self._dropped = self._dropped, 0
        if not self._is_connected():
            self._dropped += dropped + len(gathered)
            return
        for researcher_id, lines in self._by_researcher(gathered).items():
            for few in _in_messages(lines):
                self._publish(researcher_id, NodeLog(researcher_id=researcher_id, node_id=self._node_id, lines=tuple(few), dropped=dropped))
                dropped = 0
        self._dropped += dropped

    def _by_researcher(self, gathered: Sequence[_Noted]) -> dict[str, list[LogLine]]:
        """The records that may go, by whom they concern; the others are counted."""
        lines: dict[str, list[LogLine]] = {}
        for noted in gathered:
            readers = self._readers(noted.scope)
            if readers and not self._limit.allows():
                self._dropped += 1
                continue
            for researcher_id in readers:
                lines.setdefault(researcher_id, []).append(_line(noted.record))
        return lines

    def _readers(self, scope: _Scope) -> list[str]:
        if scope.is_order and scope.researcher_id is not None:
            return [scope.researcher_id]
        waiting = self._book.wanted_by_researcher()
        return [researcher_id for researcher_id in sorted(waiting) if scope.researcher_id in (None, researcher_id)]


def _line(record: logging.LogRecord) -> LogLine:
    return LogLine(at=record.created, logger=record.name, level=record.levelname, msg=harmless_text(record))


def _in_messages(lines: Iterable[LogLine]) -> Iterator[list[LogLine]]:
    """As many in each message as fit."""
    few: list[LogLine] = []
    for line in lines:
        if sum(len(one.msg) for one in [*few, line]) > MAX_LOG_TEXTS:
            yield few
            few = []
        few.append(line)
    if few:
        yield few


class _Limit:
    """So many at once, then so many a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left, self._at = float(_BURST), clock()

    def allows(self) -> bool:
        now = self._clock()
        self._left, self._at = min(_BURST, self._left + (now - self._at) * RECORDS_PER_S), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def harmless_text(record: logging.LogRecord) -> str:
    """A record's text without paths, and without arguments that could hold data; see the head of this module."""
    args: Any = record.args
    try:
        if isinstance(args, tuple):
            text = str(record.msg) % tuple(_harmless(arg) for arg in args) if args else str(record.msg)
        else:
            text = str(record.msg) % {key: _harmless(arg) for key, arg in (args or {}).items()}
    except (TypeError, ValueError):
        text = str(record.msg)  # a wrong template: as it stands, without its arguments
    return _PATH.sub(_LEFT_OUT, "".join(c if c.isprintable() else " " for c in text))[:MAX_LOG_TEXT]


def _harmless(arg: object) -> object:
    if arg is None or isinstance(arg, bool | int | float):
        return arg
    text = str(arg) if isinstance(arg, str | FedbiomedError) else type(arg).__name__
    if _WORD.fullmatch(text):
        return str(text)
    code = _CODE.match(text)
    return f"{code[0]} {_LEFT_OUT}" if code else _LEFT_OUT
