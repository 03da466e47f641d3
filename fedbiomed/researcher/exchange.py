"""Orders to nodes, repeated until they are answered or given up; see `Exchange`.

An order may be lost in many ways (a node restarts, a broker forgets, a line is cut), so the researcher's side owns it: it sends it
again until the node has answered, and a node answers a repeated order from what it stored. Everything happens on the caller's thread,
between two events from the queue; there is no timer and no thread.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Empty
from types import TracebackType
from typing import Self

from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.exceptions import ExperimentStopped
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Reply
from fedbiomed.common.messages.presence import Hello, Presence
from fedbiomed.common.messages.training import OrderAccepted, OrderCancelled, OrderGot, TrainProgress, TrainReply, TrainRequest
from fedbiomed.common.transport.transport import MessageBus
from fedbiomed.researcher.inbox import Event, Events, Inbox, Reconnected, StopAsked

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, TrainProgress | str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited for what, in seconds.

    Args:
        round_timeout_s, idle_timeout_s, offline_grace_s: see `ResearcherConfig`.
        first_repeat_s: an unanswered order is sent again after so long, then after twice that, and so on.
        max_repeat_s: ... but never later than this. Half the idle timeout if that is less: a living node acknowledges a repeated order,
            so one that waits behind another's order is not taken for lost.
    """

    round_timeout_s: float = 3600.0
    idle_timeout_s: float = 90.0
    offline_grace_s: float = 30.0
    first_repeat_s: float = 10.0
    max_repeat_s: float = 120.0

    @classmethod
    def of(cls, config: ResearcherConfig) -> Self:
        """As the researcher's settings say."""
        return cls(round_timeout_s=config.round_timeout_s, idle_timeout_s=config.idle_timeout_s, offline_grace_s=config.offline_grace_s)

    def next_interval_s(self, interval_s: float) -> float:
        """How long to wait after the next repetition."""
        return min(2 * interval_s, self.max_repeat_s, self.idle_timeout_s / 2)


@dataclass(slots=True)
class _Order:
    request: TrainRequest
    payload: bytes
    heard_at: float
    repeat_at: float
    interval_s: float
    state: str = "sent"
    offline_at: float | None = None

    def hear(self, at: float, state: str) -> None:
        self.heard_at, self.state, self.offline_at = max(self.heard_at, at), state, None


class Exchange:
    """A context manager: entering sends the orders, `answers` gives what comes back, leaving cancels what is still open.

    Args:
        bus, inbox: the researcher's.
        federation: where the nodes are.
        orders: one per node.
        patience: the limits.
        on_progress: called on the caller's thread with the node and its progress, or a word about it: `sent`, `accepted`, `offline`,
            `sent again`, `answered`, `left out`.

    Raises:
        FedbiomedMessageError: on entering: an order is too large; nothing was sent then.
    """

    def __init__(
        self,
        bus: MessageBus,
        inbox: Inbox,
        federation: str,
        orders: Sequence[TrainRequest],
        *,
        patience: Patience,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._bus, self._inbox, self._federation, self._patience = bus, inbox, federation, patience
        self._on_progress = on_progress
        self._requests = tuple(orders)
        self._open: dict[str, _Order] = {}
        self._answered: dict[str, TrainRequest] = {}
        self._deadline = 0.0
        self._events: Events

    def __enter__(self) -> Self:
        took_along = [self._inbox.receipts.of(request.node_id) for request in self._requests]
        payloads = [encode(replace(request, got=got)) for request, got in zip(self._requests, took_along, strict=True)]
        self._events = self._inbox.open([request.request_id for request in self._requests])
        self._deadline = time.monotonic() + self._patience.round_timeout_s
        try:
            for request, payload, got in zip(self._requests, payloads, took_along, strict=True):
                self._send(request, payload)
                self._inbox.receipts.sent(got)
        except BaseException as error:
            self._end(f"the round was ended by {type(error).__name__}")
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end("the researcher left the round" if kind is None else f"the round was ended by {kind.__name__}")

    def answers(self) -> Iterator[tuple[str, TrainReply | str]]:
        """Wait for the nodes: each gives its reply, or the reason why it was left out, in the order in which they come.

        Each reply is to be followed by `got` or `give_up`.

        Raises:
            ExperimentStopped: `stop` was called.
        """
        while self._open:
            event = self._next_event()
            if event is not None and event.at <= self._deadline:
                yield from self._take(event)
            else:
                yield from self._give_up_overdue(time.monotonic())

    def stop(self) -> None:
        """Let `answers` raise `ExperimentStopped` as soon as it waits again; may be called from any thread."""
        self._events.put(Event(time.monotonic(), StopAsked()))

    def got(self, node_id: str) -> None:
        """Tell a node that its result is here, so that it may forget it."""
        request = self._answered.pop(node_id)
        self._inbox.close_order(OrderGot(request_id=request.request_id, researcher_id=request.researcher_id, node_id=request.node_id))

    def give_up(self, node_id: str, reason: str) -> None:
        """Tell a node whose reply came that its result is not wanted after all."""
        self._cancel(self._answered.pop(node_id), reason)

    def _send(self, request: TrainRequest, payload: bytes) -> None:
        now = time.monotonic()
        interval_s = min(self._patience.first_repeat_s, self._patience.idle_timeout_s / 2)
        order = _Order(request, payload, heard_at=now, repeat_at=now + interval_s, interval_s=interval_s)
        self._open[request.node_id] = order
        self._publish(order)
        self._tell(request.node_id, "sent")
        presence = self._inbox.presence(request.node_id)
        if presence is not None and not presence.is_online:
            self._note_offline(order, now)

    def _end(self, reason: str) -> None:
        for request in [*self._answered.values(), *(order.request for order in self._open.values())]:
            self._cancel(request, reason)
        self._inbox.forget([request.request_id for request in self._requests])
        self._open.clear()
        self._answered.clear()

    def _next_event(self) -> Event | None:
        """The next event, or None when something is overdue; what has come is taken before anything is judged."""
        try:
            return self._events.get(timeout=max(0.0, self._wake_at() - time.monotonic()))
        except Empty:
            return None

    def _wake_at(self) -> float:
        return min(self._deadline, *(min(order.repeat_at, self._due(order)) for order in self._open.values()))

    def _due(self, order: _Order) -> float:
        idle = order.heard_at + self._patience.idle_timeout_s
        return idle if order.offline_at is None else min(idle, order.offline_at + self._patience.offline_grace_s)

    def _take(self, event: Event) -> Iterator[tuple[str, TrainReply | str]]:
        what = event.what
        if isinstance(what, StopAsked):
            raise ExperimentStopped("the experiment was stopped")
        if isinstance(what, Reconnected):
            for order in self._open.values():
                self._repeat(order)
        elif isinstance(what, Presence):
            self._take_presence(what, event.at)
        elif isinstance(what, Reply):
            yield from self._take_reply(what, event.at)

    def _take_presence(self, presence: Presence, at: float) -> None:
        order = self._open.get(presence.component_id)
        if order is None:
            return
        if not presence.is_online:
            self._note_offline(order, at)
        elif order.offline_at is not None or order.state == "sent":
            order.hear(at, order.state)
            self._repeat(order)

    def _take_reply(self, reply: Reply, at: float) -> Iterator[tuple[str, TrainReply | str]]:
        order = self._open.get(reply.node_id)
        if order is None or (reply.request_id != order.request.request_id and not isinstance(reply, Hello)):
            return
        if isinstance(reply, TrainReply) and not _answers(order.request, reply):
            logger.warning("a reply of %s to another order (job %s, round %d) was dropped", reply.node_id, reply.job_id, reply.round)
        elif isinstance(reply, TrainReply | ErrorReply):
            yield self._close(order, reply)
        elif isinstance(reply, Hello):
            order.hear(at, order.state)
            if order.request.request_id not in reply.open_orders:
                self._repeat(order)
        elif isinstance(reply, TrainProgress | OrderAccepted):
            order.hear(at, reply.state)
            self._tell(reply.node_id, reply if isinstance(reply, TrainProgress) else "accepted")

    def _close(self, order: _Order, reply: TrainReply | ErrorReply) -> tuple[str, TrainReply | str]:
        node_id = order.request.node_id
        self._answered[node_id] = self._open.pop(node_id).request
        if isinstance(reply, TrainReply) and reply.success:
            self._tell(node_id, "answered")
            return node_id, reply
        self.got(node_id)
        self._tell(node_id, "left out")
        if isinstance(reply, ErrorReply):
            return node_id, f"{reply.errnum}: {reply.msg}"
        return node_id, reply.msg or "the node reports a failure without a reason; see its log"

    def _give_up_overdue(self, now: float) -> Iterator[tuple[str, str]]:
        for order in list(self._open.values()):
            reason = self._reason_against(order, now)
            if reason is None:
                if now >= order.repeat_at:
                    self._repeat(order)
                continue
            del self._open[order.request.node_id]
            self._cancel(order.request, reason)
            self._tell(order.request.node_id, "left out")
            yield order.request.node_id, reason

    def _reason_against(self, order: _Order, now: float) -> str | None:
        heard = f"last heard of {now - order.heard_at:.0f} s ago, its order was {order.state}"
        if now >= self._deadline:
            return f"no result within round_timeout_s = {self._patience.round_timeout_s:g} s; {heard}"
        if order.offline_at is not None and now >= order.offline_at + self._patience.offline_grace_s:
            return f"offline for {now - order.offline_at:.0f} s; {heard}; start it again there (`fedbiomed node start`)"
        if now >= order.heard_at + self._patience.idle_timeout_s:
            return f"silent for {now - order.heard_at:.0f} s; {heard}; is it running? (`fedbiomed node status` there)"
        return None

    def _note_offline(self, order: _Order, at: float) -> None:
        if order.offline_at is None:
            order.offline_at = at
            self._tell(order.request.node_id, "offline")

    def _repeat(self, order: _Order) -> None:
        order.interval_s = self._patience.next_interval_s(order.interval_s)
        order.repeat_at = time.monotonic() + order.interval_s
        self._publish(order)
        self._tell(order.request.node_id, "sent again")

    def _publish(self, order: _Order) -> None:
        self._bus.publish(topics.orders(self._federation, order.request.node_id), order.payload)

    def _cancel(self, request: TrainRequest, reason: str) -> None:
        self._inbox.close_order(
            OrderCancelled(request_id=request.request_id, researcher_id=request.researcher_id, node_id=request.node_id, reason=reason)
        )

    def _tell(self, node_id: str, what: TrainProgress | str) -> None:
        if self._on_progress is not None:
            self._on_progress(node_id, what)


def _answers(request: TrainRequest, reply: TrainReply) -> bool:
    return reply.job_id == request.job_id and reply.round == request.round and (reply.dataset_id == request.dataset_id or not reply.success)
