"""The node: what arrives is decoded, written down or queued, and answered.

Three threads: the bus's own (decodes, stores orders, returns), one that answers questions, one that carries out orders. None of them
waits for another, so a node that trains still answers a ping.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import ErrorNumbers, OrderState
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedMessageError, FedbiomedMessagingError
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Message, Request
from fedbiomed.common.messages.presence import BootProbe, Hello
from fedbiomed.common.messages.training import OrderAccepted, OrderCancelled, OrderGot, TrainRequest
from fedbiomed.common.transport.transport import FileStore, MessageBus
from fedbiomed.node.approval import plan_registry
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.default_plans import take_shipped_plans
from fedbiomed.node.handlers import Handlers
from fedbiomed.node.heartbeat import Heartbeat
from fedbiomed.node.log_forwarder import LogForwarder
from fedbiomed.node.order_runner import OrderRunner, OrderTools, failed_reply
from fedbiomed.node.orders import Order, OrderBook
from fedbiomed.node.presence import answer_probe, presence
from fedbiomed.node.privacy_ledger import PrivacyLedger
from fedbiomed.node.secagg import NodeSecagg
from fedbiomed.node.state import NodeStates
from fedbiomed.node.store import NodeStore
from fedbiomed.node.worker import Worker

logger = logging.getLogger(__name__)
_MAX_QUESTIONS = 1000
_WAKE_S = 60.0
_AFTER_FAILURE_S = 5.0
_JOIN_S = 15.0
_FLUSH_S = 2.0


class Node:
    """Receives and answers; see `order_runner` for what becomes of an order.

    Args:
        config: of this node.
        bus: connected or not; the node subscribes at its start.
        files: the repository.
        store: the node's database.
        worker: trains.
        boot_id: drawn for this start of the process.

    What was handed in is not closed here.
    """

    def __init__(self, config: NodeConfig, bus: MessageBus, files: FileStore, store: NodeStore, *, worker: Worker, boot_id: str) -> None:
        self._config, self._bus, self._boot_id = config, bus, boot_id
        self._book, self._states = OrderBook(store), NodeStates.of(config, store)
        datasets, plans = DatasetRegistry(store), plan_registry(config, store)
        self._plans = plans
        self._heartbeat = Heartbeat(self._book, config.id, self._publish)
        self._logs = LogForwarder(self._book, config.id, self._publish, is_connected=lambda: bus.is_connected)
        self._secagg = NodeSecagg(config, store, files)
        self._runner = OrderRunner(
            OrderTools(
                config=config,
                book=self._book,
                states=self._states,
                datasets=datasets,
                plans=plans,
                files=files,
                worker=worker,
                heartbeat=self._heartbeat,
                ledger=PrivacyLedger(store),
                secagg=self._secagg,
                send=self._send,
            )
        )
        spool, more = _made(config.var / "tmp"), self._secagg.handlers()
        self._handlers = Handlers(config.id, config.label, datasets, plans, files=files, spool=spool, more=more)
        self._questions: queue.Queue[Request | None] = queue.Queue(_MAX_QUESTIONS)
        self._work, self._closed = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._answer_questions, name=f"questions-{config.id}", daemon=True),
            threading.Thread(target=self._carry_out_orders, name=f"orders-{config.id}", daemon=True),
        ]
        self._table: Mapping[type[Message], Callable[[Any, bytes], None]] = {
            TrainRequest: self._take_order,
            OrderCancelled: self._cancel_order,
            OrderGot: self._close_order,
            BootProbe: lambda probe, _payload: answer_probe(bus, config, boot_id, probe),
            **dict.fromkeys(self._handlers.request_types, self._take_question),
        }

    def start(self) -> None:
        """Go on with open orders, and hear new ones as soon as the bus is connected."""
        if self._config.plan_approval:
            take_shipped_plans(self._plans, are_allowed=self._config.allow_default_training_plans)
        if self._config.forward_logs:
            self._logs.start()
        self.tidy()
        for thread in self._threads:
            thread.start()
        self._heartbeat.start()
        self._bus.subscribe(topics.orders(self._config.federation, self._config.id), self._receive)
        self._bus.subscribe(topics.broadcast(self._config.federation), self._receive)
        self._bus.on_connect(self._announce)

    def tidy(self) -> None:
        """Forget what nobody needs any more: old orders and states, and their files."""
        self._runner.tidy()
        self._states.tidy()
        self._secagg.tidy()

    def close(self) -> None:
        """Say goodbye and end the threads; a round that runs is ended and starts again with the next start. A second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._runner.close()
        self._work.set()
        self._questions.put(None)
        self._heartbeat.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)
        self._logs.close()
        self._publish_raw(*presence(self._config, self._boot_id, is_online=False), retain=True)
        if self._bus.is_connected:
            self._bus.flush(_FLUSH_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _receive(self, topic: str, payload: bytes) -> None:
        """On the bus's thread: the message is acknowledged to the broker when this returns."""
        try:
            message = decode(payload)
        except FedbiomedMessageError as error:
            logger.warning("refused a message on %s: %s", topic, error)
            return
        handle = self._table.get(type(message))
        if handle is None:
            logger.warning("refused a message on %s: a node does not take %s", topic, type(message).__name__)
            return
        with self._logs.working_for(getattr(message, "researcher_id", None)):
            handle(message, payload)

    def _take_order(self, request: TrainRequest, payload: bytes) -> None:
        refusal = self._reason_against(request)
        if refusal is not None:
            self._refuse(request, payload, *refusal)
            return
        known = self._book.add(request, payload)
        if known is None:
            self._work.set()
            self._heartbeat.notice()
        else:
            self._answer_again(request, known)

    def _reason_against(self, request: TrainRequest) -> tuple[OrderState, str] | None:
        if request.node_id != self._config.id:
            return OrderState.FAILED, f"FB300: the order is for {request.node_id}, this is {self._config.id}"
        if self._book.is_from_the_future(request.issued_at):
            return OrderState.FAILED, "FB300: the order was issued in the future: set the clocks of researcher and node"
        if self._book.is_expired(request.expires_at) and self._book.get(request.request_id) is None:
            return OrderState.EXPIRED, "FB314: the order had expired when it arrived: give it again, or set the clocks"
        return None

    def _refuse(self, request: TrainRequest, payload: bytes, state: OrderState, reason: str) -> None:
        """Say why, and log it once however often the order comes."""
        reply = failed_reply(request, self._config.id, reason)
        known = self._book.add(request, payload, state=state, answer=encode(reply), message=reason)
        if known is None:
            logger.warning("refused order %s of %s: %s", request.request_id, request.researcher_id, reason)
            self._publish(request.researcher_id, reply)
        else:
            self._answer_again(request, known)

    def _answer_again(self, request: TrainRequest, known: Order) -> None:
        """A repeated order is never carried out again."""
        if known.researcher_id != request.researcher_id:
            logger.warning("refused order %s of %s: another researcher gave it", request.request_id, request.researcher_id)
        elif known.answer is not None and known.state != OrderState.TRAINED:
            self._send(known.researcher_id, known.answer)
        elif known.state != OrderState.CANCELLED:
            ids = {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": self._config.id}
            self._publish(request.researcher_id, OrderAccepted(**ids, state=known.state.value))

    def _cancel_order(self, wish: OrderCancelled, _payload: bytes) -> None:
        if wish.node_id == self._config.id and self._book.cancel(wish):
            logger.info("order %s was cancelled: %s", wish.request_id, wish.reason)
            self._runner.interrupt(wish.request_id)
            self._runner.discard_files(wish.request_id)

    def _close_order(self, receipt: OrderGot, _payload: bytes) -> None:
        if receipt.node_id == self._config.id and self._book.got(receipt):
            self._runner.discard_files(receipt.request_id)

    def _take_question(self, request: Request, _payload: bytes) -> None:
        if self._book.is_expired(request.expires_at):
            return
        try:
            self._questions.put_nowait(request)
        except queue.Full:
            logger.warning("refused %s of %s: %d others wait", type(request).__name__, request.researcher_id, _MAX_QUESTIONS)
            text = "FB300: the node has too many questions to answer; ask again later"
            ids = {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": self._config.id}
            self._publish(request.researcher_id, ErrorReply(**ids, errnum=ErrorNumbers.FB300.name, msg=text))

    def _answer_questions(self) -> None:
        while (request := self._questions.get()) is not None:
            with self._logs.working_for(request.researcher_id):
                self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            for reply in self._handlers.handle(request):
                self._publish(request.researcher_id, reply)
        except FedbiomedError:
            logger.exception("cannot answer %s %s", type(request).__name__, request.request_id)

    def _carry_out_orders(self) -> None:
        while not self._closed.is_set():
            self._work.clear()
            try:
                order = self._book.next_open()
                if order is not None:
                    with self._logs.working_for(order.researcher_id, is_order=True):
                        self._runner.run(order)
            except Exception:  # the node's worker: it must live on, whatever the disk or the system refuses for a while
                logger.exception("cannot go on with the orders for now")
                self._closed.wait(_AFTER_FAILURE_S)
                continue
            if order is None:
                self._work.wait(_WAKE_S)

    def _announce(self) -> None:
        """After each connect: say that we are there, and tell each researcher which orders we hold."""
        self._publish_raw(*presence(self._config, self._boot_id, is_online=True), retain=True)
        for researcher_id, ids in self._book.wanted_by_researcher().items():
            hello = Hello(request_id=self._boot_id, researcher_id=researcher_id, node_id=self._config.id, open_orders=tuple(ids))
            self._publish(researcher_id, hello)

    def _publish(self, researcher_id: str, message: Message) -> None:
        self._send(researcher_id, encode(message))

    def _send(self, researcher_id: str, payload: bytes) -> None:
        self._publish_raw(topics.replies(self._config.federation, researcher_id, self._config.id), payload)

    def _publish_raw(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send; what cannot be sent now is asked for again, so it is only logged."""
        try:
            self._bus.publish(topic, payload, retain=retain)
        except FedbiomedMessagingError as error:
            logger.warning("not sent: %s", error)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
