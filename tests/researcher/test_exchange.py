"""Orders to nodes that are slow, silent, cut off or wrong: each is answered, or given up with the reason."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.training import OrderCancelled, OrderGot, TrainProgress, TrainReply, TrainRequest
from fedbiomed.researcher.exchange import Exchange, Patience
from fedbiomed.researcher.inbox import Inbox
from tests.support.orders import train_request
from tests.support.researchers import MemoryStage, Stage
from tests.support.scripted_node import ScriptedNode, accepting, erring, failing, silent

LONG = Patience(round_timeout_s=10, idle_timeout_s=10, offline_grace_s=10)


class Sender:
    """A researcher's exchange with the nodes of a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        stage.connections.append(stage.connection(stage.config()))
        self.bus = stage.connections[-1].bus
        self.inbox = Inbox(self.bus, stage.federation, stage.researcher_id)
        self.words: list[tuple[str, object]] = []

    def orders(self) -> list[TrainRequest]:
        return [train_request(node.node_id, researcher_id=self.stage.researcher_id) for node in self.stage.nodes]

    def exchange(self, orders: Sequence[TrainRequest], patience: Patience = LONG) -> Exchange:
        return Exchange(
            self.bus, self.inbox, self.stage.federation, orders, patience=patience, on_progress=lambda *word: self.words.append(word)
        )

    def answers(self, patience: Patience = LONG) -> dict[str, TrainReply | str]:
        """All answers of one exchange; the good ones are taken."""
        found = {}
        with self.exchange(self.orders(), patience) as exchange:
            for node_id, answer in exchange.answers():
                found[node_id] = answer
                if isinstance(answer, TrainReply):
                    exchange.got(node_id)
        return found


def replying(node: ScriptedNode, order: TrainRequest) -> None:
    """Reply at once, without a file."""
    node.accept(order)
    node.progress(order)
    node.say(node.reply(order), order.researcher_id)


def test_replies_come_and_are_acknowledged(any_stage: Stage) -> None:
    nodes = [any_stage.node("a", replying), any_stage.node("b", replying)]
    sender = Sender(any_stage)
    answers = sender.answers()
    for node in nodes:
        reply = answers[node.node_id]
        assert isinstance(reply, TrainReply)
        assert node.wait_for(OrderGot)[0].request_id == reply.request_id
        assert node.all_heard(OrderCancelled) == []
        words = [what for node_id, what in sender.words if node_id == node.node_id and what != "sent again"]
        assert [w if isinstance(w, str) else type(w) for w in words] == ["sent", "accepted", TrainProgress, "answered"]


def test_a_silent_node_is_given_up_and_told_so(stage: Stage) -> None:
    b = stage.node("b", silent)
    answers = Sender(stage).answers(replace(LONG, idle_timeout_s=0.2))
    assert "silent for 0 s" in str(answers[b.node_id])
    assert b.wait_for(OrderCancelled)[0].request_id == b.all_heard(TrainRequest)[0].request_id


def test_a_node_that_works_but_never_ends_is_given_up_at_the_deadline(stage: Stage) -> None:
    b = stage.node("b", accepting)
    b.answer_again = accepting
    answers = Sender(stage).answers(replace(LONG, round_timeout_s=0.9, idle_timeout_s=0.6))
    assert str(answers[b.node_id]).startswith("no result within round_timeout_s = 0.9 s; last heard of 0 s ago, its order was new")
    b.wait_for(OrderCancelled)


def test_an_unanswered_order_is_sent_again(stage: Stage) -> None:
    b = stage.node("b", silent)
    b.answer_again = replying
    answers = Sender(stage).answers(replace(LONG, first_repeat_s=0.05))
    assert isinstance(answers[b.node_id], TrainReply)
    first, *others = b.all_heard(TrainRequest)
    assert others
    assert all(other == first for other in others)


def test_repetitions_become_rarer_up_to_a_limit() -> None:
    patience, intervals = Patience(idle_timeout_s=1000), [10.0]
    while len(intervals) < 6:
        intervals.append(patience.next_interval_s(intervals[-1]))
    assert intervals == [10, 20, 40, 80, 120, 120]
    assert Patience(idle_timeout_s=90).next_interval_s(40) == 45


def test_a_node_that_comes_back_without_the_order_gets_it_again_at_once(stage: Stage) -> None:
    b = stage.node("b", lambda node, order: node.hello(order.researcher_id))
    b.answer_again = replying
    assert isinstance(Sender(stage).answers()[b.node_id], TrainReply)


def test_a_node_that_still_holds_the_order_is_left_to_work(stage: Stage) -> None:
    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        node.hello(order.researcher_id, order.request_id)
        node.say(node.reply(order), order.researcher_id)

    b = stage.node("b", replying)
    sender = Sender(stage)
    sender.answers()  # its presence is known from now on, so nothing else makes the order go out again
    b.answer = answer
    reply = sender.answers()[b.node_id]
    assert isinstance(reply, TrainReply)
    assert b.wait_for(OrderGot)[0].request_id == reply.request_id
    assert [order.request_id for order in b.all_heard(TrainRequest)].count(reply.request_id) == 1


def test_a_node_that_is_cut_off_is_given_up_after_the_grace(stage: Stage) -> None:
    b = stage.node("b", lambda node, _order: node.appear(is_online=False))
    sender = Sender(stage)
    answers = sender.answers(replace(LONG, offline_grace_s=0.2))
    assert "offline for 0 s" in str(answers[b.node_id])
    assert (b.node_id, "offline") in sender.words
    assert sender.words[-1] == (b.node_id, "left out")


def test_a_node_that_is_offline_at_the_start_has_the_same_grace(stage: Stage) -> None:
    b = stage.node("b", silent)
    b.appear(is_online=False)
    sender = Sender(stage)
    for _ in range(2):  # its presence is certainly known in the second round
        assert "offline" in str(sender.answers(replace(LONG, offline_grace_s=0.1))[b.node_id])
    assert sender.inbox.online_nodes() == []


def test_a_node_that_comes_back_in_the_grace_goes_on(stage: Stage) -> None:
    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        node.accept(order)
        node.appear(is_online=False)
        node.appear()

    b = stage.node("b", answer)
    b.answer_again = replying
    assert isinstance(Sender(stage).answers(replace(LONG, offline_grace_s=0.5))[b.node_id], TrainReply)


def test_a_broker_that_forgot_everything_loses_no_order(stage: MemoryStage) -> None:
    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        stage.broker.stop()
        stage.broker.start(forget=True)

    b = stage.node("b", answer)
    b.answer_again = replying
    assert isinstance(Sender(stage).answers()[b.node_id], TrainReply)


@pytest.mark.parametrize("changes", [{"job_id": "job_other"}, {"round": 7}, {"dataset_id": "dataset_other"}], ids=str)
def test_a_reply_to_something_else_is_dropped(stage: Stage, changes: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        node.say(node.reply(order, **changes), order.researcher_id)
        node.say(node.reply(order, sample_size=4), order.researcher_id)

    b = stage.node("b", answer)
    reply = Sender(stage).answers()[b.node_id]
    assert isinstance(reply, TrainReply)
    assert reply.sample_size == 4
    assert "to another order" in caplog.text


def test_one_node_cannot_answer_for_another(stage: Stage) -> None:
    a = stage.node("a", silent)

    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        # the order of node a, which it may have seen, under its own name and under the other's
        stolen = a.wait_for(TrainRequest)[0]
        node.say(node.reply(stolen), order.researcher_id)
        node.say(replace(node.reply(stolen), node_id=a.node_id), order.researcher_id)
        node.say(node.reply(order), order.researcher_id)

    b = stage.node("b", answer)
    a.appear(is_online=False)
    answers = Sender(stage).answers(replace(LONG, offline_grace_s=0.3))
    assert isinstance(answers[b.node_id], TrainReply)
    assert isinstance(answers[a.node_id], str)


def test_the_second_of_two_replies_changes_nothing(stage: Stage) -> None:
    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        node.say(node.reply(order, sample_size=1), order.researcher_id)
        node.say(node.reply(order, sample_size=2), order.researcher_id)

    a, b = stage.node("a", answer), stage.node("b", answer)
    with Sender(stage).exchange(Sender(stage).orders()) as exchange:
        found = []
        for node_id, reply in exchange.answers():
            found.append((node_id, reply.sample_size if isinstance(reply, TrainReply) else reply))
            exchange.got(node_id)
    assert sorted(found) == [(a.node_id, 1), (b.node_id, 1)]


def test_a_late_reply_is_answered_with_the_cancellation_again(stage: Stage) -> None:
    b = stage.node("b", silent)
    sender = Sender(stage)
    sender.answers(replace(LONG, idle_timeout_s=0.2))
    b.wait_for(OrderCancelled)
    order = b.all_heard(TrainRequest)[0]
    b.say(b.reply(order), order.researcher_id)
    assert len({message.request_id for message in b.wait_for(OrderCancelled, 2)}) == 1
    b.hello(order.researcher_id, order.request_id, "request_of_somebody_else")
    b.wait_for(OrderCancelled, 3)


def test_a_node_that_missed_the_acknowledgement_gets_it_again(stage: Stage) -> None:
    b = stage.node("b", replying)
    Sender(stage).answers()
    b.wait_for(OrderGot)
    order = b.all_heard(TrainRequest)[0]
    b.hello(order.researcher_id, order.request_id)
    b.wait_for(OrderGot, 2)


def test_the_next_order_takes_receipts_along(stage: Stage) -> None:
    b = stage.node("b", replying)
    sender = Sender(stage)
    first, second = (sender.answers()[b.node_id] for _ in range(2))
    assert isinstance(first, TrainReply)
    assert isinstance(second, TrainReply)
    assert list(dict.fromkeys(order.got for order in b.all_heard(TrainRequest))) == [(), (first.request_id,)]
    assert [receipt.request_id for receipt in b.wait_for(OrderGot)] == [second.request_id]


def test_receipts_go_before_the_line_is_closed(stage: Stage) -> None:
    b = stage.node("b", replying)
    sender = Sender(stage)
    sender.stage.connections[-1].before_close.append(sender.inbox.receipts.flush)
    reply = sender.answers()[b.node_id]
    assert isinstance(reply, TrainReply)
    sender.stage.connections[-1].close()
    assert [receipt.request_id for receipt in b.wait_for(OrderGot)] == [reply.request_id]
    sender.inbox.receipts.flush()


def test_failures_come_with_their_reason(stage: Stage) -> None:
    a, b, c = stage.node("a", failing("no such column")), stage.node("b", erring("too large")), stage.node("c", failing(""))
    answers = Sender(stage).answers()
    assert answers[a.node_id] == "no such column"
    assert answers[b.node_id] == "FB300: too large"
    assert "without a reason" in str(answers[c.node_id])
    for node in (a, b, c):
        node.wait_for(OrderGot)


def _interrupt(answer: object) -> None:
    assert answer
    raise KeyboardInterrupt


def test_leaving_cancels_what_is_open(stage: Stage) -> None:
    a, b = stage.node("a", replying), stage.node("b", accepting)
    sender = Sender(stage)
    with pytest.raises(KeyboardInterrupt), sender.exchange(sender.orders()) as exchange:
        _interrupt(next(exchange.answers()))
    for node in (a, b):
        assert node.wait_for(OrderCancelled)[0].reason == "the round was ended by KeyboardInterrupt"
        assert node.all_heard(OrderGot) == []


def test_an_error_while_sending_cancels_what_was_sent(stage: Stage) -> None:
    a, b = stage.node("a", silent), stage.node("b", silent)
    sender = Sender(stage)

    def interrupt(node_id: str, _what: object) -> None:
        raise KeyboardInterrupt(node_id)

    exchange = Exchange(sender.bus, sender.inbox, stage.federation, sender.orders(), patience=LONG, on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt), exchange:
        pytest.fail("must not be reached")
    a.wait_for(OrderCancelled)
    assert b.all_heard(TrainRequest) == []


def test_a_reply_may_be_given_up(stage: Stage) -> None:
    b = stage.node("b", replying)
    sender = Sender(stage)
    with sender.exchange(sender.orders()) as exchange:
        for node_id, _ in exchange.answers():
            exchange.give_up(node_id, "its file is broken")
    assert b.wait_for(OrderCancelled)[0].reason == "its file is broken"


def test_an_order_that_is_too_large_stops_all_before_anything_is_sent(stage: Stage) -> None:
    a, _ = stage.node("a", replying), stage.node("b", replying)
    sender = Sender(stage)
    first, second = sender.orders()
    with (
        pytest.raises(FedbiomedMessageError, match="at most 65536"),
        sender.exchange([first, replace(second, model_args={"x": "y" * 70_000})]),
    ):
        pytest.fail("must not be reached")
    a.bus.publish(topics.orders(stage.federation, a.node_id), encode(second))
    assert a.wait_for(TrainRequest) == [second]
