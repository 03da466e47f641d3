"""Rounds of an experiment: limits, replies, failures, interruptions."""

import logging
import os
import signal
import threading

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedExperimentError, FedbiomedStrategyError
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support import moody
from tests.support.moody import ARGS, NODES, MoodyPlan, same, state, weights
from tests.support.plans import LinePlan, SidePlan

NODE_COUNT = 3
EXPERIMENT = moody.EXPERIMENT


def test_a_whole_experiment(made, capsys):
    experiment = made(round_limit=2)
    assert experiment.training_data().node_ids() == NODES
    experiment.info()
    assert "Experiment can be run now (fully defined)" in capsys.readouterr().out
    assert experiment.run() == 2
    assert experiment.round_current() == 2
    replies = experiment.training_replies()
    assert sorted(replies) == [0, 1]
    for reply, rows in zip(replies[1].data(), (30, 40, 50), strict=True):
        assert reply["success"] is True
        assert reply["sample_size"] == rows
        assert set(reply["timing"]) == {"rtime_training", "ptime_training", "rtime_total"}
    # node_0, node_1, node_2 have 30, 40, 50 of 120 rows
    expected = sum(rows / 120 * reply["params"]["weight"].double() for reply, rows in zip(replies[1], (30, 40, 50), strict=True))
    found = experiment.aggregated_params()[1]["params"]["weight"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == torch.float32
    assert torch.equal(experiment.training_plan().model().weight, found)
    assert experiment.training_plan().__class__ is not MoodyPlan


def test_parameters_have_the_promised_types(made):
    torch_one = made(training_plan_class=LinePlan)
    torch_one.run_once()
    params = torch_one.aggregated_params()[0]
    assert set(params) == {"params", "params_path"}
    assert {value.dtype for value in params["params"].values()} == {torch.float32}, "integer buffers, too"
    assert dict(params).keys() == {"params", "params_path"}
    assert params.get("params").keys() == params["params"].keys() == dict(params.items())["params"].keys()
    assert "params_path" in repr(params)
    sklearn_one = made(training_plan_class=SidePlan, model_args={"n_features": 2, "n_classes": 2, "loss": "log_loss"})
    sklearn_one.run_once()
    assert {value.dtype for value in sklearn_one.aggregated_params()[0]["params"].values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    "case",
    [
        # round_limit None
        (None, 0, {}, 0, None, "round limit"),
        (None, 0, {"rounds": 2}, 2, None, ""),
        (None, 0, {"rounds": 2, "increase": True}, 2, None, ""),
        # limit reached
        (1, 1, {}, 0, 1, "is reached"),
        (1, 1, {"increase": True}, 0, 1, "is reached"),
        (1, 1, {"rounds": 2}, 0, 1, "is reached"),
        (1, 1, {"rounds": 2, "increase": True}, 2, 3, ""),
        # limit not reached
        (2, 0, {}, 2, 2, ""),
        (3, 1, {"rounds": 1}, 1, 3, ""),
        (3, 1, {"rounds": 2}, 2, 3, ""),
        (3, 2, {"rounds": 2}, 1, 3, "only 1 of 2"),
        (3, 2, {"rounds": 2, "increase": True}, 2, 4, ""),
        (9, 0, {"rounds": 1, "increase": True}, 1, 9, ""),
    ],
)
def test_run(made, caplog, case):
    limit, done, args, expected, limit_after, says = case
    experiment = made(nodes=["node_0"])
    if done:
        experiment.run(rounds=done)
    experiment.set_round_limit(limit)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="fedbiomed.researcher.experiment"):
        assert experiment.run(**args) == expected
    assert experiment.round_current() == done + expected
    assert experiment.round_limit() == limit_after
    assert says in caplog.text
    assert bool(caplog.records) == bool(says)


@pytest.mark.parametrize(
    "case",
    [(None, 0, False, 1, None), (None, 0, True, 1, None), (1, 1, False, 0, 1), (1, 1, True, 1, 2), (3, 1, False, 1, 3), (3, 1, True, 1, 3)],
)
def test_run_once(made, case):
    limit, done, increase, expected, limit_after = case
    experiment = made(nodes=["node_0"])
    if done:
        experiment.run(rounds=done)
    experiment.set_round_limit(limit)
    assert experiment.run_once(increase) == expected
    assert (experiment.round_current(), experiment.round_limit()) == (done + expected, limit_after)


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.run(rounds=0),
        lambda e: e.run(rounds=1.0),
        lambda e: e.run(rounds=True),
        lambda e: e.run(increase=1),
        lambda e: e.run_once(increase="yes"),
        lambda e: e.run_once(test_after=1),
    ],
)
def test_wrong_arguments_of_run_are_refused(made, call):
    experiment = made(nodes=["node_0"], round_limit=1)
    with pytest.raises(FedbiomedExperimentError, match="FB410"):
        call(experiment)
    assert (experiment.round_current(), experiment.round_limit()) == (0, 1)


def test_a_limit_below_the_rounds_done_changes_nothing(made, caplog):
    experiment = made(nodes=["node_0"], round_limit=2)
    experiment.run()
    assert experiment.set_round_limit(1) == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_nodes_found_by_tags_and_filter(made):
    experiment = made(nodes=["node_1", "node_2"])
    assert experiment.training_data().node_ids() == ["node_1", "node_2"]
    assert experiment.strategy().sample_nodes(0) == ["node_1", "node_2"]
    experiment.set_nodes(["node_0"])
    assert experiment.set_training_data(None, from_tags=True).node_ids() == ["node_0"]
    assert experiment.strategy().sample_nodes(0) == ["node_1", "node_2"], "until set_strategy"
    experiment.set_strategy(None)
    job = experiment.job()
    assert experiment.set_job() is not job
    experiment.run_once()
    assert [reply["node_id"] for reply in experiment.training_replies()[0]] == ["node_0"]


def test_nothing_found_is_an_error_that_leaves_no_folder(made, requests):
    with pytest.raises(FedbiomedExperimentError, match="no node offers a dataset with the tags \\['nothing'\\]"):
        made(tags="nothing")
    with pytest.raises(FedbiomedError, match="node_9"):
        made(nodes=["node_9"])
    with pytest.raises(FedbiomedError, match="model"):
        made(training_plan_class=SidePlan, model_args={"n_features": "many"})
    assert not requests.connection.config.experiments.exists() or not list(requests.connection.config.experiments.iterdir())


def test_a_plan_that_cannot_be_loaded_leaves_the_job(made):
    experiment = made(nodes=["node_0"])
    job = experiment.job()
    experiment.set_training_plan_class(SidePlan)
    with pytest.raises(FedbiomedError):
        experiment.set_job()
    assert experiment.job() is job
    assert experiment.run_once() == 1


def test_training_arguments_count_from_the_next_round(made):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    job = experiment.job()
    experiment.set_training_args({**ARGS, "num_updates": 5})
    experiment.set_test_ratio(0.5)
    experiment.run_once()
    assert experiment.job() is job
    assert [reply["sample_size"] for r in (0, 1) for reply in experiment.training_replies()[r]] == [30, 15]
    iterations = experiment.history_points().groupby("round")["iteration"].max()
    assert list(iterations) == [2, 5]


def test_a_new_job_after_rounds_says_where_it_starts(made, caplog):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    experiment.set_job()
    assert "initial parameters" in caplog.text
    assert experiment.round_current() == 1
    assert experiment.run_once() == 1


def test_a_failed_round_changes_nothing_and_can_be_run_again(made, mood):
    experiment = made(round_limit=3)
    experiment.run_once()
    before = state(experiment)
    fails = mood(1, "fails")
    for _ in range(2):
        with pytest.raises(FedbiomedStrategyError, match=r"2 of 3 nodes answered round 1.*node_1.*bad mood") as caught:
            experiment.run()
        assert "\n" not in str(caught.value)
        assert state(experiment) == before
    fails.unlink()
    assert experiment.run() == 2
    unbroken = made(round_limit=3)
    unbroken.run()
    assert same(weights(experiment, 2), weights(unbroken, 2)), "as if the round had never failed"


def test_all_nodes_failing_names_all(made, mood):
    for index in range(3):
        mood(index, "fails")
    with pytest.raises(FedbiomedStrategyError, match=r"0 of 3 nodes answered round 0: node_0: .*; node_1: .*; node_2: "):
        made().run_once()


def test_enough_good_replies_are_enough(made, mood):
    mood(0, "fails")
    experiment = made(node_selection_strategy=DefaultStrategy(min_nodes=2))
    assert experiment.run_once() == 1
    assert [reply["node_id"] for reply in experiment.training_replies()[0]] == ["node_1", "node_2"]
    assert set(experiment.history["node"]) == {"node_1", "node_2"}
    assert list(experiment.job().failures[0]) == ["node_0"]
    # 40 and 50 of 90 rows
    expected = sum(
        rows / 90 * reply["params"]["bias"].double() for reply, rows in zip(experiment.training_replies()[0], (40, 50), strict=True)
    )
    np.testing.assert_allclose(experiment.aggregated_params()[0]["params"]["bias"], expected, rtol=1e-6)


def test_a_node_that_sends_no_numbers_is_left_out(made, mood):
    mood(0, "nan")
    experiment = made(node_selection_strategy=DefaultStrategy(min_nodes=2))
    assert experiment.run_once() == 1
    assert np.isfinite(weights(experiment, 0)["weight"]).all()
    with pytest.raises(FedbiomedStrategyError, match=r"2 of 3.*node_0.*NaN"):
        made().run_once()


def test_ctrl_c_changes_nothing_and_the_round_can_be_run_again(made, federation, mood):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    before = state(experiment)
    waits, folder = mood(0, "waits"), federation.data(0)
    for name in ("begun", "go_on"):
        os.mkfifo(folder / name)

    def press():
        (folder / "begun").read_text()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    presser = threading.Thread(target=press, name="presser", daemon=True)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        experiment.run_once()
    presser.join(10)
    waits.unlink()
    for name in ("begun", "go_on"):
        (folder / name).unlink()
    assert state(experiment) == before
    assert experiment.run_once() == 1
