"""The order book: nothing is doubled, nothing is lost, and of two who change an order at once one wins."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fedbiomed.common.constants import OrderState
from fedbiomed.common.exceptions import FedbiomedNodeStateManagerError, FedbiomedNodeStoreError
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.training import OrderCancelled, OrderGot
from fedbiomed.node.order_runner import failed_reply
from fedbiomed.node.orders import CLOCK_SKEW_S, OrderBook
from fedbiomed.node.state import NodeStates, new_state_id
from fedbiomed.node.store import NodeStore
from tests.support.orders import RESEARCHER, train_request

DAY_S = 86400.0


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def store(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as opened:
        yield opened


@pytest.fixture
def book(store):
    return OrderBook(store)


def add(book, **changes):
    request = train_request("node_1", **changes)
    assert book.add(request, encode(request)) is None
    return request


def answer_to(request):
    return encode(failed_reply(request, "node_1", "some reason"))


def cancelled(request, **changes):
    return OrderCancelled(
        **{"request_id": request.request_id, "researcher_id": RESEARCHER, "node_id": "node_1", "reason": "enough", **changes}
    )


def got(request):
    return OrderGot(request_id=request.request_id, researcher_id=RESEARCHER, node_id="node_1")


def test_an_order_comes_back_as_it_came(book):
    request = add(book)
    order = book.next_open()
    assert order.request == request
    assert order.state == OrderState.NEW
    with pytest.raises(FedbiomedNodeStoreError, match="no reply"):
        _ = order.reply


def test_of_many_copies_one_is_new(book):
    request = train_request("node_1")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: book.add(request, encode(request)), range(12)))
    assert [order is None for order in found].count(True) == 1
    assert len(book.open_orders()) == 1


def test_orders_are_taken_as_they_came(book):
    requests = [add(book) for _ in range(3)]
    assert [order.request_id for order in book.open_orders()] == [request.request_id for request in requests]
    assert book.close(requests[0].request_id, OrderState.FAILED, answer_to(requests[0]), "why")
    assert book.next_open().request_id == requests[1].request_id
    assert book.get(requests[0].request_id).reply.msg == "some reason"


def test_an_order_goes_through_its_states_and_is_done(book):
    request = add(book)
    assert book.wanted_by_researcher() == {RESEARCHER: [request.request_id]}
    for state in (OrderState.FETCHED, OrderState.RUNNING, OrderState.TRAINED, OrderState.UPLOADED, OrderState.REPLIED):
        assert book.advance(request.request_id, state, answer_to(request) if state == OrderState.TRAINED else None)
        assert book.get(request.request_id).state == state
    assert book.next_open() is None
    assert book.wanted_by_researcher() == {RESEARCHER: []}
    assert book.got(got(request))
    assert not book.got(got(request))
    assert book.wanted_by_researcher() == {}
    assert book.get(request.request_id).state == OrderState.DONE
    assert book.get(request.request_id).reply.request_id == request.request_id


def test_a_cancelled_order_cannot_go_on(book):
    request = add(book)
    assert book.cancel(cancelled(request))
    assert not book.cancel(cancelled(request))
    assert not book.advance(request.request_id, OrderState.RUNNING)
    assert not book.close(request.request_id, OrderState.FAILED, answer_to(request), "why")
    assert book.next_open() is None


def test_only_the_giver_cancels_or_confirms(book):
    request = add(book)
    assert not book.cancel(cancelled(request, researcher_id="researcher_other"))
    assert book.next_open() is not None
    book.advance(request.request_id, OrderState.REPLIED, answer_to(request))
    assert not book.got(OrderGot(request_id=request.request_id, researcher_id="researcher_other", node_id="node_1"))


def test_an_order_that_comes_after_its_cancellation_is_not_carried_out(book):
    request = train_request("node_1")
    assert book.cancel(cancelled(request))
    assert book.add(request, encode(request)).state == OrderState.CANCELLED
    assert book.next_open() is None


def test_clocks_may_differ_by_ten_minutes(store):
    book = OrderBook(store, now=Clock(10_000.0))
    assert not book.is_expired(10_000.0 - CLOCK_SKEW_S + 1)
    assert book.is_expired(10_000.0 - CLOCK_SKEW_S - 1)
    assert not book.is_from_the_future(10_000.0 + CLOCK_SKEW_S - 1)
    assert book.is_from_the_future(10_000.0 + CLOCK_SKEW_S + 1)


def test_tidying_keeps_what_is_wanted(store):
    clock = Clock(0.0)
    book = OrderBook(store, now=clock)
    still_open, fetched_never, failed = (add(book, expires_at=1000.0) for _ in range(3))
    book.advance(fetched_never.request_id, OrderState.REPLIED, answer_to(fetched_never))
    book.close(failed.request_id, OrderState.FAILED, answer_to(failed), "why")
    assert book.tidy() == [still_open.request_id, fetched_never.request_id]
    clock.now = 1000.0 + CLOCK_SKEW_S + 1
    assert book.tidy() == [still_open.request_id]
    assert book.get(fetched_never.request_id).state == OrderState.EXPIRED
    clock.now += 31 * DAY_S
    assert book.tidy() == [still_open.request_id]
    assert book.get(failed.request_id) is None


def test_orders_outlive_the_process(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as store:
        request = add(OrderBook(store))
        OrderBook(store).advance(request.request_id, OrderState.RUNNING)
    with NodeStore(tmp_path / "node.sqlite") as store:
        assert OrderBook(store).next_open().state == OrderState.RUNNING


def test_a_state_is_known_for_its_job_only(store, tmp_path):
    clock = Clock(0.0)
    states = NodeStates(store, tmp_path / "states", now=clock)
    state_id = new_state_id()
    states.save(state_id, "job_1", 0)
    states.require(state_id, "job_1")
    for wrong in ((state_id, "job_2"), (new_state_id(), "job_1")):
        with pytest.raises(FedbiomedNodeStateManagerError, match="has no state"):
            states.require(*wrong)
    clock.now = 181 * DAY_S
    states.tidy()
    with pytest.raises(FedbiomedNodeStateManagerError):
        states.require(state_id, "job_1")
