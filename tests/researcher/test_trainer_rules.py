"""Trainer events by themselves: what follows what, shares of updates, inconsistencies."""

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import (
    AggregationError,
    FedbiomedExperimentError,
    FedbiomedStrategyError,
    FedbiomedTrainerError,
    FedbiomedUserInputError,
)
from fedbiomed.researcher.aggregators import FedAverage
from fedbiomed.researcher.course import CollectedRound, CollectedTest
from fedbiomed.researcher.events import (
    DaisyChainTrainer,
    ModelTestFinished,
    ModelTrainer,
    ModelTrainerEvent,
    TrainingRoundFinished,
    _aggregate_param_vectors,
)
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies import DefaultStrategy


def test_vectors_count_by_their_shares():
    # (1, 2) with 10 and (3, 6) with 30: (10 * 1 + 30 * 3) / 40 = 2.5 and (10 * 2 + 30 * 6) / 40 = 5; the same for (2, 5), (10, 37)
    assert _aggregate_param_vectors([[1, 2], [3, 6]], [10, 30]).tolist() == [2.5, 5.0]
    assert TrainingRoundFinished._aggregate_param_vectors([torch.tensor([2.0, 5.0]), [10, 37]], [10, 30]).tolist() == [8.0, 29.0]


@pytest.mark.parametrize(
    ("vectors", "sizes"),
    [([[1], [1, 2]], [1, 1]), ([[1], [2]], [1]), ([], []), ([[1], [2]], [0, 0]), ([[1], [2]], [-1, 2]), ([[float("nan")]], [1])],
    ids=["lengths", "counts", "none", "zeros", "negative", "nan"],
)
def test_vectors_that_do_not_fit(vectors, sizes):
    with pytest.raises(AggregationError):
        _aggregate_param_vectors(vectors, sizes)


def test_events_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        ModelTrainerEvent(ModelTrainer())


@pytest.mark.parametrize(
    ("options", "target", "step"),
    [
        ({}, 5, "model test"),
        ({"model_test_after_each_round": False}, 5, "training round"),
        ({"model_test_after_each_round": False}, 2, "model test"),
        ({"skip_model_tests": True}, 5, "training round"),
        ({"skip_model_tests": True}, 2, "nothing"),
        ({"skip_model_tests": True}, None, "training round"),
    ],
)
def test_what_follows_a_round(options, target, step):
    trainer = ModelTrainer(**options)
    trainer.training.round, trainer.training.target = 2, target
    event = TrainingRoundFinished(trainer)
    assert (event.trainer, event.training) == (trainer, trainer.training)
    event.next()
    assert trainer.training.step == step
    assert (trainer.training.state == "completed") == (step == "nothing")


@pytest.mark.parametrize(("target", "step"), [(2, "nothing"), (3, "training round"), (None, "training round")])
def test_what_follows_a_test(target, step):
    trainer = ModelTrainer()
    trainer.training.round, trainer.training.target = 2, target
    ModelTestFinished(trainer).next()
    assert trainer.training.step == step


def test_common_metrics_count_only_who_reported():
    def point(node, metric, value):
        return Point(1, node, "d", "VALIDATION ON GLOBAL UPDATES", metric, value, 1, None)

    points = [point("a", "ACCURACY", 1.0), point("b", "ACCURACY", 0.5), point("a", "F1", 1.0), point("c", "LOSS", 3.0)]
    # a has 10 samples, b 30: (10 * 1 + 30 * 0.5) / 40; F1 only from a; the reporter of LOSS has no samples
    trainer = ModelTrainer()
    trainer.training.round = 1
    trainer.test_finished(CollectedTest(points=points, sizes={"a": 10, "b": 30, "c": 0}))
    assert trainer.training.metrics == {1: {"ACCURACY": 0.625, "F1": 1.0}}
    with pytest.raises(FedbiomedTrainerError, match="no model test has finished after 1 rounds"):
        ModelTestFinished(trainer).handle()


def test_options_are_checked():
    with pytest.raises(FedbiomedUserInputError, match="skip_model_tests must be True or False, not 1"):
        ModelTrainer(skip_model_tests=1)
    with pytest.raises(FedbiomedUserInputError, match="aggregation_period must be an integer of 1 or more, not 0"):
        DaisyChainTrainer(1, 0)
    options = ModelTrainer().options
    found = (options.skip_model_tests, options.model_test_after_each_round, options.delete_local_models_after_aggregation)
    assert found == (False, True, True)
    with pytest.raises(FedbiomedExperimentError, match="trainer must be a ModelTrainer"):
        Experiment(trainer=3)


def test_a_round_that_is_not_open():
    trainer, updates = ModelTrainer(), RoundUpdates(4, ["a"], DefaultStrategy(), FedAverage(), AuxTotal(None))
    with pytest.raises(FedbiomedTrainerError, match="no round has finished: round 0"):
        TrainingRoundFinished(trainer).handle()
    late = CollectedRound(round=4, job=None, updates=updates, step=dict, keep=print)
    with pytest.raises(FedbiomedTrainerError, match=r"round 4 finished, but round 0 is the open one"):
        trainer.round_finished(late)


class NoFailures:
    """The part of a job that a round's check reads."""

    failures: dict[int, dict[str, str]] = {}


def test_a_second_update_a_stranger_and_a_late_one(caplog):
    updates = RoundUpdates(0, ["a", "b"], DefaultStrategy(), FedAverage(), AuxTotal(None))
    reply = {"node_id": "a", "success": True, "sample_size": 1, "params": {"w": np.ones(1)}, "optim_aux_var": None}
    updates.add(reply)
    updates.add({**reply, "params": {"w": np.zeros(1)}})
    updates.add({**reply, "node_id": "x"})
    assert updates.good == ["a"]
    assert "reply of a is left out: a second one" in caplog.text
    assert "reply of x is left out: not asked" in caplog.text
    with pytest.raises(FedbiomedStrategyError, match=r"1 of 2 nodes answered round 0, 2 are needed: b: no answer"):
        updates.check(NoFailures())
    with pytest.raises(FedbiomedTrainerError, match="a reply of b came after round 0 was over"):
        updates.add({**reply, "node_id": "b"})
