"""Rounds with differential privacy over real nodes: what they cost is counted on the nodes, told, and kept to budgets."""

import json

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from fedbiomed.common.exceptions import FedbiomedDPControllerError, FedbiomedExperimentError
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.privacy_ledger import Budget, PrivacyLedger
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.experiment import Experiment
from tests.support.memory_federation import TAGS, memory_federation
from tests.support.node_cli import refused, told, told_json
from tests.support.orders import train_request
from tests.support.plans import KeepingPlan, LinePlan, SidePlan

LOCAL = {"type": "local", "sigma": 2.0, "clip": 1.0, "delta": 1e-3}
ARGS = {"num_updates": 6, "loader_args": {"batch_size": 10}, "random_seed": 7, "dp_args": LOCAL}


@pytest.fixture(scope="module")
def federation(tmp_path_factory, shared_worker):
    """Nodes of 30 and 40 rows."""
    with memory_federation(tmp_path_factory.mktemp("private"), 2, shared_worker) as started:
        yield started


@pytest.fixture
def made(federation, tmp_path):
    """Makes experiments on these nodes."""
    with federation.researcher(tmp_path / "researcher", idle_timeout_s=20.0) as requests:

        def make(**changes):
            given = {"tags": TAGS, "training_plan_class": LinePlan, "training_args": ARGS, "requests": requests, "show_progress": False}
            return Experiment(**{**given, **changes})

        yield make


@pytest.fixture
def budget(federation):
    """Sets the budget of node_1's dataset for the length of a test."""
    with NodeStore(federation.root / "node_1" / "var" / "node.sqlite") as store:
        dataset_id, ledger = DatasetRegistry(store).all()[0]["dataset_id"], PrivacyLedger(store)
        yield lambda epsilon, delta=1e-3: ledger.set_budget(dataset_id, Budget(epsilon, delta))
        ledger.set_budget(dataset_id, None)


def expected(rows, rounds, *, steps=6, delta=1e-3, sigma=2.0):
    """Epsilon by the library: batches of 10 on average, as many to a pass as a plain loader has."""
    event = PoissonSampledDpEvent(1 / -(-rows // 10), GaussianDpEvent(sigma))
    return RdpAccountant().compose(event, rounds * steps).get_epsilon(delta)


def epsilons(experiment, node_id):
    table = experiment.history
    return list(table[(table["node"] == node_id) & (table["metric"] == "TRAINING/epsilon")]["value"])


def test_epsilon_is_counted_by_the_nodes_and_told(made, capsys):
    experiment = made(training_args={**ARGS, "random_seed": None})
    experiment.run(rounds=2)
    for node_id, rows in (("node_0", 30), ("node_1", 40)):
        assert epsilons(experiment, node_id) == pytest.approx([expected(rows, 1), expected(rows, 2)])
        (reply,) = [reply for reply in experiment.training_replies()[1] if reply["node_id"] == node_id]
        cost = {"sample_rate": 1 / (rows // 10), "noise_multiplier": 2.0, "steps": 6, "delta": 1e-3}
        assert reply["privacy"] == pytest.approx({**cost, "epsilon": expected(rows, 2)})
        assert reply["msg"] == ""
    stored = experiment.monitor()._metric_store["node_1"]["training"]["epsilon"][2]
    assert stored == {"iterations": [6], "values": pytest.approx([expected(40, 2)])}
    experiment.info()
    shown = capsys.readouterr().out
    assert f"node_1: epsilon {expected(40, 2):.4g} after round 1" in shown
    assert "type local, sigma 2.0, clip 1.0, delta 0.001" in shown
    assert list(experiment.aggregated_params()[1]["params"])[2:4] == ["2.weight", "2.bias"]


def test_what_was_spent_survives_a_restart_of_the_node(tmp_path, shared_worker):
    with memory_federation(tmp_path, 0, shared_worker) as federation, federation.researcher(tmp_path / "researcher") as requests:
        with federation.node(0):
            experiment = Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=ARGS, requests=requests, show_progress=False)
            experiment.run(rounds=1)
        with federation.node(0, is_new=False):
            experiment.run(rounds=1)
        assert epsilons(experiment, "node_0") == pytest.approx([expected(30, 1), expected(30, 2)])
        (reply, *_) = experiment.training_replies()[1]
        assert "random_seed makes the noise repeatable" in reply["msg"]


def test_the_researcher_s_budget_ends_an_experiment_before_it_is_passed(made):
    limit = (expected(30, 2) + expected(30, 3)) / 2  # node_0, which has fewer rows, spends faster
    experiment = made(training_args={**ARGS, "dp_args": {**LOCAL, "epsilon_budget": limit}})
    experiment.run(rounds=2)
    before = experiment.aggregated_params()
    with pytest.raises(FedbiomedExperimentError, match=r"node_0: FB616(?s:.)*round 2 is not begun(?s:.)*epsilon_budget of dp_args"):
        experiment.run(rounds=1)
    assert experiment.round_current() == 2
    assert experiment.aggregated_params() == before
    experiment.set_training_args({**ARGS, "dp_args": LOCAL})
    assert experiment.run(rounds=1) == 1
    assert epsilons(experiment, "node_0")[-1] == pytest.approx(expected(30, 3))


def test_the_operator_s_budget_counts_all_experiments(made, budget):
    first = made()
    budget(1e-6)
    with pytest.raises(FedbiomedExperimentError, match=r"round 0 is not begun.*this node's operator set for dataset"):
        first.run(rounds=1)
    budget(100.0)
    assert first.run(rounds=1) == 1
    # an experiment of its own begins at 0, the dataset does not
    assert epsilons(first, "node_1") == pytest.approx([expected(40, 1)])
    open_one = made(training_args={**ARGS, "dp_args": None})
    with pytest.raises(FedbiomedExperimentError, match=r"node_1: FB616.*with differential privacy only; give dp_args"):
        open_one.run(rounds=1)
    too_small = made(training_args={**ARGS, "dp_args": {**LOCAL, "sigma": 0.0}})
    with pytest.raises(FedbiomedExperimentError, match=r"to inf at delta 0.001, above 100"):
        too_small.run(rounds=1)
    too_small.set_training_args(ARGS)
    assert too_small.run(rounds=1) == 1


def test_an_order_that_is_carried_out_twice_is_entered_once(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as store:
        ledger, told_cost = PrivacyLedger(store), {"sample_rate": 0.5, "noise_multiplier": 1.0, "steps": 3}
        request = train_request("node_1", training_args={"dp_args": LOCAL})
        for _ in range(2):
            ledger.record(request, told_cost)
        ledger.record(train_request("node_1", job_id="job_2", training_args={"dp_args": LOCAL}), told_cost)
        assert [cost.steps for cost in ledger.spent("dataset_1", "job_1")] == [3]
        assert [cost.steps for cost in ledger.spent("dataset_1")] == [6]
        assert ledger.spent("dataset_2") == []


def test_a_resumed_experiment_is_equal_to_the_bit(made, tmp_path):
    args = {**ARGS, "dp_args": {"type": "central", "sigma": 0.1, "clip": 1.0}, "epochs": None}
    unbroken = made(training_args=args)
    unbroken.run(rounds=2)
    stopped = made(training_args=args, save_breakpoints=True)
    stopped.run(rounds=1)
    resumed = Experiment.load_breakpoint(stopped.experimentation_path(), stopped._requests, show_progress=False)
    resumed.run(rounds=1, increase=True)
    ends = [experiment.aggregated_params()[1]["params"] for experiment in (unbroken, resumed)]
    assert all(np.asarray(ends[0][name]).tobytes() == np.asarray(value).tobytes() for name, value in ends[1].items())
    one_release = RdpAccountant().compose(GaussianDpEvent(0.1), 2).get_epsilon(1e-5)
    assert epsilons(resumed, "node_0")[-1] == epsilons(unbroken, "node_0")[-1] == pytest.approx(one_release)


def test_noise_of_two_rounds_under_one_seed_differs(made):
    still = {**ARGS, "optimizer_args": {"lr": 0.0}, "dp_args": {"type": "central", "sigma": 1.0, "clip": 1.0}}
    experiment = made(training_args=still)
    experiment.run(rounds=2)
    first, second = (experiment.training_replies()[round_] for round_ in (0, 1))
    added = [np.asarray(reply["params"]["0.weight"]).ravel() for reply in (*first, *second)]
    starts = np.asarray(experiment.aggregated_params()[0]["params"]["0.weight"]).ravel()
    noises = [added[0], added[1], added[2] - starts, added[3] - starts]
    assert len({tuple(np.round(noise, 3)) for noise in noises}) == 4


def test_scikit_learn_plans_are_refused(made):
    with pytest.raises(FedbiomedDPControllerError, match="SidePlan is none: leave dp_args out"):
        made(training_plan_class=SidePlan, model_args={"n_features": 2, "n_classes": 2})


def test_the_operator_sets_budgets_by_a_command(tmp_path):
    site = tmp_path / "site"
    told("create", "--dir", site)
    (tmp_path / "rows.csv").write_text("x,y\n1,2\n3,4\n")
    dataset_id = told("dataset", "add", "--dir", site, "--type", "csv", "--path", tmp_path / "rows.csv", "--name", "rows", "--tags", "line")
    (row,) = json.loads(told("dataset", "budget", dataset_id, "--dir", site, "--epsilon", "3", "--delta", "1e-6", "--json"))
    assert (row["dataset_id"], row["epsilon_budget"], row["delta"], row["epsilon_spent"]) == (dataset_id, 3.0, 1e-6, 0.0)
    assert "an epsilon above 0" in refused("dataset", "budget", dataset_id, "--dir", site, "--epsilon", "-1")
    (row,) = told_json("dataset", "budget", dataset_id, "--none", "--dir", site)
    assert row["epsilon_budget"] is None


def test_a_node_s_checkpoints_go_on_after_a_restart(tmp_path, shared_worker):
    args = {**ARGS, "dp_args": {"type": "local", "sigma": 0.0, "clip": 1.0}}
    with memory_federation(tmp_path, 0, shared_worker) as federation, federation.researcher(tmp_path / "researcher") as requests:

        def experiment():
            return Experiment(tags=TAGS, training_plan_class=KeepingPlan, training_args=args, requests=requests, show_progress=False)

        with federation.node(0):
            unbroken, stopped = experiment(), experiment()
            unbroken.run(rounds=2)
            stopped.run(rounds=1)
        with federation.node(0, is_new=False):
            stopped.run(rounds=1)
        ends = [made.aggregated_params()[1]["params"] for made in (unbroken, stopped)]
        assert list(ends[0]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert all(np.asarray(ends[0][name]).tobytes() == np.asarray(value).tobytes() for name, value in ends[1].items())
        # without noise nothing is promised, and it is said so
        assert epsilons(stopped, "node_0") == [np.inf, np.inf]
        assert stopped.training_replies()[1][0]["privacy"]["epsilon"] == "inf"
        assert list((tmp_path / "node_0" / "var" / "checkpoints").glob("*/*"))
