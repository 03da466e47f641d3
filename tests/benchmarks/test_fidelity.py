"""Published results: the shortest part of `scripts/bench fidelity`, and what it says when data are missing."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from benchmarks import fidelity
from benchmarks.published import heart, synthetic
from benchmarks.published.findings import Finding, near, table
from fedbiomed.common.data import fedprox_synthetic
from tests.support.heart_disease import heart_disease

pytestmark = pytest.mark.shown


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small matrices on busy machines: several threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["FedAvg", "SCAFFOLD"])
def test_four_hospitals_reach_the_published_accuracy(name, tmp_path):
    hospitals = heart_disease()
    strategy = heart.STRATEGIES[name]
    params = heart.in_process(strategy, 42, heart.written(tmp_path, hospitals))
    assert near(name, heart.accuracies(params, hospitals)[-1], strategy.published[-1], strategy.width).within


def test_an_endless_stream_goes_over_all_rows_in_each_pass():
    # 10 rows in batches of 4: a pass is 4, 4, 2 rows
    plan = heart.HeartDisease()
    draw = plan.stream(10, 42, 4)
    passes = [[next(draw) for _ in range(3)] for _ in range(2)]
    assert [len(batch) for batch in passes[0]] == [4, 4, 2]
    assert all(sorted(itertools.chain(*one)) == list(range(10)) for one in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_stacked_steps_are_those_of_a_plan(mu):
    (device,) = fedprox_synthetic(1, 1, nodes=1, sizes=[25], seed=2)
    assert synthetic.gap_to_plan(device, mu, seed=3) < 1e-12


def test_a_straggler_stops_after_its_steps():
    (device,) = fedprox_synthetic(1, 1, nodes=1, sizes=[20], seed=2)
    rows = np.hstack([device[0], np.ones((20, 1))]).astype(float), np.eye(10)[device[1]]
    batches, begun = synthetic.batches_of(20, np.random.default_rng(0)), np.zeros((2, 61, 10))
    full, part = synthetic.local_steps(begun, rows, batches, np.zeros(2), np.array([40, 3]))
    (short,) = synthetic.local_steps(begun[:1], rows, batches[:3], np.zeros(1), np.array([3]))
    assert np.allclose(part, short, rtol=1e-12)
    assert not np.allclose(full, part)


def test_a_number_is_judged_by_its_band():
    assert near("a", 78.4, 74.8, 3.6000001).within
    assert not near("a", 78.5, 74.8, 3.6).within
    assert not Finding(name="a", found=math.nan).within
    assert "OUTSIDE" in table("t", [near("a", 80.0, 74.8, 3.6)])


def test_missing_data_are_named_and_nothing_passes_for_done(tmp_path, capsys):
    assert fidelity.main(["--data", str(tmp_path), "--only", "heart,mnist"]) == 2
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["within"] is False
    assert set(report["left_out"]) == {"heart", "mnist"}
    assert f"there is no folder {tmp_path / 'heart-disease'}" in said.err


def test_an_unknown_experiment_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        fidelity.main(["--data", str(tmp_path), "--only", "hart"])
    assert "there is no experiment 'hart'" in capsys.readouterr().err
