"""The node's log on its way to researchers: what may leave, to whom, how much."""

import logging
import queue
import threading

import pytest

from fedbiomed.common.exceptions import FedbiomedMessageError, FedbiomedRoundError
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.monitoring import LogLine, NodeLog
from fedbiomed.node.log_forwarder import _BURST, RECORDS_PER_S, LogForwarder, _Limit, harmless_text
from fedbiomed.node.orders import OrderBook
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.node_logs import blocks
from tests.support.orders import RESEARCHER, train_request

OTHER = "researcher_other"


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


class Line:
    """Keeps the lines that are published, and how many came in each message; can be held up, and cut."""

    def __init__(self):
        self.sent = queue.Queue()
        self.sizes, self.dropped = [], 0
        self.is_open = threading.Event()
        self.is_open.set()
        self.is_connected = True

    def publish(self, researcher_id, message):
        assert self.is_open.wait(20)
        came = decode(encode(message))
        self.sizes.append(len(came.lines))
        self.dropped += came.dropped
        for told in came.lines:
            self.sent.put((researcher_id, came.node_id, told))

    def texts(self, upto):
        """All lines up to one of that text."""
        found = []
        while not found or found[-1][2].msg != upto:
            found.append(self.sent.get(timeout=20))
        return found


@pytest.fixture
def book(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as store:
        yield OrderBook(store)


@pytest.fixture(autouse=True)
def level():
    ours = logging.getLogger("fedbiomed")
    before = ours.level
    ours.setLevel(logging.DEBUG)
    yield
    ours.setLevel(before)


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def forwarder(book, line, clock):
    made = LogForwarder(book, "node_1", line.publish, is_connected=lambda: line.is_connected, clock=clock, gather_s=0.01)
    made.start()
    yield made
    line.is_open.set()
    made.close()


@pytest.fixture
def node_log():
    return logging.getLogger("fedbiomed.node.some_module")


def open_order(book, researcher_id):
    request = train_request("node_1", researcher_id=researcher_id)
    book.add(request, encode(request))


def record(msg, *args):
    return logging.LogRecord("fedbiomed.node.x", logging.INFO, __file__, 1, msg, args, None)


@pytest.mark.parametrize(
    ("msg", "args", "text"),
    [
        ("order %s: round %d after %.1f s", ("request_1-2", 3, 2.25), "order request_1-2: round 3 after 2.2 s"),
        ("order %s: %s", ("request_1", "FB605: step() raised ValueError: 'Dupont' is 42"), "order request_1: FB605 (…)"),
        ("order %s: %s", ("request_1", FedbiomedRoundError("FB314: no disk at /srv/data")), "order request_1: FB314 (…)"),
        ("cannot: %s", (OSError(2, "No such file", "/srv/data.csv"),), "cannot: FileNotFoundError"),
        ("read %s", ("/srv/patients.csv",), "read (…)"),
        ("read %s", ("patients.csv",), "read (…)"),
        ("rows %s", ([1, 2, 3],), "rows list"),
        ("read /srv/patients.csv, then ~/x and C:\\data\\y: done", (), "read (…), then (…) and (…): done"),
        ("at most 3/4 of it", (), "at most 3/4 of it"),
        ("%(a)s is %(b)d", ({"a": "node_1", "b": 2},), "node_1 is 2"),
        ("%d of %s", ("many", "x"), "%d of %s"),
        ("two\nlines\x1b[31m", (), "two lines [31m"),
        ("x" * 5000, (), "x" * 2000),
    ],
)
def test_only_harmless_text_leaves(msg, args, text):
    assert harmless_text(record(msg, *args)) == text


def test_a_trace_stays_here(book, forwarder, line, node_log):
    open_order(book, RESEARCHER)
    try:
        raise ValueError("Dupont")
    except ValueError:
        node_log.exception("order %s", "request_1")
    *_, message = line.sent.get(timeout=20)
    assert (message.level, message.msg, message.logger) == ("ERROR", "order request_1", node_log.name)
    assert "Dupont" not in repr(message)


def test_only_who_has_open_orders_hears(book, forwarder, line, node_log):
    node_log.info("nobody waits")
    passed_by(forwarder, line, node_log)
    open_order(book, RESEARCHER)
    node_log.info("one waits")
    assert [(to, m.msg) for to, _, m in line.texts("one waits")] == [(RESEARCHER, "one waits")]
    open_order(book, OTHER)
    node_log.warning("two wait")
    assert sorted(line.sent.get(timeout=20)[0] for _ in range(2)) == [OTHER, RESEARCHER]


def test_what_concerns_one_researcher_goes_to_no_other(book, forwarder, line, node_log):
    open_order(book, OTHER)
    with forwarder.working_for(RESEARCHER):
        node_log.info("a question of one without orders")
    with forwarder.working_for(RESEARCHER, is_order=True):
        node_log.info("an order")
    assert [(to, m.msg) for to, _, m in line.texts("an order")] == [(RESEARCHER, "an order")]


def test_two_nodes_in_one_process_keep_their_records_apart(book, forwarder, line, node_log):
    open_order(book, RESEARCHER)
    other_line = Line()
    other = LogForwarder(book, "node_2", other_line.publish, gather_s=0.01)
    other.start()
    with other.working_for(None):
        node_log.info("of node_2")
    with forwarder.working_for(None):
        node_log.info("of node_1")
    assert [node for _, node, _ in line.texts("of node_1")] == ["node_1"]
    assert [node for _, node, _ in other_line.texts("of node_2")] == ["node_2"]
    other.close()
    assert other_line.sent.empty()


@pytest.mark.parametrize(
    "name",
    [
        "fedbiomed.researcher.job",
        "fedbiomed.common.transport.mqtt",
        "fedbiomed.common.serializer",
        "fedbiomed.node.round",
        "fedbiomed.node.worker_child",
        "other",
    ],
)
def test_what_is_not_the_nodes_stays_here(book, forwarder, line, node_log, name):
    open_order(book, RESEARCHER)
    logging.getLogger(name).error("not this")
    node_log.debug("nor this")
    node_log.info("this")
    assert [m.msg for *_, m in line.texts("this")] == ["this"]


def passed_by(forwarder, line, node_log):
    """Wait until what was logged before has been looked at; returns what was sent of it."""
    with forwarder.working_for(RESEARCHER, is_order=True):
        node_log.info("the end")
    return line.texts("the end")[:-1]


def test_a_flood_is_limited_and_counted(book, forwarder, line, node_log, clock):
    open_order(book, RESEARCHER)
    line.is_open.clear()  # sending hangs: whoever logs must not
    for number in range(1000):
        node_log.info("record %d", number)
    clock.now = 1e6
    line.is_open.set()
    node_log.info("the last")  # maybe one too many itself
    forwarder.close()
    sent = [line.sent.get_nowait()[2].msg for _ in range(line.sent.qsize())]
    assert sent[:_BURST] == [f"record {number}" for number in range(_BURST)]
    assert len(sent) <= 2 * _BURST
    assert max(line.sizes) > 1, "records that come together go together"
    assert len(sent) + line.dropped + forwarder._dropped == 1001


def test_the_limit_is_so_many_at_once_then_so_many_a_second(clock):
    limit = _Limit(clock)
    assert [limit.allows() for _ in range(_BURST + 2)] == [True] * _BURST + [False] * 2
    clock.now = 0.5 / RECORDS_PER_S
    assert not limit.allows()
    clock.now = 1.0
    assert [limit.allows() for _ in range(RECORDS_PER_S + 1)] == [True] * RECORDS_PER_S + [False]
    clock.now = 1e6
    assert [limit.allows() for _ in range(_BURST + 1)] == [True] * _BURST + [False]


def test_what_cannot_be_sent_now_is_not_kept(book, line, node_log, clock):
    open_order(book, RESEARCHER)
    line.is_connected = False
    cut = LogForwarder(book, "node_1", line.publish, is_connected=lambda: line.is_connected, clock=clock, gather_s=0.01)
    cut.start()
    node_log.info("lost")
    cut.close()
    assert line.sent.empty()


def test_it_ends(book, line, node_log):
    handlers = list(logging.getLogger("fedbiomed").handlers)
    forwarder = LogForwarder(book, "node_1", line.publish)
    forwarder.start()
    forwarder.close()
    forwarder.close()
    assert logging.getLogger("fedbiomed").handlers == handlers
    assert not [thread for thread in threading.enumerate() if thread.name == "logs-node_1"]
    LogForwarder(book, "node_1", line.publish).close()  # never started


def test_a_message_has_a_size():
    longest = log_line("\x01" * 2000)
    message = NodeLog(researcher_id="r", node_id="n", lines=(longest,) * 4)
    assert decode(encode(message)) == message
    with pytest.raises(FedbiomedMessageError, match="10000 characters, at most 8000"):
        NodeLog(researcher_id="r", node_id="n", lines=(longest,) * 5)
    with pytest.raises(FedbiomedMessageError, match="2001 characters, at most 2000"):
        log_line("x" * 2001)
    with pytest.raises(FedbiomedMessageError, match="holds a number and three texts"):
        log_line(None)


def test_long_records_go_in_several_messages(book, forwarder, line, node_log):
    open_order(book, RESEARCHER)
    line.is_open.clear()
    for number in range(9):
        node_log.info("%d " + "x" * 1900, number)
    line.is_open.set()
    forwarder.close()
    assert sum(line.sizes) == 9
    assert max(line.sizes) <= 4
    assert [line.sent.get_nowait()[2].msg[0] for _ in range(9)] == [str(number) for number in range(9)]


def log_line(msg, at=0.5):
    return LogLine(at=at, logger="fedbiomed.node", level="WARNING", msg=msg)


def test_a_block_tells_node_and_level():
    told = NodeLog(researcher_id="r", node_id="node_1", lines=(log_line("a \x1b[31m b"), log_line("nan", at=1e300)), dropped=3)
    first, second = blocks(told)
    lines = [line.split(None, 1) for line in first.splitlines()]
    assert ["node:", "node_1"] in lines
    assert ["level:", "WARNING"] in lines
    assert ["time:", "1970-01-01T00:00:00.500+00:00"] in lines
    assert ["message:", "a \\x1b[31m b"] in lines
    assert "3 records before it were not sent" in first
    assert "1e+300" in second
    assert "were not sent" not in second
