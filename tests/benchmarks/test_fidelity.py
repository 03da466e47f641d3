"""Published results: the shortest part of `scripts/bench fidelity`, and what it says when data are missing."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from benchmarks import fidelity
from benchmarks.published import feddc, heart, synthetic, synthetic_steps
from benchmarks.published.findings import Finding, largest_gap, near, table
from benchmarks.published.nodes_here import nodes_here
from benchmarks.published.synthetic_devices import Softmax, asked
from fedbiomed.common.data import fedprox_synthetic
from fedbiomed.researcher.events import DaisyChainTrainer
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


@pytest.mark.parametrize("name", ["mu 0", "mu 1, 90 % stragglers kept", "mu 0, 90 % stragglers dropped"])
def test_stacked_steps_are_those_of_nodes(small_devices, devices_here, name):
    variant = synthetic.UNLIKE[name]
    beside = synthetic_steps.stacked(small_devices, [variant], seed=3, rounds=2)[:, 0]
    assert np.abs(synthetic.through_rounds(devices_here, variant, seed=3, rounds=2) - beside).max() < 1e-12
    assert np.abs(beside[1] - beside[0]).max() > 1e-3


@pytest.fixture(scope="module")
def small_devices():
    """12 to 20 samples each, of which four fifths are for training: one or two batches."""
    return fedprox_synthetic(1, 1, sizes=[12 + number % 9 for number in range(30)], seed=2)


@pytest.fixture(scope="module")
def devices_here(small_devices, tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    with nodes_here(folder / "federation", synthetic.written(folder / "data", small_devices)) as nodes:
        yield nodes


@pytest.mark.parametrize("period", [0, 1])
def test_stacked_models_are_those_of_nodes(period, tmp_path):
    # averaged after rounds 1 and 3, and at the end, after round 4
    (inputs, labels), _ = feddc.example()
    shares = inputs[:4], labels[:4]
    beside = feddc.stacked(DaisyChainTrainer(period, 2, seed=1), shares, seed=1, rounds=5)
    with nodes_here(tmp_path / "federation", feddc.written(tmp_path / "data", shares)) as nodes:
        real = feddc.through_rounds(nodes, DaisyChainTrainer(period, 2, seed=1), seed=1, rounds=5)
        assert nodes.rounds.count == 4 * 5
    assert list(real) == list(beside) == [1, 3, 4]
    assert max(largest_gap(real[round_], beside[round_]) for round_ in real) < 1e-12
    assert largest_gap(beside[1], beside[3]) > 1e-3


def test_a_straggler_stops_after_its_steps():
    (device,) = fedprox_synthetic(1, 1, nodes=1, sizes=[20], seed=2)
    rows = np.hstack([device[0], np.ones((20, 1))]).astype(float), np.eye(10)[device[1]]
    batches, begun = Softmax.batches(20, [0], 20), np.zeros((2, 61, 10))
    full, part = synthetic_steps.local_steps(begun, rows, batches, np.zeros(2), np.array([40, 3]))
    (short,) = synthetic_steps.local_steps(begun[:1], rows, batches[:3], np.zeros(1), np.array([3]))
    assert np.allclose(part, short, rtol=1e-12)
    assert not np.allclose(full, part)


def test_all_variants_meet_the_same_devices_and_nine_of_ten_are_slow():
    whole, slow = (asked(1, 7, share) for share in (0.0, 0.9))
    assert [(part.device, part.draw) for part in whole] == [(part.device, part.draw) for part in slow]
    assert len({part.device for part in whole}) == 10
    assert {part.epochs for part in whole} == {20}
    assert [part.is_slow for part in slow].count(True) == 9
    assert all(1 <= part.epochs <= 19 for part in slow if part.is_slow)


def test_a_number_is_judged_by_its_band():
    assert near("a", 78.4, 74.8, 3.6000001).within
    assert not near("a", 78.5, 74.8, 3.6).within
    assert not Finding(name="a", found=math.nan).within
    assert "OUTSIDE" in table("t", [near("a", 80.0, 74.8, 3.6)])
    assert "own band" not in table("t", [near("a", 80.0, 74.8, 3.6)])


def test_a_table_says_which_bands_are_ours_and_what_was_shortened():
    lines = table("t", [near("a", 75.0, 74.8, 3.6, is_own_band=True)], "5 of 50 rounds").splitlines()
    assert lines[-2].endswith("ok (own band)")
    assert lines[-1] == "  form: 5 of 50 rounds"


def test_a_number_outside_of_its_band_shows_in_the_exit_code():
    good, bad = near("a", 75.0, 74.8, 3.6), near("b", 80.0, 74.8, 3.6)
    reports = [{"feddc": fidelity.entry("feddc", findings, {})} for findings in ([good], [good, bad])]
    assert [fidelity.exit_code(report) for report in (*reports, {})] == [0, 1, 2]


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
