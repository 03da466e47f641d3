"""Stopping an experiment, and changing it between two rounds: the change counts, and nothing else moves."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedExperimentError, FedbiomedSecaggError
from fedbiomed.researcher.aggregators import FedAverage
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg import SecureAggregation
from tests.support.memory_federation import TAGS
from tests.support.plans import LinePlan, SidePlan, SlowPlan

ARGS = {"num_updates": 2, "loader_args": {"batch_size": 8}, "random_seed": 7}
TESTED = {**ARGS, "test_ratio": 0.25, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}


EXPERIMENT = {"training_plan_class": LinePlan, "training_args": dict(ARGS)}


@pytest.fixture
def begun(federation):
    """A pipe at which a slow plan on node_0 tells that it has begun, and then waits."""
    pipe = federation.data(0) / "begun"
    os.mkfifo(pipe)
    yield pipe
    pipe.unlink(missing_ok=True)


def bits(experiment):
    return {name: np.asarray(value).tobytes() for name, value in experiment.training_plan().get_model_params().items()}


def shown(experiment):
    """What must not change when something else is changed."""
    return {
        "tags": experiment.tags(),
        "nodes": experiment.nodes(),
        "data": experiment.training_data().data(),
        "aggregator": experiment.aggregator(),
        "strategy": experiment.strategy(),
        "limit": experiment.round_limit(),
        "done": experiment.round_current(),
        "plan": (experiment.training_plan_class(), experiment.training_plan_path()),
        "model_args": experiment.model_args(),
        "training_args": experiment.training_args(),
        "folder": experiment.experimentation_path(),
        "breakpoints": experiment.save_breakpoints(),
        "secagg": experiment.secagg.active,
        "job": experiment.job().id,
        "params": bits(experiment),
        "replies": sorted(experiment.training_replies()),
        "history": experiment.history.to_dict(),
    }


def test_stop_from_another_thread_ends_the_round_at_once(made, begun):
    experiment = made(training_plan_class=SlowPlan, training_args={"num_updates": 1, "loader_args": {"batch_size": 4}}, round_limit=3)
    before = shown(experiment)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(experiment.run)
        begun.read_text()
        for call in (lambda: experiment.run(rounds=9, increase=True), experiment.run_once, experiment.breakpoint):
            with pytest.raises(FedbiomedExperimentError, match="another thread is running the experiment"):
                call()
        experiment.stop()
        assert run.result(timeout=30) == 0
    begun.unlink()
    assert shown(experiment) == before
    assert experiment.run(rounds=2) == 2, "it goes on, and the stop is forgotten"


def test_a_stopped_experiment_equals_an_unbroken_one(made):
    class Stopping(FedAverage):
        """Stops the experiment when it begins its second round."""

        def begin(self, round):
            super().begin(round)
            if round == 1 and not stopped:
                stopped.append(round)
                experiment.stop()

    stopped: list[int] = []
    experiment = made(round_limit=3, aggregator=Stopping)
    assert experiment.run() == 1
    assert experiment.round_current() == 1
    assert sorted(experiment.training_replies()) == sorted(experiment.aggregated_params()) == [0]
    assert experiment.run() == 2
    unbroken = made(round_limit=3)
    unbroken.run()
    assert bits(experiment) == bits(unbroken)


def test_stop_in_the_end_of_a_round_keeps_that_round_and_can_be_saved(made, requests):
    class Last(FedAverage):
        """Stops the experiment when the round is as good as done."""

        def finish(self):
            experiment.stop()
            return super().finish()

    experiment = made(round_limit=5, aggregator=Last, save_breakpoints=True, training_args=TESTED)
    assert experiment.run() == 1
    experiment.set_aggregator(None)
    experiment.breakpoint()
    resumed = Experiment.load_breakpoint(experiment.experimentation_path(), requests=requests, show_progress=False)
    assert resumed.round_current() == 1
    assert resumed.run() == 4
    assert sorted(resumed.training_replies()) == [0, 1, 2, 3, 4, 5], "and the validation of the end"


def test_stop_without_a_run_is_nothing(made):
    experiment = made(nodes=["node_0"])
    experiment.stop()
    assert experiment.run_once() == 1


def test_stop_during_the_last_validation_keeps_the_round(made):
    class Asked(FedAverage):
        """Stops the experiment when it is asked for the arguments of the validation."""

        def create_aggregator_args(self, *args):
            calls.append(args)
            if len(calls) == 2:
                experiment.stop()
            return super().create_aggregator_args(*args)

    calls: list[object] = []
    experiment = made(nodes=["node_0"], round_limit=1, training_args=TESTED, aggregator=Asked)
    assert experiment.run() == 1
    assert len(calls) == 2
    assert (experiment.round_current(), sorted(experiment.training_replies())) == (1, [0])


def assert_changed(experiment, change, *keys):
    before = shown(experiment)
    change()
    after = shown(experiment)
    assert {key for key in before if before[key] != after[key]} == set(keys)


def test_changes_between_rounds_count_and_nothing_else_moves(made, tmp_path):
    experiment = made(round_limit=20)
    experiment.run_once()
    changed = functools.partial(assert_changed, experiment)
    changed(lambda: experiment.set_tags(["other"]), "tags")
    changed(lambda: experiment.set_nodes(["node_1"]), "nodes")
    changed(lambda: experiment.set_tags(TAGS), "tags")
    changed(lambda: experiment.set_training_data(None, from_tags=True), "data")
    changed(lambda: experiment.set_training_args({**ARGS, "num_updates": 5}), "training_args")
    changed(lambda: experiment.set_test_ratio(0.5), "training_args")
    changed(lambda: experiment.set_test_metric("MEAN_ABSOLUTE_ERROR"), "training_args")
    changed(experiment.set_test_on_local_updates, "training_args")
    changed(experiment.set_test_on_global_updates, "training_args")
    changed(lambda: experiment.set_aggregator(FedAverage), "aggregator")
    changed(lambda: experiment.set_round_limit(30), "limit")
    changed(lambda: experiment.set_save_breakpoints(True), "breakpoints")
    changed(lambda: experiment.set_model_args({"anything": 1}), "model_args")
    changed(lambda: experiment.set_secagg(False))
    changed(lambda: experiment.set_agg_optimizer(None))
    changed(lambda: experiment.set_strategy(None), "strategy")
    experiment.set_job()
    experiment.run_once()
    assert [reply["node_id"] for reply in experiment.training_replies()[1]] == ["node_1"], "the new data set"
    assert experiment.training_replies()[1][0]["sample_size"] == 20, "half of 40 rows"
    now = experiment.history[experiment.history["round"] == 1]
    assert set(now["metric"]) == {
        "TRAINING/Loss",
        "VALIDATION ON LOCAL UPDATES/MEAN_ABSOLUTE_ERROR",
        "VALIDATION ON GLOBAL UPDATES/MEAN_ABSOLUTE_ERROR",
    }
    assert set(now["node"]) == {"node_1"}
    points = experiment.history_points()
    assert points[(points["round"] == 1) & (points["metric"] == "TRAINING/Loss")]["iteration"].max() == 5
    assert len(list((tmp_path / "researcher").rglob("breakpoint_0001.json"))) == 1


def test_another_plan_between_rounds(made):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    experiment.set_training_plan_class(SidePlan)
    experiment.run_once()
    assert set(experiment.aggregated_params()[1]["params"]) != {"coef_", "intercept_"}, "until set_job"
    experiment.set_model_args({"n_features": 2, "n_classes": 2})
    experiment.set_job()
    experiment.run_once()
    assert set(experiment.aggregated_params()[2]["params"]) == {"coef_", "intercept_"}
    assert sorted(experiment.aggregated_params()) == [0, 1, 2]


def test_another_folder_and_a_new_job_can_still_be_saved(made, requests):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    experiment.set_experimentation_folder("elsewhere")
    experiment.set_job()
    experiment.run_once()
    experiment.breakpoint()
    resumed = Experiment.load_breakpoint(experiment.experimentation_path(), requests=requests, show_progress=False)
    assert resumed.round_current() == 2
    assert sorted(resumed.aggregated_params()) == [0, 1]
    assert bits(resumed) == bits(experiment)
    assert resumed.run_once() == 1


def test_secure_aggregation_switched_on_later_counts_for_the_next_run(made):
    experiment = made(nodes=["node_0"], secagg=SecureAggregation(active=False))
    experiment.secagg.activate(True)
    with pytest.raises(FedbiomedSecaggError, match="needs three nodes or more"):
        experiment.run(rounds=1)
    assert experiment.round_current() == 0
    experiment.secagg.activate(False)
    assert experiment.run_once() == 1


def test_history_is_a_table(made):
    experiment = made(round_limit=1)
    experiment.run()
    history = experiment.history
    assert list(history.columns) == ["round", "node", "dataset", "metric", "value"]
    datasets = {node: entry["dataset_id"] for node, entry in experiment.training_data().data().items()}
    assert dict(zip(history["node"], history["dataset"], strict=True)) == datasets


def test_one_connection_for_two_experiments_at_once(made, requests):
    experiments = [made(nodes=[node], requests=Requests(requests.connection)) for node in ("node_0", "node_1")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda experiment: experiment.run(rounds=2), experiments)) == [2, 2]
    for experiment, node in zip(experiments, ("node_0", "node_1"), strict=True):
        assert [reply["node_id"] for reply in experiment.training_replies()[1]] == [node]
