"""The node over transports in memory, with a real database and a real training process."""

import re
import threading
import time
import uuid
from dataclasses import replace

import numpy as np
import pytest

from fedbiomed.common.constants import OrderState
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.discovery import DatasetsReply, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.presence import BootProbe, Hello, Presence
from fedbiomed.common.messages.training import OrderAccepted, OrderCancelled, OrderGot, TrainProgress, TrainReply
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.memory_bus import MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFileStore
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.orders import OrderBook
from tests.support.node_site import PLAN, made_site, marking, slow_plan
from tests.support.orders import ARGS, RESEARCHER, Asker, nowhere, plan_source, train_request

LINE_OF_PROGRESS = (
    "history_monitor.add_scalar(metric={'Loss': float(i)}, iteration=i, epoch=1, train=True, test=False, test_on_local_updates=False,"
    " test_on_global_updates=False, total_samples=8, batch_samples=4, num_batches=4)"
)


@pytest.fixture
def site(tmp_path, shared_worker):
    with made_site(tmp_path, shared_worker) as made:
        yield made


def got(request, **changes):
    ids = {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": request.node_id}
    return OrderGot(**{**ids, **changes})


def cancelled(request):
    return OrderCancelled(request_id=request.request_id, researcher_id=request.researcher_id, node_id=request.node_id, reason="enough")


def test_an_order_is_accepted_carried_out_and_forgotten(site):
    asker = site.asker
    with site.started():
        request = asker.order(PLAN, site.dataset_id)
        reply = asker.train(request)
        assert reply.success, reply.msg
        assert (reply.sample_size, reply.round, reply.job_id, reply.dataset_id) == (8, 0, "job_1", site.dataset_id)
        assert reply.timing.keys() == {"rtime_training", "ptime_training", "rtime_total"}
        assert reply.timing["rtime_total"] >= reply.timing["rtime_training"]
        content = asker.result(reply)
        assert content["state_id"] == reply.state_id
        assert [point["metric"] for point in reply.metrics][-1] == "Loss"
        asker.send(got(request))
        second = asker.order(PLAN, site.dataset_id, content["model_weights"], round=1, state_id=reply.state_id)
        following = asker.train(second)
        assert following.success, following.msg
        assert site.state_of(request) == OrderState.DONE
        assert request.request_id not in site.spool()
        assert site.state_of(second) == OrderState.REPLIED
        asker.train(asker.order(PLAN, site.dataset_id, got=(request.request_id, second.request_id, "request_of_nobody")))
        assert site.state_of(second) == OrderState.DONE
        assert second.request_id not in site.spool()


def test_an_order_to_validate_only(site):
    args = {**ARGS, "test_ratio": 0.5, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}
    with site.started():
        reply = site.asker.train(site.asker.order(PLAN, site.dataset_id, training=False, training_args=args))
        assert reply.success, reply.msg
        assert (reply.result, reply.state_id, reply.sample_size) == (None, None, 0)
        assert {point["phase"] for point in reply.metrics} == {"VALIDATION ON GLOBAL UPDATES"}
        failed = site.asker.train(site.asker.order(PLAN, site.dataset_id, training=False, training_args={**args, "test_ratio": 0.0}))
        assert not failed.success
        assert "test_ratio" in failed.msg


def test_an_order_that_takes_its_time_is_accepted_first(site, tmp_path):
    begun = tmp_path / "begun"
    with site.started():
        request, waiting = (site.asker.order(source, site.dataset_id) for source in (slow_plan(begun), PLAN))
        site.asker.send(request)
        assert site.asker.hear(OrderAccepted, request.request_id).state == OrderState.RUNNING
        assert begun.read_text() == "x"
        site.asker.send(waiting)
        assert site.asker.hear(OrderAccepted, waiting.request_id).state == OrderState.NEW
        site.asker.send(waiting)
        assert site.asker.hear(OrderAccepted, waiting.request_id).state == OrderState.NEW
        site.asker.send(cancelled(request))
        assert site.asker.hear(TrainReply, waiting.request_id).success


def test_duplicates_are_answered_and_never_trained_twice(site, tmp_path):
    asker, marks = site.asker, tmp_path / "marks"
    with site.started():
        requests = [asker.order(marking(marks), site.dataset_id, round=r) for r in range(3)]
        for request in [*requests, *reversed(requests), *requests]:
            asker.send(request)
        replies = {request.request_id: asker.hear(TrainReply, request.request_id) for request in requests}
        for request in requests:
            asker.send(request)
            assert asker.hear(TrainReply, request.request_id) == replies[request.request_id]
        assert all(reply.success for reply in replies.values())
    assert marks.read_text() == "trained\n" * 3


def test_an_order_that_comes_while_the_node_is_away(site):
    with site.started():
        pass
    request = site.asker.order(PLAN, site.dataset_id)
    site.asker.send(request)
    with site.started("boot_2"):
        assert site.asker.hear(TrainReply, request.request_id).success


@pytest.mark.parametrize("state", [OrderState.NEW, OrderState.FETCHED, OrderState.RUNNING])
def test_an_order_goes_on_after_a_restart(site, tmp_path, state):
    marks = tmp_path / "marks"
    request = site.asker.order(marking(marks), site.dataset_id)
    book = OrderBook(site.store)
    book.add(request, encode(request))
    book.advance(request.request_id, state)
    with site.started():
        assert site.asker.hear(TrainReply, request.request_id).success
    assert marks.read_text() == "trained\n"


@pytest.mark.parametrize("state", [OrderState.TRAINED, OrderState.UPLOADED])
def test_what_was_trained_is_not_trained_again_after_a_restart(site, tmp_path, state):
    marks, asker = tmp_path / "marks", site.asker
    with site.started():
        request = asker.order(marking(marks), site.dataset_id)
        first = asker.train(request)
    draft = replace(first, result=None) if state == OrderState.TRAINED else first
    with site.store.transaction() as connection:
        connection.execute("UPDATE orders SET state = ?, reply = ? WHERE request_id = ?", (state, encode(draft), request.request_id))
    with site.started("boot_2"):
        second = asker.hear(TrainReply, request.request_id)
    assert second.success
    assert second.state_id == first.state_id
    assert asker.result(second)["state_id"] == first.state_id
    assert marks.read_text() == "trained\n"


def test_closing_the_node_during_training_leaves_the_order_open(site, tmp_path):
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    source = slow_plan(begun, go_on)
    with site.started():
        request = site.asker.order(source, site.dataset_id)
        site.asker.send(request)
        assert begun.read_text() == "x"
    assert site.state_of(request) == OrderState.RUNNING
    go_on.touch()
    with site.started("boot_2"):
        assert site.asker.hear(TrainReply, request.request_id).success


def test_a_cancelled_order_ends_at_once_and_the_next_one_begins(site, tmp_path):
    begun = tmp_path / "begun"
    slow = slow_plan(begun)
    with site.started():
        request, waiting = site.asker.order(slow, site.dataset_id), site.asker.order(slow, site.dataset_id)
        site.asker.send(request)
        assert begun.read_text() == "x"
        site.asker.send(waiting)
        site.asker.send(cancelled(waiting))
        site.asker.send(cancelled(request))
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id)).success
        site.asker.send(request)
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id)).success
    assert [site.state_of(r) for r in (request, waiting)] == [OrderState.CANCELLED] * 2
    assert not any(isinstance(m, TrainReply) and m.request_id in (request.request_id, waiting.request_id) for m in site.asker.passed)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"expires_at": time.time() - 1000, "issued_at": time.time() - 2000}, "expired"),
        ({"issued_at": time.time() + 10_000, "expires_at": time.time() + 20_000}, "future"),
        ({"node_id": "node_other"}, "node_other"),
        ({"dataset_id": "dataset_other"}, "FB313"),
        ({"state_id": "node_state_other"}, "node_state_other"),
        ({"secagg": {"scheme": "lom"}}, "secure aggregation"),
        ({"aux_files": (nowhere(),)}, "FB2|no such|file"),
        ({"plan": nowhere()}, "FB2|no such|file"),
        ({"params": nowhere()}, "FB2|no such|file"),
        ({"plan_class": "OtherPlan"}, "OtherPlan"),
        ({"training_args": {"epoch": 1}}, "epoch"),
        ({"training_args": {**ARGS, "test_ratio": 1.0}}, "test_ratio 1.0"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_an_order_that_cannot_be_carried_out_is_answered_with_the_reason(site, changes, text):
    with site.started():
        request = replace(site.asker.order(PLAN, site.dataset_id), **changes)
        reply = site.asker.train(request)
        assert not reply.success
        assert reply.result is None
        assert re.search(text, reply.msg), reply.msg
        assert "Traceback" not in reply.msg
        assert site.asker.train(request) == reply
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id)).success
        assert request.request_id not in site.spool()


def test_too_few_samples(site):
    with site.started(minimum_samples=9):
        reply = site.asker.train(site.asker.order(PLAN, site.dataset_id))
    assert "8 samples" in reply.msg
    assert "at least 9" in reply.msg


def test_secure_aggregation_only(site):
    with site.started(force_secure_aggregation=True):
        assert "secure aggregation only" in site.asker.train(site.asker.order(PLAN, site.dataset_id)).msg


def test_the_approved_bytes_run_and_no_others(site, tmp_path):
    marks = tmp_path / "marks"
    source = marking(marks)
    with site.started(plan_approval=True):
        refused = site.asker.train(site.asker.order(source, site.dataset_id))
        assert not refused.success
        assert "approv" in refused.msg
        PlanRegistry(site.store, approval_required=True).register(source, "marking")
        assert site.asker.train(site.asker.order(source, site.dataset_id)).success
        changed = site.asker.train(site.asker.order(source.replace(b"trained", b"changed"), site.dataset_id))
        assert not changed.success
    assert marks.read_text() == "trained\n"


def test_a_file_of_an_aggregators_argument(site):
    source = plan_source(step="if self.aggregator_args() != {'extra': [1, 2], 'small': 3}: raise ValueError(self.aggregator_args())")
    with site.started():
        ref = site.asker.put(Serializer.dumps([1, 2]))
        reply = site.asker.train(site.asker.order(source, site.dataset_id, aggregator_files={"extra": ref}, aggregator_args={"small": 3}))
    assert reply.success, reply.msg


def test_nonsense_is_refused_and_the_node_lives_on(site, caplog):
    with site.started():
        for payload in (b"", b"{}", b"\xff", b"x" * 100_000, encode(train_request(site.config.id)).replace(b'"1"', b'"2"', 1)):
            site.asker.bus.publish(topics.orders("default", site.config.id), payload)
        site.asker.send(Hello(request_id="r", researcher_id=RESEARCHER, node_id=site.config.id, open_orders=()))
        assert site.asker.train(site.asker.order(PLAN, site.dataset_id)).success
    assert len([record for record in caplog.records if "refused a message" in record.message]) == 6
    assert not any(record.exc_info for record in caplog.records)


def question(kind, **fields):
    now = time.time()
    return kind(request_id=f"request_{uuid.uuid4()}", researcher_id=RESEARCHER, issued_at=now, expires_at=now + 60, **fields)


def test_questions_are_answered_while_a_round_runs(site, tmp_path):
    begun = tmp_path / "begun"
    slow = slow_plan(begun)
    with site.started():
        request = site.asker.order(slow, site.dataset_id)
        site.asker.send(request)
        assert begun.read_text() == "x"
        ping = question(PingRequest)
        site.asker.bus.publish(topics.broadcast("default"), encode(ping))
        assert site.asker.hear(PingReply, ping.request_id).node_name == site.config.label
        search = question(SearchRequest, tags=("no-such-tag",))
        site.asker.send(search)
        assert site.asker.hear(DatasetsReply, search.request_id).count == 0
        late = replace(question(PingRequest), expires_at=time.time() - 10_000)
        site.asker.send(late)
        site.asker.send(cancelled(request))
        again = question(PingRequest)
        site.asker.send(again)
        site.asker.hear(PingReply, again.request_id)
        assert not any(getattr(message, "request_id", "") == late.request_id for message in site.asker.passed)


def test_a_node_says_when_it_comes_and_goes_and_what_it_holds(site):
    heard: list[Presence] = []
    changed = threading.Condition()

    def hear(_topic, payload):
        with changed:
            heard.append(decode(payload))
            changed.notify_all()

    def wait_for(online, boot_id):
        with changed:
            assert changed.wait_for(lambda: any((m.is_online, m.boot_id) == (online, boot_id) for m in heard), 5)

    site.asker.bus.subscribe(topics.presence("default", "+"), hear)
    with site.started():
        wait_for(True, "boot_1")
        request = site.asker.order(PLAN, site.dataset_id)
        site.asker.train(request)
        site.broker.stop()
        site.broker.start(forget=True)
        hello = site.asker.hear(Hello, "boot_1")
        assert hello.open_orders == ()  # it is answered: the researcher, who may have lost the answer, asks again
        site.asker.send(request)
        assert site.asker.hear(TrainReply, request.request_id).success
    wait_for(False, "boot_1")


def test_a_twin_is_told(site):
    answers: list[str] = []
    answered = threading.Event()

    def hear(_topic, payload):
        answers.append(decode(payload).boot_id)
        answered.set()

    site.asker.bus.subscribe(topics.probe("default", site.config.id), hear)
    with site.started():
        site.asker.send(BootProbe(component_id=site.config.id, boot_id="boot_1"))
        site.asker.send(BootProbe(component_id=site.config.id, boot_id="boot_2"))
        assert answered.wait(5)
    assert answers == ["boot_1"]


def test_progress_of_a_long_round_is_heard(site):
    source = plan_source(routine=f"import threading\nfor i in range(4):\n    threading.Event().wait(0.4)\n    {LINE_OF_PROGRESS}")
    with site.started():
        request = site.asker.order(source, site.dataset_id)
        site.asker.send(request)
        progress = site.asker.hear(TrainProgress, request.request_id)
        assert progress.state == OrderState.RUNNING
        assert progress.metrics == {"Loss": 2.0}
        reply = site.asker.hear(TrainReply, request.request_id)
    assert [point["value"] for point in reply.metrics] == [0.0, 1.0, 2.0, 3.0]


def test_two_researchers_do_not_mix(site, tmp_path):
    with MemoryBus(site.broker, "researcher_two") as bus:
        bus.connect(5)
        two = Asker(bus, MemoryFileStore(site.shared, "researcher_two"), site.config.id, tmp_path / "two", "researcher_two")
        with site.started():
            requests = [(asker, asker.order(PLAN, site.dataset_id, job_id=f"job_{asker.researcher_id}")) for asker in (site.asker, two) * 3]
            for asker, request in requests:
                asker.send(request)
            for asker, request in requests:
                reply = asker.hear(TrainReply, request.request_id)
                assert (reply.researcher_id, reply.success) == (asker.researcher_id, True)
    for asker in (site.asker, two):
        assert all(message.researcher_id == asker.researcher_id for message in asker.passed)


def test_the_same_order_gives_the_same_bytes(site):
    with site.started():
        contents = [site.asker.result(site.asker.train(site.asker.order(PLAN, site.dataset_id))) for _ in range(2)]
    one, other = (content["model_weights"] for content in contents)
    assert all(np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one)
