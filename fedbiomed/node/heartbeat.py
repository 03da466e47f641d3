"""What a researcher hears of an open order before its reply: that it was accepted, then progress, at most once a second and at least
every 30 seconds.

An order that is answered within a fifth of a second is answered by its reply alone: with a quick round the word of acceptance would be a
quarter of all messages and tell nothing. A repeated order is told at once that it was accepted, by who receives it.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedbiomed.common.constants import OrderState, Phase
from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.messages.message import Message
from fedbiomed.common.messages.training import OrderAccepted, TrainProgress
from fedbiomed.node.orders import Order, OrderBook
from fedbiomed.node.task import RoundReport

logger = logging.getLogger(__name__)
_AT_MOST_EVERY_S = 0.9  # the training process reports once a second; this holds back one that does not keep to it
_AT_LEAST_EVERY_S = 25.0
_ACCEPT_AFTER_S = 0.2
_LOOK_EVERY_S = 0.25
_IDLE_S = 60.0
_JOIN_S = 5.0
_NOTHING = RoundReport(phase=Phase.TRAINING.value, iteration=0, num_iterations=0, epoch=None, metrics={})


@dataclass(frozen=True, slots=True)
class _Told:
    """What is known of an open order, and when (monotonic seconds) its researcher last heard of it, or of its progress."""

    report: RoundReport
    at: float
    is_accepted: bool = False
    progress_at: float = -math.inf


class Heartbeat:
    """Tells researchers how far their orders are.

    Args:
        book: the open orders.
        node_id: who tells.
        publish: sends a message to a researcher.
        at_least_every_s: how long a researcher may hear nothing.
    """

    def __init__(
        self, book: OrderBook, node_id: str, publish: Callable[[str, Message], None], *, at_least_every_s: float = _AT_LEAST_EVERY_S
    ) -> None:
        self._book, self._node_id, self._publish = book, node_id, publish
        self._at_least_every_s = at_least_every_s
        self._told: dict[str, _Told] = {}
        self._lock = threading.Lock()
        self._has_orders, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{node_id}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._has_orders.set()
        self._thread.start()

    def notice(self) -> None:
        """An order came."""
        self._has_orders.set()

    def report(self, order: Order, report: RoundReport) -> None:
        """The training process has come further."""
        now = time.monotonic()
        with self._lock:
            told = self._told.get(order.request_id, _Told(report, now))
            is_due = now - told.progress_at >= _AT_MOST_EVERY_S
            self._told[order.request_id] = _Told(report, now, is_accepted=True, progress_at=now) if is_due else replace(told, report=report)
        if is_due:
            self._tell(order, OrderState.RUNNING, report)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._has_orders.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _beat(self) -> None:
        while not self._closed.is_set():
            try:
                if not self._look():
                    self._has_orders.wait(_IDLE_S)
            except FedbiomedError as error:
                logger.warning("cannot tell researchers how far their orders are: %s", error)
            self._closed.wait(_LOOK_EVERY_S)

    def _look(self) -> bool:
        """Tell whoever is due; returns whether any order is open."""
        self._has_orders.clear()
        orders = {order.request_id: order for order in self._book.open_orders()}
        now = time.monotonic()
        with self._lock:
            self._told = {request_id: self._told.get(request_id, _Told(_NOTHING, now)) for request_id in orders}
            due = {request_id: told for request_id, told in self._told.items() if now - told.at >= self._patience_s(told)}
            self._told |= {request_id: replace(told, at=now, is_accepted=True) for request_id, told in due.items()}
        for request_id, told in due.items():
            order = orders[request_id]
            self._tell(order, order.state, told.report if told.is_accepted else None)
        return bool(orders)

    def _patience_s(self, told: _Told) -> float:
        return self._at_least_every_s if told.is_accepted else _ACCEPT_AFTER_S

    def _tell(self, order: Order, state: OrderState, report: RoundReport | None) -> None:
        ids: dict[str, Any] = {"request_id": order.request_id, "researcher_id": order.researcher_id, "node_id": self._node_id}
        if report is None:
            self._publish(order.researcher_id, OrderAccepted(**ids, state=state.value))
        else:
            self._publish(order.researcher_id, TrainProgress(**ids, state=state.value, **asdict(report)))
