"""What hostile or unlucky messages, plans and disks do to a node: it answers, tells nothing that it must not, and lives on."""

import contextlib

import pytest

from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.training import OrderAccepted, OrderCancelled
from fedbiomed.node.orders import OrderBook
from tests.support.node_site import PLAN, made_site
from tests.support.orders import RESEARCHER, plan_source, train_request


@pytest.fixture
def site(tmp_path, shared_worker):
    with made_site(tmp_path, shared_worker) as made:
        yield made


@contextlib.contextmanager
def without_room(store):
    """A database in which no order can go on."""
    with store.transaction() as connection:
        connection.execute("CREATE TRIGGER full BEFORE UPDATE OF state ON orders BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    try:
        yield
    finally:
        with store.transaction() as connection:
            connection.execute("DROP TRIGGER full")


def test_a_message_that_no_database_takes_does_not_stay_in_the_line(site, caplog):
    topic, order = topics.orders("default", site.config.id), train_request(site.config.id)
    with site.started():
        for wrong in (b'"round":10000000000000000000', b'"round":0,"attempt":-1e999'):
            site.asker.bus.publish(topic, encode(order).replace(b'"round":0', wrong))
        site.asker.send(OrderCancelled(request_id="r", researcher_id=RESEARCHER, node_id=site.config.id, reason="\ud800"))
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id)).success
    assert not any(record.exc_info for record in caplog.records)


def test_what_a_plan_raises_is_answered_whatever_characters_it_has(site):
    with site.started():
        reply = site.asker.train(site.asker.order(plan_source(step="raise ValueError('M\\udcfcller.csv')"), site.dataset_id))
        assert not reply.success
        assert "M?ller.csv" in reply.msg
        umlauts = {"x": "\u00fc" * 9_000}
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id, model_args=umlauts)).success


def test_a_researcher_does_not_read_where_the_node_lies(site):
    with site.started():
        order = site.asker.order(PLAN, site.dataset_id)
        (site.config.var / "spool" / order.request_id / "params.mpk").mkdir(parents=True)
        reply = site.asker.train(order)
        assert "Is a directory" in reply.msg
        assert str(site.config.root) not in reply.msg


def test_an_order_that_cannot_even_be_refused_is_not_tried_without_a_pause(site, caplog):
    with site.started():
        order = site.asker.order(PLAN, site.dataset_id, plan_class="x" * 5000)
        with without_room(site.store):
            site.asker.send(order)
            assert site.asker.hear(OrderAccepted, order.request_id).state == "new"
            tries = sum("cannot be answered" in record.message for record in caplog.records)
    assert tries <= 1


def test_a_node_with_too_many_orders_takes_no_more(site):
    book, former = OrderBook(site.store), train_request(site.config.id)
    with site.store.transaction():
        book.add(former, encode(former))
        for _ in range(999):
            book.add(train_request(site.config.id), encode(former))
    with without_room(site.store), site.started():
        reply = site.asker.train(site.asker.order(PLAN, site.dataset_id))
        assert (reply.success, reply.msg) == (False, "FB314: this node has too many orders to carry out; give it again later")
    assert book.is_full()
    book.cancel(OrderCancelled(request_id=former.request_id, researcher_id=RESEARCHER, node_id=site.config.id, reason="x" * 5000))
    assert not book.is_full()
    with site.store.transaction() as connection:
        (reason,) = connection.execute("SELECT message FROM orders WHERE state = 'cancelled'").fetchone()
    assert reason == "x" * 2000
