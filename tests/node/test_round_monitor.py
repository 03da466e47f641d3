"""What a plan reports: all of it while it is little, the ends and some between when it is much."""

import itertools
import json
import math

import pytest

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import WorkerError
from fedbiomed.node.round_monitor import RoundMonitor, samples_to_go_over, thinned
from fedbiomed.node.task import RoundReport, RoundResult, from_bytes, to_bytes


def add(monitor, iteration, *, metric=None, train=True, on_global=False):
    monitor.add_scalar(
        metric=metric or {"Loss": float(iteration)},
        iteration=iteration,
        epoch=1 if train else None,
        train=train,
        test=not train,
        test_on_local_updates=not train and not on_global,
        test_on_global_updates=on_global,
        total_samples=100,
        batch_samples=10,
        num_batches=10,
    )


def test_points_come_in_their_order_with_their_phase():
    monitor = RoundMonitor(lambda _report: None)
    add(monitor, 1, metric={"ACCURACY": 0.5}, train=False, on_global=True)
    add(monitor, 1)
    add(monitor, 2)
    add(monitor, 1, metric={"ACCURACY": 0.75}, train=False)
    assert monitor.points() == (
        {"phase": Phase.TEST_GLOBAL.value, "metric": "ACCURACY", "value": 0.5, "iteration": 1, "epoch": None},
        {"phase": Phase.TRAINING.value, "metric": "Loss", "value": 1.0, "iteration": 1, "epoch": 1},
        {"phase": Phase.TRAINING.value, "metric": "Loss", "value": 2.0, "iteration": 2, "epoch": 1},
        {"phase": Phase.TEST_LOCAL.value, "metric": "ACCURACY", "value": 0.75, "iteration": 1, "epoch": None},
    )


def test_a_value_that_json_has_no_word_for_is_text():
    monitor = RoundMonitor(lambda _report: None)
    for iteration, value in enumerate((math.nan, math.inf, -math.inf)):
        add(monitor, iteration, metric={"Loss": value})
    assert [point["value"] for point in monitor.points()] == ["nan", "inf", "-inf"]


def test_many_points_are_thinned_to_a_message():
    monitor = RoundMonitor(lambda _report: None)
    add(monitor, 1, metric={"ACCURACY": 0.5}, train=False, on_global=True)
    for iteration in range(50_000):
        add(monitor, iteration)
    points = monitor.points()
    losses = [point["value"] for point in points if point["metric"] == "Loss"]
    assert len(json.dumps(points)) <= 60_000
    assert points[0]["metric"] == "ACCURACY"
    assert losses[0] == 0.0
    assert losses[-1] == 49_999.0
    assert losses == sorted(losses)
    assert len(losses) > 100
    gaps = [after - before for before, after in itertools.pairwise(losses)]
    assert max(gaps) < 20 * 50_000 / len(losses)


def test_more_metrics_than_fit():
    points = [{"phase": "TRAINING", "metric": f"Custom_{i}", "value": 1.0, "iteration": 1, "epoch": 1} for i in range(5000)]
    kept = thinned(points, 10_000)
    assert 0 < len(json.dumps(kept, separators=(",", ":"))) <= 10_000
    assert thinned([], 10) == ()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"failed","content":3}',
        b'{"kind":"other","content":{}}',
        b'{"kind":"result","content":{}}',
        b'{"kind":"result","content":{"sample_size":-1,"msg":"","timing":{},"metrics":[]}}',
        b'{"kind":"result","content":{"sample_size":1,"msg":"","timing":{"t":NaN},"metrics":[]}}',
        b'{"kind":"result","content":{"sample_size":1,"msg":"","timing":{},"metrics":[3]}}',
        b'{"kind":"progress","content":{"phase":"X","iteration":1,"num_iterations":1,"epoch":1,"metrics":{}}}',
        b'{"kind":"progress","content":{"phase":"TRAINING","iteration":1,"num_iterations":1,"epoch":1,"metrics":{"a":"b"}}}',
        b"[" * 100_000,
    ],
)
def test_what_a_training_process_says_is_not_trusted(frame):
    with pytest.raises(WorkerError, match="nonsense"):
        from_bytes(frame)


def test_frames_go_there_and_back():
    result = RoundResult(sample_size=1, msg="m", timing={"rtime_training": 0.5}, metrics=({"value": 1.0},))
    report = RoundReport(phase="TRAINING", iteration=1, num_iterations=2, epoch=None, metrics={"Loss": 1.0})
    assert from_bytes(to_bytes("result", result)) == result
    assert from_bytes(to_bytes("progress", report)) == report
    assert from_bytes(to_bytes("failed", "why")) == "why"


def test_progress_counts_over_all_epochs():
    reports = []
    seconds = iter([0.0, 10.0, 10.0, 10.5])
    monitor = RoundMonitor(reports.append, epochs=3, clock=lambda: next(seconds))
    monitor.add_scalar(
        metric={"Loss": 1.0, "Bad": math.inf},
        iteration=4,
        epoch=2,
        train=True,
        test=False,
        test_on_local_updates=False,
        test_on_global_updates=False,
        total_samples=100,
        batch_samples=10,
        num_batches=10,
    )
    add(monitor, 5)
    assert reports == [RoundReport(phase="TRAINING", iteration=14, num_iterations=30, epoch=2, metrics={"Loss": 1.0})]


@pytest.mark.parametrize(
    ("total", "batch", "batches", "expected"),
    [
        (24, 8, 3, 24),  # one epoch
        (25, 8, 4, 25),  # the last batch holds 1
        (25, 8, 2, 16),  # capped by batch_maxnum
        (25, 8, 6, 41),  # updates: 25 in one pass of four, then two whole batches
        (5, 8, 3, 15),  # each batch holds all
    ],
)
def test_samples_to_go_over(total, batch, batches, expected):
    assert samples_to_go_over(total, batch, batches) == expected


def test_progress_counts_samples_over_all_epochs():
    reports = []
    seconds = iter([0.0, 0.5, 10.0, 10.0])
    monitor = RoundMonitor(reports.append, epochs=3, clock=lambda: next(seconds))
    common = {"epoch": 2, "train": True, "test": False, "test_on_local_updates": False, "test_on_global_updates": False}
    for iteration, (size, done) in {1: (10, 10), 2: (5, 15)}.items():
        monitor.add_scalar(
            metric={"Loss": 1.0},
            iteration=iteration,
            total_samples=15,
            batch_samples=size,
            num_batches=2,
            num_samples_trained=done,
            **common,
        )
    assert [(report.samples, report.num_samples) for report in reports] == [(30, 45)]
