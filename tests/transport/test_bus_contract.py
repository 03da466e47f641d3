"""What every `MessageBus` promises, tried on memory, on the embedded broker and on Mosquitto."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fedbiomed.common.constants import MAX_MESSAGE_BYTES
from fedbiomed.common.exceptions import FedbiomedMessagingError
from tests.support.brokers import running_mosquitto
from tests.support.buses import TIMEOUT_S, AmqttStage, Inbox, MemoryStage, MosquittoStage, Stage, connected, reconnections


@pytest.fixture(scope="module", params=["memory", "amqtt", "mosquitto"])
def running_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryStage()
        elif request.param == "amqtt":
            stage = AmqttStage()
            stack.callback(stage.stop)
            yield stage
        else:
            yield MosquittoStage(stack.enter_context(running_mosquitto()))


@pytest.fixture
def stage(running_stage: Stage) -> Iterator[Stage]:
    yield running_stage
    running_stage.close_buses()


@pytest.fixture
def name() -> str:
    """Ids and topics of this test alone."""
    return uuid.uuid4().hex[:12]


def test_a_message_reaches_every_subscriber(stage: Stage, name: str) -> None:
    sender, a, b = (connected(stage, f"{name}{end}") for end in "sab")
    of_a, of_b, of_sender = Inbox(), Inbox(), Inbox()
    a.subscribe(f"{name}/x", of_a)
    b.subscribe(f"{name}/x", of_b)
    sender.subscribe(f"{name}/x", of_sender)
    sender.publish(f"{name}/x", b"hello")
    for inbox in (of_a, of_b, of_sender):
        inbox.wait(1)
        assert inbox.got == [(f"{name}/x", b"hello")]


def test_what_was_not_subscribed_to_does_not_come(stage: Stage, name: str) -> None:
    bus, inbox = connected(stage, name), Inbox()
    bus.subscribe(f"{name}/x", inbox)
    for topic in (f"{name}/y", f"{name}/x/deeper", f"{name}"):
        bus.publish(topic, b"no")
    bus.publish(f"{name}/x", b"yes")
    assert inbox.wait(1) == [b"yes"]


@pytest.mark.parametrize(("topic_filter", "expected"), [("a/+/c", [b"a/b/c"]), ("a/#", [b"a/b/c", b"a/b", b"a/b/c/d"]), ("a/b", [b"a/b"])])
def test_wildcards(stage: Stage, name: str, topic_filter: str, expected: list[bytes]) -> None:
    bus, inbox = connected(stage, name), Inbox()
    bus.subscribe(f"{name}/{topic_filter}", inbox)
    bus.subscribe(f"{name}/end", inbox)
    for topic in ("a/b/c", "a/b", "a/b/c/d", "end"):
        bus.publish(f"{name}/{topic}", topic.encode())
    assert inbox.wait_for(b"end") == [*expected, b"end"]


def test_two_handlers_of_one_topic(stage: Stage, name: str) -> None:
    bus, first, second = connected(stage, name), Inbox(), Inbox()
    bus.subscribe(f"{name}/x", first)
    bus.subscribe(f"{name}/x", second)
    bus.publish(f"{name}/x", b"1")
    first.wait(1)
    second.wait(1)


def test_order_is_kept_over_many_messages(stage: Stage, name: str) -> None:
    sender, receiver, inbox = connected(stage, f"{name}s"), connected(stage, name), Inbox()
    receiver.subscribe(f"{name}/x", inbox)
    expected = [str(i).encode() for i in range(500)]
    for payload in expected:
        sender.publish(f"{name}/x", payload)
    assert inbox.wait(500) == expected
    assert sender.flush(TIMEOUT_S)


def test_several_threads_may_publish(stage: Stage, name: str) -> None:
    sender, receiver, inbox = connected(stage, f"{name}s"), connected(stage, name), Inbox()
    receiver.subscribe(f"{name}/+", inbox)

    def publish(thread: int) -> None:
        for i in range(50):
            sender.publish(f"{name}/{thread}", f"{thread}:{i}".encode())

    threads = [threading.Thread(target=publish, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    got = inbox.wait(200)
    for i in range(4):
        assert [p for p in got if p.startswith(f"{i}:".encode())] == [f"{i}:{k}".encode() for k in range(50)]


def test_the_largest_message_of_the_federation(stage: Stage, name: str) -> None:
    bus, inbox = connected(stage, name), Inbox()
    bus.subscribe(f"{name}/x", inbox)
    payload = bytes(range(256)) * (MAX_MESSAGE_BYTES // 256)
    bus.publish(f"{name}/x", payload)
    assert inbox.wait(1) == [payload]


def test_a_handler_may_publish_and_subscribe(stage: Stage, name: str) -> None:
    node, researcher, inbox = connected(stage, f"{name}n"), connected(stage, f"{name}r"), Inbox()

    def answer(_topic: str, payload: bytes) -> None:
        node.subscribe(f"{name}/more", lambda _topic, more: node.publish(f"{name}/reply", more))
        node.publish(f"{name}/reply", b"re: " + payload)

    node.subscribe(f"{name}/request", answer)
    researcher.subscribe(f"{name}/reply", inbox)
    researcher.publish(f"{name}/request", b"ping")
    inbox.wait(1)
    researcher.publish(f"{name}/more", b"pong")
    assert inbox.wait(2) == [b"re: ping", b"pong"]


def test_a_session_keeps_what_comes_while_its_owner_is_away(stage: Stage, name: str) -> None:
    first, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    first.subscribe(f"{name}/x", Inbox())
    first.close()
    for payload in (b"1", b"2", b"3"):
        sender.publish(f"{name}/x", payload)
    assert sender.flush(TIMEOUT_S)
    second = stage.bus(name)
    second.subscribe(f"{name}/x", inbox)
    second.connect(TIMEOUT_S)
    assert inbox.wait(3) == [b"1", b"2", b"3"]


def test_what_was_kept_waits_for_who_subscribes_after_connecting(stage: Stage, name: str) -> None:
    first, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    first.subscribe(f"{name}/x", Inbox())
    first.close()
    sender.publish(f"{name}/x", b"1")
    assert sender.flush(TIMEOUT_S)
    second = connected(stage, name)
    second.subscribe(f"{name}/x", inbox)
    assert inbox.wait(1) == [b"1"]


def test_without_a_session_what_came_meanwhile_is_gone(stage: Stage, name: str) -> None:
    first, sender, inbox = connected(stage, name, persistent=False), connected(stage, f"{name}s"), Inbox()
    first.subscribe(f"{name}/x", Inbox())
    first.close()
    sender.publish(f"{name}/x", b"lost")
    assert sender.flush(TIMEOUT_S)
    second = connected(stage, name, persistent=False)
    second.subscribe(f"{name}/x", inbox)
    sender.publish(f"{name}/x", b"new")
    assert inbox.wait(1) == [b"new"]


def test_retained_messages_reach_late_subscribers_until_cleared(stage: Stage, name: str) -> None:
    sender, inbox, late, after = connected(stage, f"{name}s"), Inbox(), Inbox(), Inbox()
    sender.subscribe(f"{name}/s/+", inbox)
    sender.publish(f"{name}/s/a", b"old", retain=True)
    sender.publish(f"{name}/s/a", b"new", retain=True)
    inbox.wait(2)
    bus = connected(stage, name)
    bus.subscribe(f"{name}/s/+", late)
    assert late.wait(1) == [b"new"]
    sender.publish(f"{name}/s/a", b"", retain=True)
    inbox.wait(3)
    other = connected(stage, f"{name}o")
    other.subscribe(f"{name}/s/+", after)
    sender.publish(f"{name}/s/b", b"end")
    assert after.wait(1) == [b"end"]


def test_the_will_is_published_and_retained_when_the_line_is_cut(stage: Stage, name: str) -> None:
    watcher, seen, late = connected(stage, f"{name}w"), Inbox(), Inbox()
    watcher.subscribe(f"{name}/s", seen)
    connected(stage, name, will=(f"{name}/s", b"offline"))
    stage.cut(name)
    assert seen.wait(1) == [b"offline"]
    connected(stage, f"{name}l").subscribe(f"{name}/s", late)
    assert late.wait(1) == [b"offline"]


def test_the_will_is_not_published_by_a_close(stage: Stage, name: str) -> None:
    watcher, seen = connected(stage, f"{name}w"), Inbox()
    watcher.subscribe(f"{name}/s", seen)
    connected(stage, name, will=(f"{name}/s", b"offline")).close()
    watcher.publish(f"{name}/s", b"end")
    assert seen.wait(1) == [b"end"]


def test_a_cut_line_comes_back_with_its_subscriptions(stage: Stage, name: str) -> None:
    bus, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    bus.subscribe(f"{name}/x", inbox)
    connects = reconnections(bus)
    stage.cut(name)
    stage.restore(name)
    connects.wait(2)
    assert bus.is_connected
    sender.publish(f"{name}/x", b"after")
    inbox.wait_for(b"after")


def test_what_is_published_offline_is_sent_later_in_order(stage: Stage, name: str) -> None:
    bus, receiver, inbox = connected(stage, name), connected(stage, f"{name}r"), Inbox()
    receiver.subscribe(f"{name}/x", inbox)
    stage.cut(name)
    for i in range(5):
        bus.publish(f"{name}/x", str(i).encode())
    assert not bus.flush(0.01)
    stage.restore(name)
    assert bus.flush(TIMEOUT_S)
    assert list(dict.fromkeys(inbox.wait_for(b"4"))) == [b"0", b"1", b"2", b"3", b"4"]


def test_what_is_published_before_the_first_connect_is_sent_then(stage: Stage, name: str) -> None:
    receiver, inbox = connected(stage, f"{name}r"), Inbox()
    receiver.subscribe(f"{name}/x", inbox)
    bus = stage.bus(name)
    bus.publish(f"{name}/x", b"early")
    bus.connect(TIMEOUT_S)
    assert inbox.wait(1) == [b"early"]


def test_a_line_that_is_cut_again_and_again_loses_nothing(stage: Stage, name: str) -> None:
    bus, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    bus.subscribe(f"{name}/x", inbox)
    connects = reconnections(bus)
    for i in range(3):
        stage.cut(name)
        for k in range(20):
            sender.publish(f"{name}/x", f"{i}.{k}".encode())
        stage.restore(name)
        connects.wait(i + 2)
    expected = {f"{i}.{k}".encode() for i in range(3) for k in range(20)}
    inbox.wait_until(lambda: expected <= set(inbox.payloads))


def test_after_a_restart_that_forgot_everything_all_goes_on(stage: Stage, name: str) -> None:
    bus, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    bus.subscribe(f"{name}/x", inbox)
    connects, of_sender = reconnections(bus), reconnections(sender)
    stage.stop()
    sender.publish(f"{name}/x", b"meanwhile")
    stage.start(forget=True)
    connects.wait(2)
    of_sender.wait(2)
    sender.publish(f"{name}/x", b"after")
    inbox.wait_for(b"after")


def test_a_restart_that_remembers_keeps_sessions(stage: Stage, name: str) -> None:
    if not stage.keeps_over_restart:
        pytest.skip("this broker keeps nothing over a restart; the sender repeats")
    first, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    first.subscribe(f"{name}/x", Inbox())
    first.close()
    sender.publish(f"{name}/x", b"kept")
    assert sender.flush(TIMEOUT_S)
    stage.stop()
    stage.start(forget=False)
    second = connected(stage, name)
    second.subscribe(f"{name}/x", inbox)
    assert inbox.wait(1) == [b"kept"]


def test_a_handler_that_raises_gets_the_message_again_after_the_next_connect(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()

    def fail_once(topic: str, payload: bytes) -> None:
        inbox(topic, payload)
        if payload == b"bad" and inbox.payloads.count(b"bad") == 1:
            raise RuntimeError("cannot store this")

    bus.subscribe(f"{name}/x", fail_once)
    sender.publish(f"{name}/x", b"bad")
    sender.publish(f"{name}/x", b"good")
    assert inbox.wait(2) == [b"bad", b"good"]
    assert "cannot store this" in caplog.text
    stage.cut(name)
    stage.restore(name)
    inbox.wait_for(b"bad", times=2)


def test_a_message_in_the_hands_of_a_process_that_ends_goes_to_the_next_one(stage: Stage, name: str) -> None:
    first, sender, inbox = connected(stage, name), connected(stage, f"{name}s"), Inbox()
    is_reached = threading.Event()

    def fail(_topic: str, _payload: bytes) -> None:
        is_reached.set()
        raise RuntimeError("the power went")

    first.subscribe(f"{name}/x", fail)
    sender.publish(f"{name}/x", b"order")
    assert is_reached.wait(TIMEOUT_S)
    first.close()
    second = stage.bus(name)
    second.subscribe(f"{name}/x", inbox)
    second.connect(TIMEOUT_S)
    assert inbox.wait(1) == [b"order"]


def test_on_connect_is_called_now_and_at_each_further_connect(stage: Stage, name: str) -> None:
    early, bus = Inbox(), stage.bus(name)
    bus.on_connect(early.called)
    assert early.got == []
    bus.connect(TIMEOUT_S)
    early.wait(1)
    late = reconnections(bus)
    stage.cut(name)
    stage.restore(name)
    late.wait(2)
    assert len(early.wait(2)) == len(late.got) == 2


def test_on_connect_may_publish_and_a_raise_there_does_no_harm(stage: Stage, name: str) -> None:
    bus, inbox = stage.bus(name), Inbox()

    def fail() -> None:
        raise RuntimeError("nobody home")

    bus.subscribe(f"{name}/x", inbox)
    bus.on_connect(fail)
    bus.on_connect(lambda: bus.publish(f"{name}/x", b"hello"))
    bus.connect(TIMEOUT_S)
    assert inbox.wait(1) == [b"hello"]


def test_connect_says_that_there_is_no_broker_and_still_finds_it_later(stage: Stage, name: str) -> None:
    stage.stop()
    try:
        bus = stage.bus(name)
        with pytest.raises(FedbiomedMessagingError, match="FB101: no"):
            bus.connect(0.05)
        assert not bus.is_connected
    finally:
        stage.start(forget=True)
    bus.connect(TIMEOUT_S)
    assert bus.is_connected


def test_close_ends_everything_and_may_be_repeated(stage: Stage, name: str) -> None:
    with connected(stage, name) as bus:
        bus.subscribe(f"{name}/x", Inbox())
    bus.close()
    assert not bus.is_connected
    with pytest.raises(FedbiomedMessagingError, match="closed"):
        bus.publish(f"{name}/x", b"late")
    assert [thread.name for thread in threading.enumerate() if name in thread.name] == []


def test_close_inside_a_handler(stage: Stage, name: str) -> None:
    bus, is_closed = connected(stage, name), threading.Event()

    def end(_topic: str, _payload: bytes) -> None:
        bus.close()
        is_closed.set()

    bus.subscribe(f"{name}/x", end)
    bus.publish(f"{name}/x", b"bye")
    assert is_closed.wait(TIMEOUT_S)
    assert not bus.is_connected


def test_close_of_a_bus_that_never_connected(stage: Stage, name: str) -> None:
    bus = stage.bus(name)
    bus.publish(f"{name}/x", b"never")
    bus.close()
    assert not bus.flush(0.01)


def test_what_was_published_just_before_close_is_sent(stage: Stage, name: str) -> None:
    receiver, inbox = connected(stage, f"{name}r"), Inbox()
    receiver.subscribe(f"{name}/x", inbox)
    bus = connected(stage, name)
    for i in range(20):
        bus.publish(f"{name}/x", str(i).encode())
    bus.close()
    assert inbox.wait(20) == [str(i).encode() for i in range(20)]
