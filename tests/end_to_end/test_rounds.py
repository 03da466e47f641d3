"""Whole rounds through real processes: training, resuming in a notebook and by command, both brokers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecureAggregation
from tests.support.brokers import running_mosquitto
from tests.support.federation import TAGS, command, running
from tests.support.node_cli import here
from tests.support.node_records import node_records
from tests.support.plans import LinePlan, SidePlan

TORCH = {
    "training_plan_class": LinePlan,
    "model_args": {},
    "training_args": {"epochs": 2, "loader_args": {"batch_size": 8}, "random_seed": 7},
}
SKLEARN = {
    "training_plan_class": SidePlan,
    "model_args": {"n_features": 2, "n_classes": 2, "loss": "log_loss"},
    "training_args": {"epochs": 2, "loader_args": {"batch_size": 8}, "random_seed": 7, "test_ratio": 0.25, "test_on_local_updates": True},
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rounds"), nodes=3) as started:
        yield started


def weights(experiment, round_):
    return {name: np.asarray(value) for name, value in experiment.aggregated_params()[round_]["params"].items()}


@pytest.mark.parametrize("what", [TORCH, SKLEARN], ids=["torch", "sklearn"])
def test_a_resumed_run_is_bit_equal_to_an_unbroken_one(federation, what):
    unbroken = Experiment(tags=TAGS, requests=federation.requests, round_limit=4, **what)
    assert unbroken.run() == 4
    broken = Experiment(tags=TAGS, requests=federation.requests, round_limit=4, save_breakpoints=True, **what)
    assert broken.run(rounds=2) == 2
    torch.manual_seed(99)  # what the process draws in between must not matter
    resumed = Experiment.load_breakpoint(f"{broken.experimentation_path()}/breakpoint_0001", requests=federation.requests)
    assert resumed.round_current() == 2
    assert resumed.run() == 2
    for round_ in range(4):
        one, other = weights(unbroken, round_), weights(resumed, round_)
        assert one.keys() == other.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one), round_
    assert not np.array_equal(*[next(iter(weights(unbroken, r).values())) for r in (2, 3)])


def test_nodes_count_by_their_samples(federation):
    experiment = Experiment(tags=TAGS, requests=federation.requests, **TORCH)
    experiment.run_once()
    replies = experiment.training_replies()[0].data()
    sizes = {reply["node_id"]: reply["sample_size"] for reply in replies}
    assert sorted(sizes.values()) == [30, 40, 50]
    expected = sum(reply["sample_size"] / 120 * reply["params"]["0.weight"].double() for reply in replies)
    np.testing.assert_allclose(experiment.aggregated_params()[0]["params"]["0.weight"], expected, rtol=1e-6)


def test_a_secure_sum_over_a_real_broker_is_the_plain_mean(federation):
    plain = Experiment(tags=TAGS, requests=federation.requests, **SKLEARN)
    secure = Experiment(tags=TAGS, requests=federation.requests, secagg=SecureAggregation(clipping_range=64), **SKLEARN)
    plain.run_once()
    secure.run_once()
    for name, value in weights(plain, 0).items():
        np.testing.assert_allclose(weights(secure, 0)[name], value, rtol=1e-9, atol=64 / 2**31)
    assert [reply["sample_size"] for reply in secure.training_replies()[0]] == [0, 0, 0]


def test_history_tells_each_node_and_metric(federation):
    what = {**SKLEARN, "training_args": {**SKLEARN["training_args"], "test_on_global_updates": True}}
    experiment = Experiment(tags=TAGS, requests=federation.requests, round_limit=2, **what)
    experiment.run()
    history = experiment.history
    assert list(history.columns) == ["round", "node", "dataset", "metric", "value"]
    assert set(history["round"]) >= {0, 1}
    assert history["node"].nunique() == 3
    assert {"VALIDATION ON LOCAL UPDATES/ACCURACY", "VALIDATION ON GLOBAL UPDATES/ACCURACY"} <= set(history["metric"])
    assert history["value"].notna().all()


def test_the_log_of_the_nodes_comes_over_the_broker(federation):
    experiment = Experiment(tags=TAGS, requests=federation.requests, **TORCH)
    with node_records() as records:
        experiment.run_once()
        for node in experiment.training_data().node_ids():
            block = next((b for b in records.seen if node in b and "is done" in b), None) or records.with_words(node, "training is done")
            assert "level:   INFO" in block


@pytest.fixture(scope="module")
def stopped(federation):
    """Folder and name of an experiment that ran one round of three."""
    experiment = Experiment(tags=TAGS, round_limit=3, save_breakpoints=True, requests=federation.requests, **TORCH)
    experiment.run(rounds=1)
    return Path(experiment.experimentation_path())


def test_the_command_resumes_to_the_limit_and_past_it_when_told(federation, stopped):
    def shown():
        answer = here("experiment", "show", stopped.name, "--dir", federation.root / "researcher", "--json")
        assert answer.returncode == 0, answer.stderr
        facts = json.loads(answer.stdout)
        return facts["round_current"], facts["round_limit"]

    answer = command("experiment", "resume", str(stopped / "breakpoint_0000"))  # whose researcher it is, the folder tells
    assert answer.returncode == 0, answer.stderr
    assert "rounds run: 2, in all: 3" in answer.stdout
    assert answer.stdout.count("\n") == 1
    assert "round 3 of 3: 3 of 3 nodes" in answer.stderr
    assert shown() == (3, 3)
    answer = here("experiment", "resume", stopped.name, "--dir", federation.root / "researcher", "--rounds", "1")
    assert "rounds run: 1, in all: 4" in answer.stdout
    assert shown() == (4, 4)


def test_a_folder_that_is_no_experiment_is_one_line_on_stderr(federation):
    answer = here("experiment", "resume", "nowhere", "--dir", federation.root / "researcher")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("fedbiomed: there is no experiment or breakpoint nowhere")
    assert len(answer.stderr.strip().splitlines()) == 1


def test_the_same_federation_runs_on_mosquitto(tmp_path):
    with running_mosquitto() as mosquitto, running(tmp_path, nodes=2, broker=f"{mosquitto.host}:{mosquitto.port}") as started:
        experiment = Experiment(tags=TAGS, requests=started.requests, round_limit=2, **TORCH)
        assert experiment.run() == 2
        assert len(experiment.training_replies()[1].data()) == 2
