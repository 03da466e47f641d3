"""Aggregators, strategies and validations of an experiment: users' own, and those that fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import (
    AggregationError,
    FedbiomedAggregatorError,
    FedbiomedError,
    FedbiomedExperimentError,
    FedbiomedStrategyError,
    FileStoreError,
)
from fedbiomed.common.transport.memory_store import MemoryFileStore
from fedbiomed.researcher.aggregators import Aggregator, FedAverage
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support import moody
from tests.support.moody import ARGS, MoodyPlan, state

NODE_COUNT = 3
EXPERIMENT = moody.EXPERIMENT


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


@pytest.mark.parametrize("drawn", [[], ["node_9"], ["node_0", "node_0"], None, "node_0", [["node_0"]], 1])
def test_a_strategy_must_draw_nodes_of_the_data_set(made, drawn):
    experiment = made(node_selection_strategy=Nobody)
    experiment.strategy().drawn = drawn
    before = state(experiment)
    with pytest.raises(FedbiomedStrategyError, match="Nobody must draw"):
        experiment.run_once()
    assert state(experiment) == before


class Given(Aggregator):
    """Gives what it was told to."""

    given = None

    def aggregate(self, model_params, weights, *args, **kwargs):
        return self.given


@pytest.mark.parametrize("given", [None, [1], {}, {1: 2}])
def test_an_aggregator_must_give_parameters(made, given):
    experiment = made(nodes=["node_0"], aggregator=Given)
    experiment.aggregator().given = given
    before = state(experiment)
    with pytest.raises(FedbiomedAggregatorError, match="an aggregator must return the next parameters"):
        experiment.run_once()
    assert state(experiment) == before


class Spoiling(FedAverage):
    """Gives what the mean becomes when it is worked on so."""

    def finish(self):
        return {name: self.work(value) for name, value in super().finish().items()}


@pytest.mark.parametrize(
    ("work", "said"),
    [(lambda value: value * float("nan"), "new global model holds NaN"), (str, "of the new global model is a str")],
)
def test_parameters_that_are_no_numbers_are_not_taken_over(made, work, said):
    experiment = made(nodes=["node_0"], aggregator=Spoiling)
    experiment.aggregator().work = work
    before = state(experiment)
    with pytest.raises(FedbiomedAggregatorError, match=said):
        experiment.run_once()
    assert state(experiment) == before


class Silent(DefaultStrategy):
    """Does not say by what a reply counts."""

    def accept(self, reply):
        return None


def test_a_strategy_must_say_by_what_a_reply_counts(made):
    experiment = made(nodes=["node_0"], node_selection_strategy=Silent)
    before = state(experiment)
    with pytest.raises(FedbiomedStrategyError, match=r"accept\(\) of Silent must return by what the reply of node_0 counts"):
        experiment.run_once()
    assert state(experiment) == before


class Refined(DefaultStrategy):
    """Judges all replies together, and gives what it was told to."""

    given = None

    def refine(self, training_replies, round_i):
        return self.given


@pytest.mark.parametrize("given", [None, ({}, {}), ([], [], 0, {})])
def test_refine_must_give_parameters_and_weights_by_node(made, given):
    experiment = made(nodes=["node_0"], node_selection_strategy=Refined)
    experiment.strategy().given = given
    before = state(experiment)
    with pytest.raises(FedbiomedStrategyError, match=r"refine\(\) of Refined must return"):
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
