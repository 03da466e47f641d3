import io

import pytest
from rich.console import Console

from fedbiomed.common.messages.training import TrainProgress
from fedbiomed.researcher.progress import Progress, short

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
