"""`fedbiomed demo`, as its user runs it."""

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from fedbiomed.demo import hospitals, report
from fedbiomed.demo.processes import fedbiomed
from tests.support.federation import command


@pytest.mark.timeout(180)
def test_the_demo_shows_that_federated_learning_works(tmp_path):
    out = tmp_path / "out"
    answer = command("demo", "--nodes", "2", "--rounds", "6", "--out", str(out), timeout=150)
    assert answer.returncode == 0, answer.stderr
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(results["models"]) == {"BreastCancerNetwork", "BreastCancerClassifier"}
    for name, model in results["models"].items():
        assert len(model["alone"]) == 2
        assert model["federated"]["accuracy"] >= max(0.93, max(alone["accuracy"] for alone in model["alone"]) - 0.01)
        assert model["pooled"]["roc_auc"] > 0.95
        assert len(model["federated"]["accuracy_per_round"]) == 6
        assert (out / results["resumed_from"][name]).is_dir()
    assert results["seconds"]["total"] > 0
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (out / "logs").iterdir()} == {"network.log", "hospital-a.log", "hospital-b.log"}
    assert "hospital-a alone" in answer.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_secure_aggregation_costs_no_accuracy(tmp_path):
    found = []
    for options in ((), ("--secagg",), ("--secagg", "--secagg-scheme", "joye_libert")):
        out = tmp_path / f"out{len(found)}"
        answer = command("demo", "--rounds", "4", "--out", str(out), *options, timeout=90)
        assert answer.returncode == 0, answer.stderr
        found.append(json.loads((out / "results.json").read_text(encoding="utf-8")))
    assert [(results["secagg"], results["secagg_scheme"]) for results in found] == [(False, None), (True, "lom"), (True, "joye_libert")]
    for name, model in found[0]["models"].items():
        for secure in found[1:]:
            assert abs(secure["models"][name]["federated"]["accuracy"] - model["federated"]["accuracy"]) <= 0.001


def _family(pid):
    """The processes below one that has some, or soon will."""
    never, deadline = threading.Event(), time.monotonic() + 20
    while not (found := psutil.Process(pid).children(recursive=True)):
        assert time.monotonic() < deadline
        never.wait(0.002)
    return found


@pytest.mark.parametrize("word", ["hospital-b", pytest.param("BreastCancerNetwork", marks=pytest.mark.shown)], ids=["starting", "training"])
def test_ctrl_c_ends_all_that_was_started(tmp_path, word):
    out = tmp_path / "out"
    process = subprocess.Popen(
        fedbiomed("demo", "--nodes", "2", "--rounds", "200", "--out", str(out)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stdout:
            if word in line:
                break
        family = _family(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--nodes", "1"], "--nodes must be between"),
        (["--rounds", "1"], "--rounds must be"),
        (["--secagg", "--nodes", "2"], "--secagg needs"),
        (["--secagg-scheme", "joye_libert"], "give --secagg, too"),
        (["--out", "full"], "not an empty folder"),
        (["--out", "file/out"], "cannot make"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(tmp_path, arguments, part):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "file").touch()
    answer = command("demo", *arguments, cwd=tmp_path)
    assert answer.returncode == 1
    assert part in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def models(federated: float) -> dict[str, object]:
    return {"m": {"alone": [{"accuracy": 0.94}, {"accuracy": 0.95}], "federated": {"accuracy": federated}}}


def test_a_shortfall_is_said() -> None:
    assert report.shortfalls(models(0.941)) == []
    assert "best single" in report.shortfalls(models(0.939))[0]
    assert len(report.shortfalls(models(0.92))) == 2


def test_nobody_is_lost_between_the_sites(tmp_path: Path) -> None:
    sites = hospitals.write_sites(tmp_path, 3)
    assert sum(site.patients for site in sites.hospitals) + len(sites.held_out) == 569
    assert [site.patients for site in sites.hospitals] == sorted((site.patients for site in sites.hospitals), reverse=True)
    rates = [site.malignant / site.patients for site in sites.hospitals]
    assert max(rates) - min(rates) > 0.3
    assert all(0 < rate < 1 for rate in rates)


def test_published_ranges_hold_for_all_patients() -> None:
    # the published table is rounded, so a value may pass it by half a unit of the last printed digit
    table = hospitals.all_patients()[list(hospitals.COLUMNS)]
    for column, lowest, highest in zip(hospitals.COLUMNS, hospitals.LOWEST, hospitals.HIGHEST, strict=True):
        assert table[column].min() >= lowest - 6e-4, column
        assert table[column].max() <= highest + 6e-4 * max(1, highest), column
