"""What nodes are still to be told of results that arrived: the next order takes it along, or a message of its own soon does."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedbiomed.common.exceptions import FedbiomedMessagingError
from fedbiomed.common.messages.training import OrderGot

logger = logging.getLogger(__name__)

_WAITS_S = 0.25
_MOST_IN_AN_ORDER = 100


@dataclass(frozen=True, slots=True)
class _Waiting:
    receipt: OrderGot
    until: float


class Receipts:
    """Receipts that wait a quarter of a second for the node's next order, which spares half of the messages where rounds are short.

    A receipt that goes twice does no harm; one that is lost leaves the result on the node until the order expires.

    Args:
        tell: sends one receipt.
    """

    def __init__(self, tell: Callable[[OrderGot], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._timer: threading.Timer | None = None

    def add(self, receipt: OrderGot) -> None:
        """Send this with the next order, or by itself."""
        with self._lock:
            self._waiting[receipt.request_id] = _Waiting(receipt, time.monotonic() + _WAITS_S)
            self._wake_in(_WAITS_S)

    def of(self, node_id: str) -> tuple[str, ...]:
        """Ids of the orders whose results this node need not keep any more; to be said to be `sent` when they are."""
        with self._lock:
            found = [name for name, waiting in self._waiting.items() if waiting.receipt.node_id == node_id]
        return tuple(found[:_MOST_IN_AN_ORDER])

    def sent(self, request_ids: tuple[str, ...]) -> None:
        """An order took these along."""
        with self._lock:
            for request_id in request_ids:
                self._waiting.pop(request_id, None)

    def flush(self) -> None:
        """Send all that wait, now."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._send(time.monotonic() + 2 * _WAITS_S)

    def _due(self) -> None:
        with self._lock:
            self._timer = None
        try:
            self._send(time.monotonic())
        except FedbiomedMessagingError as error:
            logger.debug("a receipt was not sent, the node keeps its result until the order expires: %s", error)

    def _send(self, now: float) -> None:
        with self._lock:
            due = [waiting.receipt for waiting in self._waiting.values() if waiting.until <= now]
            for receipt in due:
                del self._waiting[receipt.request_id]
            if self._waiting:
                self._wake_in(min(waiting.until for waiting in self._waiting.values()) - now)
        for receipt in due:
            self._tell(receipt)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(max(0.0, seconds), self._due)
            self._timer.daemon = True
            self._timer.start()
