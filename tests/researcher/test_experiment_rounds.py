"""Rounds over real nodes and a real training process; only the transports are in memory."""

import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedError, FedbiomedExperimentError, FedbiomedStrategyError, FileStoreError
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.common.transport.memory_store import MemoryFileStore
from fedbiomed.researcher.aggregators import Aggregator, FedAverage
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.memory_federation import TAGS, memory_federation
from tests.support.plans import LinePlan, SidePlan

NODES = ["node_0", "node_1", "node_2"]
ARGS = {"num_updates": 2, "loader_args": {"batch_size": 8}, "random_seed": 7}


class MoodyPlan(TorchTrainingPlan):
    """Where a file lies beside the data, it does as the file is called: `fails`, `waits` (at two pipes) or tells `nan`."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        beside = pathlib.Path(self.dataset_path).parent  # noqa: F821  declared above
        if (beside / "fails").exists():
            raise ValueError("in a bad mood")
        if (beside / "waits").exists():
            (beside / "begun").write_text("begun")
            (beside / "go_on").read_text()
        factor = float("nan") if (beside / "nan").exists() else 1.0
        return factor * ((self.model()(data) - target) ** 2).mean()


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with memory_federation(tmp_path_factory.mktemp("rounds"), nodes=3) as started:
        yield started


@pytest.fixture
def requests(federation, tmp_path):
    with federation.researcher(tmp_path / "researcher", idle_timeout_s=10.0) as made:
        yield made


@pytest.fixture
def made(requests):
    """An experiment on all nodes; other arguments may be given."""

    def make(**changes):
        args = {"tags": TAGS, "training_plan_class": MoodyPlan, "training_args": dict(ARGS), "requests": requests, "show_progress": False}
        return Experiment(**{**args, **changes})

    return make


@pytest.fixture
def mood(federation):
    """Put a node into a mood for the length of a test."""
    put = []

    def into(index, name):
        put.append(federation.data(index) / name)
        put[-1].touch()
        return put[-1]

    yield into
    for path in put:
        path.unlink(missing_ok=True)


def weights(experiment, round_):
    return {name: np.asarray(value) for name, value in experiment.aggregated_params()[round_]["params"].items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def state(experiment):
    """All that a failed round must leave as it was."""
    job = experiment.job()
    return {
        "rounds": (experiment.round_current(), experiment.round_limit()),
        "replies": sorted(experiment.training_replies()),
        "history": experiment.history.to_dict(),
        "paths": {r: p["params_path"] for r, p in experiment.aggregated_params().items()},
        "params": {name: value.numpy().tobytes() for name, value in experiment.training_plan().get_model_params().items()},
        "job": (job.id, list(job.nodes)),
    }


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


class Drop(FedAverage):
    """Fails in the end of its first round."""

    def __init__(self):
        super().__init__()
        self.rounds = []

    def begin(self, round):
        super().begin(round)
        self.rounds.append(round)

    def finish(self):
        if len(self.rounds) == 1:
            raise AggregationError("dropped it")
        return super().finish()


def test_an_aggregator_that_fails_changes_nothing(made):
    experiment = made(nodes=["node_0", "node_1"], aggregator=Drop)
    before = state(experiment)
    with pytest.raises(AggregationError, match="dropped it"):
        experiment.run_once()
    assert state(experiment) == before
    assert experiment.run_once() == 1


class Broken(FedAverage):
    """Gives parameters that no model of the plan takes."""

    def finish(self):
        return {name: value.reshape(-1, 1, 1) for name, value in super().finish().items()}


def test_parameters_that_do_not_fit_change_nothing(made):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    before = state(experiment)
    experiment.set_aggregator(Broken)
    with pytest.raises(FedbiomedError):
        experiment.run_once()
    assert state(experiment) == before
    experiment.set_aggregator(None)
    assert experiment.run_once() == 1


class Moody(MemoryFileStore):
    """A repository that is full when told so."""

    is_full = False

    def put(self, path, **options):
        if self.is_full:
            raise FileStoreError("FB203: 507: the repository's disk is full")
        return super().put(path, **options)


def test_a_full_repository_changes_nothing(made, federation, requests):
    files = Moody(federation.files, "researcher_test")
    experiment = made(nodes=["node_0"], requests=Requests(replace(requests.connection, files=files)))
    experiment.run_once()
    before = state(experiment)

    class Filling(FedAverage):
        def finish(self):
            files.is_full = True
            return super().finish()

    experiment.set_aggregator(Filling)
    with pytest.raises(FileStoreError, match="disk is full"):
        experiment.run_once()
    assert state(experiment) == before
    files.is_full = False
    experiment.set_aggregator(None)
    assert experiment.run_once() == 1


class Median(Aggregator):
    """A user's own, one-shot: the median of each coordinate."""

    def aggregate(self, model_params, weights, *args, **kwargs):
        assert sum(weights.values()) == pytest.approx(1.0)
        names = next(iter(model_params.values()))
        return {name: torch.stack([params[name] for params in model_params.values()]).median(dim=0).values for name in names}


class Two(Strategy):
    """A user's own, one-shot: the first two nodes, counting alike."""

    def sample_nodes(self, round_i):
        return self._data.node_ids()[:2]

    def refine(self, training_replies, round_i):
        params = {reply["node_id"]: reply["params"] for reply in training_replies}
        return params, dict.fromkeys(params, 1 / len(params)), 2, dict.fromkeys(params)


def test_users_own_aggregator(made):
    experiment = made(aggregator=Median)
    experiment.run_once()
    values = sorted(float(reply["params"]["bias"]) for reply in experiment.training_replies()[0])
    assert float(experiment.aggregated_params()[0]["params"]["bias"]) == values[1]


@pytest.mark.parametrize("aggregator", [None, Median])
def test_users_own_strategy_with_refine(made, aggregator):
    experiment = made(node_selection_strategy=Two, aggregator=aggregator)
    experiment.run(rounds=2)
    replies = experiment.training_replies()[1]
    assert [reply["node_id"] for reply in replies] == ["node_0", "node_1"]
    one, other = (reply["params"]["weight"].double() for reply in replies)
    found = experiment.aggregated_params()[1]["params"]["weight"]
    np.testing.assert_allclose(found, torch.minimum(one, other) if aggregator else (one + other) / 2, rtol=1e-6)


def test_refine_is_not_asked_about_nothing(made, mood):
    for index in range(2):
        mood(index, "fails")
    with pytest.raises(FedbiomedStrategyError, match=r"0 of 2 nodes answered round 0: node_0: .*bad mood"):
        made(node_selection_strategy=Two).run_once()


class Picky(DefaultStrategy):
    """Takes no reply of fewer than 35 rows."""

    def accept(self, reply):
        return super().accept(reply) if reply["sample_size"] >= 35 else "too few rows"


def test_users_own_verdict_on_a_reply(made):
    experiment = made(node_selection_strategy=Picky(min_nodes=2))
    experiment.run_once()
    # 40 and 50 of 90 rows; node_0 has 30
    replies = [reply for reply in experiment.training_replies()[0] if reply["node_id"] != "node_0"]
    expected = sum(rows / 90 * reply["params"]["bias"].double() for reply, rows in zip(replies, (40, 50), strict=True))
    np.testing.assert_allclose(experiment.aggregated_params()[0]["params"]["bias"], expected, rtol=1e-6)
    with pytest.raises(FedbiomedStrategyError, match="node_0: too few rows"):
        made(node_selection_strategy=Picky).run_once()


class Nobody(Strategy):
    """Draws what it was told to."""

    drawn: list[str] = []

    def sample_nodes(self, round_i):
        return self.drawn


@pytest.mark.parametrize("drawn", [[], ["node_9"], ["node_0", "node_0"]])
def test_a_strategy_must_draw_nodes_of_the_data_set(made, drawn):
    experiment = made(node_selection_strategy=Nobody)
    experiment.strategy().drawn = drawn
    before = state(experiment)
    with pytest.raises(FedbiomedStrategyError, match="Nobody must draw"):
        experiment.run_once()
    assert state(experiment) == before


TESTED = {**ARGS, "test_ratio": 0.25, "test_on_local_updates": True, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}


def test_the_last_round_is_followed_by_a_validation(made):
    experiment = made(round_limit=2, training_args=TESTED)
    assert experiment.run(rounds=1) == 1
    assert sorted(experiment.training_replies()) == [0]
    assert experiment.run() == 1
    replies = experiment.training_replies()
    assert sorted(replies) == [0, 1, 2]
    assert [reply["params"] for reply in replies[2]] == [None] * 3
    history = experiment.history
    glob, local = "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR", "VALIDATION ON LOCAL UPDATES/MEAN_SQUARE_ERROR"
    assert set(history[history["round"] == 2]["metric"]) == {glob}
    assert set(history[history["round"] == 1]["metric"]) == {glob, local, "TRAINING/Loss"}
    assert history["node"].nunique() == 3
    assert experiment.monitor()._metric_store["node_0"]["testing_global_updates"]["MEAN_SQUARE_ERROR"].keys() == {1, 2, 3}
    assert experiment.round_current() == 2
    experiment.run(rounds=1, increase=True)
    assert sorted(experiment.training_replies()) == [0, 1, 2, 3]
    assert {"TRAINING/Loss"} < set(experiment.history[experiment.history["round"] == 2]["metric"])


def test_run_once_validates_when_asked(made):
    experiment = made(nodes=["node_0"], training_args=TESTED)
    experiment.run_once(test_after=True)
    assert sorted(experiment.training_replies()) == [0, 1]
    assert experiment.round_current() == 1


def test_what_went_wrong_beside_the_training_is_told(made, caplog):
    experiment = made(nodes=["node_0"], training_args={**ARGS, "test_on_local_updates": True})
    experiment.run_once()
    assert "node_0 says: FB314: test_on_local_updates has no samples" in caplog.text


def test_parameters_whose_file_is_gone(made):
    experiment = made(nodes=["node_0"])
    experiment.run_once()
    params = experiment.aggregated_params()[0]
    assert next(len(value) for value in params.values()) == 2
    Path(params["params_path"]).unlink()
    with pytest.raises(FedbiomedExperimentError, match="cannot read aggregated parameters"):
        params["params"]


def test_the_plan_as_the_nodes_see_it(made, capsys):
    experiment = made(nodes=["node_0"])
    path = experiment.training_plan_file()
    assert "class MoodyPlan" in capsys.readouterr().out
    experiment.training_plan_file(display=False)
    assert capsys.readouterr().out == ""
    assert path.startswith(experiment.experimentation_path())
    (status,) = experiment.check_training_plan_status().data()
    assert (status["node_id"], status["approval_obligation"], status["success"]) == ("node_0", False, True)
    assert experiment.training_plan_approve(MoodyPlan, description="a line", nodes=["node_0"]) == {"node_0": True}


def test_progress_is_shown_on_stderr(made, capsys):
    experiment = made(nodes=["node_0", "node_1"], show_progress=True, round_limit=2)
    experiment.run()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert [line.split(";")[0].split(" in ")[0] for line in lines] == ["round 1 of 2: 2 of 2 nodes", "round 2 of 2: 2 of 2 nodes"]
    assert all("mean loss" in line for line in lines)
