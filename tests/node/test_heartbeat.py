"""A researcher is never left without a word of its open order."""

import queue

import pytest

from fedbiomed.common.constants import OrderState
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.training import OrderAccepted, TrainProgress
from fedbiomed.node.heartbeat import Heartbeat
from fedbiomed.node.order_runner import failed_reply
from fedbiomed.node.orders import OrderBook
from fedbiomed.node.store import NodeStore
from fedbiomed.node.task import RoundReport
from tests.support.orders import RESEARCHER, train_request


@pytest.fixture
def book(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as store:
        yield OrderBook(store)


def test_waiting_orders_are_accepted_then_kept_warm_and_forgotten_when_closed(book):
    said = queue.Queue()
    heartbeat = Heartbeat(book, "node_1", lambda researcher_id, message: said.put((researcher_id, message)), at_least_every_s=0.3)
    heartbeat.start()
    try:
        request = train_request("node_1")
        book.add(request, encode(request))
        heartbeat.notice()
        researcher_id, first = said.get(timeout=5)
        assert (researcher_id, type(first), first.request_id) == (RESEARCHER, OrderAccepted, request.request_id)
        _, second = said.get(timeout=5)
        assert (type(second), second.state, second.iteration) == (TrainProgress, "new", 0)
        order = book.next_open()
        heartbeat.report(order, RoundReport(phase="TRAINING", iteration=3, num_iterations=9, epoch=1, metrics={"Loss": 1.5}))
        _, third = said.get(timeout=5)
        assert (third.iteration, third.num_iterations, third.metrics) == (3, 9, {"Loss": 1.5})
        book.close(request.request_id, OrderState.FAILED, encode(failed_reply(request, "node_1", "why")), "why")
        while not said.empty():
            said.get_nowait()
        with pytest.raises(queue.Empty):
            said.get(timeout=0.8)
    finally:
        heartbeat.close()
