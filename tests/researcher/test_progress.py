import io
from dataclasses import replace

import pytest
from rich.console import Console

from fedbiomed.common.messages.training import TrainProgress
from fedbiomed.researcher.progress import NodeRow, Progress, duration, short

LONG = "node_12345678-90ab-cdef-1234-567890abcdef"


def progress_of(node_id, iteration, loss):
    return TrainProgress(
        request_id="request_1",
        researcher_id="researcher_1",
        node_id=node_id,
        state="running",
        phase="TRAINING",
        iteration=iteration,
        num_iterations=10,
        epoch=1,
        metrics={"Loss": loss},
    )


def played(console):
    with Progress(console=console) as progress:
        progress.begin_round(0, 2, ["node_a", LONG])
        progress.hear("node_a", "accepted")
        progress.hear("node_a", progress_of("node_a", 5, 0.75))
        progress.hear("node_a", "answered")
        progress.hear(LONG, "left out")
        progress.end_round({"node_a": 0.5}, {LONG: "the [red]plan[/red] is \x1b[31mnot approved"})
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal():
    text = played(Console(file=io.StringIO(), width=300))
    assert text.count("\n") == 1
    assert text.startswith("round 1 of 2: 1 of 2 nodes in ")
    assert "mean loss 0.5" in text
    assert f"left out {short(LONG)}: the [red]plan[/red] is \\x1b[31mnot approved" in text
    assert "\x1b" not in text


def test_a_table_in_a_terminal():
    text = played(Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None))
    for part in ("node_a", "5/10", "0.5", "answered", "left out: the [red]plan[/red]", "round 1 of 2"):
        assert part in text
    assert "\x1b[31m" not in text, "what a node tells does not steer the terminal"


def test_nothing_where_nothing_is_wanted():
    console = Console(file=io.StringIO())
    with Progress(is_shown=False, console=console) as progress:
        progress.begin_round(0, None, ["node_a"])
        progress.hear("node_a", "answered")
        progress.end_round({}, {})
    assert console.file.getvalue() == ""


def interrupted(console):
    with Progress(console=console) as progress:
        progress.begin_round(0, None, ["node_a"])
        raise KeyboardInterrupt


def test_the_display_ends_with_an_error():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyboardInterrupt):
        interrupted(console)
    played(console)  # a display that had not ended would refuse a second one


def test_a_node_nobody_announced_is_shown_too():
    console = Console(file=io.StringIO(), width=200)
    with Progress(console=console) as progress:
        progress.begin_round(3, None, [])
        progress.hear("node_b", "answered")
        progress.end_round({}, {})
    assert console.file.getvalue().startswith("round 4: 1 of 1 nodes")


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def told(iteration, *, of=100, phase="TRAINING"):
    news = progress_of("node_a", iteration, 0.5)
    return replace(news, num_iterations=of, phase=phase, samples=8 * iteration, num_samples=8 * of)


def test_how_long_it_will_take_by_the_pace_of_the_node():
    clock = Clock()
    row = NodeRow(clock)
    clock.now = 10.0  # imports, data
    row.take(told(20))
    assert row.left_s == pytest.approx(40.0), "only one report: 20 of 100 in the 10 s since the order, 80 to come"
    clock.now = 15.0
    assert row.left_s == pytest.approx(35.0)
    row.take(told(40))
    assert row.left_s == pytest.approx(15.0), "20 in 5 s, 60 to come"
    assert (row.left_text, row.samples_done) == ("15 s", "320/800")
    clock.now = 60.0
    assert row.left_s == 0.0, "never less than nothing"
    row.take(told(1, of=2, phase="VALIDATION ON LOCAL UPDATES"))
    row.take(told(2, of=2, phase="VALIDATION ON LOCAL UPDATES"))
    assert row.left_s == 0.0
    row.end()
    assert row.left_s is None
    assert row.left_text == ""


def test_nothing_is_said_of_what_cannot_be_known():
    row = NodeRow(Clock())
    assert row.left_s is None
    row.take(replace(progress_of("node_a", 0, 0.5), num_iterations=0))
    assert row.left_s is None
    assert row.samples_done == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (0.2, "1 s"), (59.0, "59 s"), (60.0, "1 min 00 s"), (125.0, "2 min 05 s"), (3725.0, "1 h 02 min")]
)
def test_a_duration_in_words(seconds, text):
    assert duration(seconds) == text


def heard(console, clock):
    with Progress(console=console, clock=clock) as progress:
        progress.begin_round(0, 2, ["node_a", "node_b"])
        clock.now = 20.0
        progress.hear("node_a", told(20))
        progress.hear("node_b", "accepted")
    return console.file.getvalue()


def test_samples_and_what_is_left_in_lines():
    text = heard(Console(file=io.StringIO(), width=200), Clock())
    assert text == "round 1 of 2, about 1 min 20 s left: node_a running training 20/100 160/800 samples 0.5 1 min 20 s left; node_b asked\n"


def test_samples_and_what_is_left_in_a_table():
    text = heard(Console(file=io.StringIO(), force_terminal=True, width=150, color_system=None), Clock())
    for part in ("round 1 of 2, about 1 min 20 s left", "160/800", "1 min 20 s", "accepted"):
        assert part in text
