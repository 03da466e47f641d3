"""Files that follow an experiment round by round."""

import csv
import json
import math
import signal
import subprocess
import sys

import pytest

from fedbiomed.common.constants import Phase
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.monitor import Monitor
from fedbiomed.researcher.reporters import CsvReporter, JsonReporter

_DIES_IN_ROUND_3 = """
import os, signal, sys
from pathlib import Path
from tests.researcher.test_reporters import reported
for round_, _ in enumerate(reported(Path(sys.argv[1]), 3)):
    if round_ == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def points(round_):
    """Node a tells two losses, node b one; in the second round only a is there."""
    told = [("a", 1, 0.5), ("a", 2, 0.25 + round_), ("b", 2, 0.75)]
    return [
        Point(round_, node, "d", Phase.TRAINING, "Loss", value, iteration, 1)
        for node, iteration, value in told
        if node == "a" or round_ != 1
    ]


def reported(folder, rounds):
    """Report rounds to two files; yields after each."""
    monitor = Monitor()
    monitor.add_reporter(JsonReporter(folder / "new" / "metrics.json", run_id="x"))
    monitor.add_reporter(CsvReporter(folder / "metrics.csv"))
    for round_ in range(rounds):
        yield monitor.set_round(round_, points(round_), folder)


def test_several_reporters_hear_of_each_round(tmp_path):
    list(reported(tmp_path, 2))
    report = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert report["run_id"] == "x"
    # round 1: last losses .25 and .75, mean .5; round 2: a alone told 1.25
    assert report["rounds"]["1"]["mean"] == {"training": {"Loss": 0.5}}
    assert report["rounds"]["2"] == {"a": {"training": {"Loss": 1.25}}, "mean": {"training": {"Loss": 1.25}}}
    assert [(row["round"], row["node"], float(row["value"])) for row in rows(tmp_path / "metrics.csv")] == [
        ("1", "a", 0.25), ("1", "b", 0.75), ("1", "mean", 0.5), ("2", "a", 1.25), ("2", "mean", 1.25),
    ]  # fmt: skip


def test_a_process_that_is_killed_after_two_of_three_rounds_leaves_two(tmp_path):
    dead = subprocess.run([sys.executable, "-c", _DIES_IN_ROUND_3, str(tmp_path)], capture_output=True, timeout=60, check=False)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert list(json.loads((tmp_path / "new" / "metrics.json").read_text())["rounds"]) == ["1", "2"]
    assert {row["round"] for row in rows(tmp_path / "metrics.csv")} == {"1", "2"}


def test_what_is_no_number_is_text_in_json(tmp_path):
    monitor = Monitor()
    monitor.add_reporter(JsonReporter(tmp_path / "m.json"))
    monitor.set_round(0, [Point(0, "a", "d", Phase.TRAINING, "Loss", math.nan, 1, 1)], tmp_path)
    assert json.loads((tmp_path / "m.json").read_text())["rounds"]["1"]["a"]["training"]["Loss"] == "nan"


def test_a_reporter_that_cannot_write_does_not_keep_the_others_from_it(tmp_path, caplog):
    (tmp_path / "file").touch()
    monitor = Monitor()
    monitor.add_reporter(JsonReporter(tmp_path / "file" / "m.json"))
    monitor.add_reporter(CsvReporter(tmp_path / "m.csv"))
    monitor.set_round(0, points(0), tmp_path)
    assert (tmp_path / "m.csv").exists()
    assert "JsonReporter cannot write" in caplog.text


def test_one_that_comes_later_hears_of_the_rounds_before(tmp_path):
    monitor = Monitor()
    monitor.set_round(0, points(0), tmp_path)
    monitor.add_reporter(CsvReporter(tmp_path / "m.csv"))
    monitor.set_round(1, points(1), tmp_path)
    assert {row["round"] for row in rows(tmp_path / "m.csv")} == {"1", "2"}


@pytest.mark.parametrize("round_", [0, 1])
def test_a_round_told_again_replaces_itself_and_later_ones(tmp_path, round_):
    monitor = Monitor()
    monitor.add_reporter(CsvReporter(tmp_path / "m.csv"))
    for told in (0, 1, round_):
        monitor.set_round(told, points(told), tmp_path)
    assert {row["round"] for row in rows(tmp_path / "m.csv")} == {str(r + 1) for r in range(round_ + 1)}
