"""What the nodes reported: the store, its files and TensorBoard's, over real nodes and transports in memory."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.monitor import MetricStore, Monitor
from fedbiomed.researcher.tensorboard import EventFiles
from tests.support.plans import LinePlan

# node_0 has 30 rows, 6 of them to test on: 24 / 8 = 3 batches per epoch, all of them reported; node_1 has 40: 32 / 8 = 4.
ARGS = {
    "epochs": 2,
    "log_interval": 1,
    "loader_args": {"batch_size": 8},
    "random_seed": 7,
    "test_ratio": 0.2,
    "test_on_local_updates": True,
    "test_on_global_updates": True,
    "test_metric": "MEAN_SQUARE_ERROR",
}
BATCHES = {"node_0": 6, "node_1": 8}
PHASES = {
    "training": "TRAINING/Loss",
    "testing_global_updates": "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR",
    "testing_local_updates": "VALIDATION ON LOCAL UPDATES/MEAN_SQUARE_ERROR",
}


@pytest.fixture
def runs(requests):
    """Where TensorBoard looks."""
    return requests.connection.config.root / "runs"


EXPERIMENT = {"training_plan_class": LinePlan, "training_args": ARGS}


def curves(folder):
    """Steps and values by tag, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: ([e.step for e in accumulator.Scalars(tag)], [e.value for e in accumulator.Scalars(tag)]) for tag in tags}


def point(value, *, round_=0, iteration=1, epoch=1, node="node_a", phase="TRAINING", metric="Loss"):
    return Point(round=round_, node=node, dataset="d", phase=phase, metric=metric, value=value, iteration=iteration, epoch=epoch)


def test_the_store_has_the_shape_that_notebooks_know(made):
    experiment = made()
    experiment.run(rounds=2)
    store = experiment.monitor()._metric_store
    assert isinstance(store, dict)
    assert set(store) == set(BATCHES)
    for node, batches in BATCHES.items():
        assert set(store[node]) == set(PHASES)
        assert set(store[node]["training"]) == {"Loss"}
        for entry in (store[node]["training"]["Loss"][round_] for round_ in (1, 2)):
            assert entry["iterations"] == list(range(1, batches + 1)), "counted on over the epochs"
            assert [type(value) for value in entry["values"]] == [float] * batches
        for phase in ("testing_global_updates", "testing_local_updates"):
            assert {r: entry["iterations"] for r, entry in store[node][phase]["MEAN_SQUARE_ERROR"].items()} == {1: [1], 2: [1]}


def test_the_values_are_those_of_the_history(made):
    experiment = made()
    experiment.run(rounds=2)
    points = experiment.history_points()
    for node, phases in experiment.monitor()._metric_store.items():
        for phase, label in PHASES.items():
            for round_, entry in phases[phase][label.partition("/")[2]].items():
                wanted = points[(points.node == node) & (points.metric == label) & (points["round"] == round_ - 1)]
                assert entry["values"] == wanted.value.tolist()


def test_two_experiments_do_not_mix(made):
    one, other = made(nodes=["node_0"]), made(nodes=["node_0"])
    one.run_once()
    other.run(rounds=2)
    assert set(one.monitor()._metric_store["node_0"]["training"]["Loss"]) == {1}
    assert set(other.monitor()._metric_store["node_0"]["training"]["Loss"]) == {1, 2}


def test_what_is_told_twice_counts_once():
    store = MetricStore()
    told = [point(3.0), point(2.0, iteration=2), point(1.0, epoch=2)]
    store.set_round(0, [*told, *told])
    assert store["node_a"]["training"]["Loss"] == {1: {"iterations": [1, 2, 3], "values": [3.0, 2.0, 1.0]}}
    store.set_round(0, told)
    assert store["node_a"]["training"]["Loss"][1]["values"] == [3.0, 2.0, 1.0]


def test_a_round_takes_the_place_of_what_stood_there_and_after():
    store = MetricStore()
    for round_ in range(3):
        store.set_round(round_, [point(1.0 + round_, round_=round_), point(0.5, round_=round_, metric="Other")])
    store.set_round(1, [point(9.0, round_=1)])
    assert {r: entry["values"] for r, entry in store["node_a"]["training"]["Loss"].items()} == {1: [1.0], 2: [9.0]}
    assert set(store["node_a"]["training"]["Other"]) == {1}
    store.set_round(0, ())
    assert store == {"node_a": {phase: {} for phase in PHASES}}


def test_thinned_reports_keep_their_place_among_the_epochs():
    # three epochs of ten batches, of which four reports were kept; the last one always is
    store = MetricStore()
    store.set_round(0, [point(4.0), point(3.0, iteration=7), point(2.0, epoch=2, iteration=4), point(1.0, epoch=3, iteration=10)])
    assert store["node_a"]["training"]["Loss"][1]["iterations"] == [1, 7, 14, 30]


def test_the_files_hold_what_the_store_holds(made):
    experiment = made(round_limit=2)
    folder = Path(experiment.experimentation_path())
    for rounds in (1, 2):
        experiment.run(rounds=1)
        store = experiment.monitor()._metric_store
        assert json.loads((folder / "monitor.json").read_text()) == json.loads(json.dumps(store))
        assert from_csv(folder / "monitor.csv") == store
        assert {int(row["round"]) for row in rows_of(folder / "monitor.csv")} == set(range(1, rounds + 1 + (rounds == 2)))
    losses = [row for row in rows_of(folder / "monitor.csv") if row["node"] == "node_0" and row["phase"] == "training"]
    assert [int(row["step"]) for row in losses] == list(range(1, 13))
    assert not list(folder.glob(".monitor*")), "no half-written file stays"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def from_csv(path):
    store = {}
    for row in rows_of(path):
        phases = store.setdefault(row["node"], {phase: {} for phase in PHASES})
        entry = phases[row["phase"]].setdefault(row["metric"], {}).setdefault(int(row["round"]), {"iterations": [], "values": []})
        entry["iterations"].append(int(row["iteration"]))
        entry["values"].append(float(row["value"]))
    return store


def test_values_that_json_has_no_word_for(tmp_path):
    monitor = Monitor()
    monitor.set_round(0, [point(math.nan), point(math.inf, iteration=2)], tmp_path)
    assert json.loads((tmp_path / "monitor.json").read_text())["node_a"]["training"]["Loss"]["1"]["values"] == ["nan", "inf"]
    assert [row["value"] for row in rows_of(tmp_path / "monitor.csv")] == ["nan", "inf"]


def test_a_disk_that_refuses_does_not_end_the_experiment(tmp_path, caplog):
    (tmp_path / "file").touch()
    monitor = Monitor(EventFiles(tmp_path / "file"))
    monitor.set_round(0, [point(1.0)], tmp_path, tensorboard=True)
    monitor.set_round(1, [point(1.0, round_=1)], tmp_path / "nowhere")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert set(monitor._metric_store["node_a"]["training"]["Loss"]) == {1, 2}


def test_tensorboard_reads_what_the_store_holds(made, runs):
    experiment = made(tensorboard=True, round_limit=2)
    experiment.run()
    store = experiment.monitor()._metric_store
    assert {path.name for path in runs.iterdir()} == set(BATCHES)
    for node, batches in BATCHES.items():
        shown = curves(runs / node)
        assert set(shown) == set(PHASES.values())
        assert shown["TRAINING/Loss"][0] == list(range(1, 2 * batches + 1))
        assert shown[PHASES["testing_global_updates"]][0] == [1, 2, 3], "the validation after the last round too"
        assert shown[PHASES["testing_local_updates"]][0] == [1, 2]
        for phase, tag in PHASES.items():
            values = [value for entry in store[node][phase][tag.partition("/")[2]].values() for value in entry["values"]]
            assert shown[tag][1] == pytest.approx(values, rel=1e-6)
    experiment.run(rounds=1, increase=True)
    assert curves(runs / "node_0")[PHASES["testing_global_updates"]][0] == [1, 2, 3, 4], "no step is there twice"


def test_the_folder_is_the_one_that_was_set_when_the_experiment_was_made(made, requests, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("FBM_TENSORBOARD_DIR", str(tmp_path / "first"))
    first = made(nodes=["node_0"], tensorboard=True)
    monkeypatch.setenv("FBM_TENSORBOARD_DIR", "second")  # relative: below the researcher's folder
    second = made(nodes=["node_0"], tensorboard=True)
    first.run_once()
    second.run_once()
    for folder in (tmp_path / "first", requests.connection.config.root / "second"):
        assert curves(folder / "node_0")["TRAINING/Loss"][0] == list(range(1, 7))
    assert not runs.exists()


def test_tensorboard_is_switched_between_rounds(made, runs):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    assert not runs.exists()
    assert experiment.set_tensorboard(True) is True
    experiment.run_once()
    assert experiment.set_tensorboard(False) is False
    experiment.run_once()
    experiment.set_tensorboard(True)
    experiment.run_once()
    assert curves(runs / "node_0")["TRAINING/Loss"][0] == [*range(7, 13), *range(19, 25)]


def test_a_new_experiment_removes_the_earlier_event_files_and_nothing_else(made, runs):
    made(tensorboard=True).run_once()
    foreign = [runs / "node_0" / "notes.txt", runs / "mine" / "events.out.tfevents.1.host", runs / "README"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    experiment = made()
    assert sorted(path for path in runs.rglob("*") if path.is_file()) == sorted(foreign)
    assert not (runs / "node_1").exists()
    experiment.set_tensorboard(True)
    experiment.run_once()
    assert curves(runs / "node_1")["TRAINING/Loss"][0] == list(range(1, 9))


def test_an_experiment_whose_files_were_removed_meanwhile_begins_new_ones(made, runs):
    one = made(nodes=["node_0"], tensorboard=True)
    one.run_once()
    made()
    one.run_once()
    assert curves(runs / "node_0")["TRAINING/Loss"][0] == list(range(7, 13))


def test_an_experiment_that_cannot_be_made_removes_nothing(made, runs):
    made(tensorboard=True).run_once()
    before = sorted(runs.rglob("*"))
    with pytest.raises(Exception, match="round_limit"):
        made(round_limit=-1)
    assert sorted(runs.rglob("*")) == before


def test_a_resumed_experiment_goes_on_counting(made, requests, runs):
    made(save_breakpoints=True, tensorboard=True).run(rounds=2)
    resumed = Experiment.load_breakpoint(requests=requests, show_progress=False)
    assert set(resumed.monitor()._metric_store["node_0"]["training"]["Loss"]) == {1, 2}
    resumed.set_tensorboard(True)
    resumed.run(rounds=1)
    unbroken = made()
    unbroken.run(rounds=3)
    store = resumed.monitor()._metric_store
    assert store.keys() == unbroken.monitor()._metric_store.keys()
    shapes = [{r: e["iterations"] for r, e in s["node_1"]["training"]["Loss"].items()} for s in (store, unbroken.monitor()._metric_store)]
    assert shapes[0] == shapes[1]
    assert from_csv(Path(resumed.experimentation_path()) / "monitor.csv") == store


def test_tensorboard_shows_a_resumed_experiment_from_its_first_round(made, requests, runs):
    made(nodes=["node_0"], save_breakpoints=True).run(rounds=2)
    resumed = Experiment.load_breakpoint(requests=requests, show_progress=False)
    resumed.set_tensorboard(True)
    resumed.run(rounds=1)
    assert curves(runs / "node_0")["TRAINING/Loss"][0] == list(range(1, 19))


def test_without_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from fedbiomed.researcher.experiment import Experiment\n"
        "experiment = Experiment()\n"
        "assert experiment.set_tensorboard(False) is False\n"
        "try:\n    experiment.set_tensorboard(True)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert answer.stdout.startswith("FedbiomedExperimentError FB410")
    assert "pip install 'fedbiomed[tensorboard]'" in answer.stdout


def test_nothing_of_torch_is_needed_to_write_events(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from fedbiomed.researcher.tensorboard import EventFiles, Scalar, require\n"
        "require(); EventFiles(pathlib.Path(sys.argv[1])).write([Scalar('node_a', 'TRAINING/Loss', 1, 0.5)])\n"
        "sys.exit(str({'torch', 'tensorflow'} & set(sys.modules) or '') or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=True)
    assert curves(tmp_path / "node_a") == {"TRAINING/Loss": ([1], [0.5])}
