"""Trainers and their events over real nodes; only the transports are in memory. Numbers are worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import (
    FedbiomedBreakpointError,
    FedbiomedStrategyError,
    FedbiomedTrainerError,
)
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import Scaffold
from fedbiomed.researcher.events import (
    DaisyChainRoundFinished,
    DaisyChainTrainer,
    ModelTrainer,
)
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.memory_federation import TAGS

NODES = ["node_0", "node_1", "node_2"]
STEP = {"node_0": 1.0, "node_1": 10.0, "node_2": 100.0}  # see StepPlan: 10 ** (rows / 10 - 3)


class StepPlan(TorchTrainingPlan):
    """One step adds 1, 10, 100 to the weight on the nodes of 30, 40, 50 rows; a file `fails` beside the data makes it fail."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        self.rows = len(table)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821
            raise ValueError("in a bad mood")
        return -self.model().weight.sum() * 10.0 ** (self.rows / 10 - 3)


NODE_COUNT = 3


@pytest.fixture
def made(requests):
    def make(**changes):
        args = {"num_updates": 1, "loader_args": {"batch_size": 8}, "random_seed": 7}
        given = {"tags": TAGS, "training_plan_class": StepPlan, "training_args": {**args, **changes.pop("args", {})}, "requests": requests}
        return Experiment(**{**given, "show_progress": False, **changes})

    return make


@pytest.fixture
def failing(federation):
    paths = []

    def fail(index):
        paths.append(federation.data(index) / "fails")
        paths[-1].touch()
        return paths[-1]

    yield fail
    for path in paths:
        path.unlink(missing_ok=True)


def weight(experiment, round_):
    return float(experiment.aggregated_params()[round_]["params"]["weight"])


def held(experiment):
    """The weight that each node holds."""
    from fedbiomed.researcher.aggregated_params import read_params

    return {node: float(read_params(path)["weight"]) for node, path in experiment.job().node_params.paths().items()}


def events(experiment):
    return [(row.round, row.event, row.state) for row in experiment.history_transitions().itertuples()]


TESTED = {"test_ratio": 0.2, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}


def test_the_course_of_an_experiment(made, capsys):
    experiment = made(trainer=ModelTrainer, round_limit=2, args=TESTED)
    assert experiment.trainer().training.state == "initial"
    assert experiment.run() == 2
    one = [("round started", "ongoing"), ("TrainingRoundFinished", "ongoing"), ("ModelTestFinished", "ongoing")]
    assert events(experiment) == [
        *((int(i > 0), *pair) for i, pair in enumerate(one)),
        *((1 + int(i > 0), *pair) for i, pair in enumerate(one)),
        (2, "finished", "completed"),
    ]
    metrics = experiment.trainer().training.metrics
    last = experiment.history.query("round == 2")
    # a fifth of 30, 40, 50 rows
    expected = sum(size / 24 * float(last[last["node"] == node]["value"].iloc[0]) for node, size in zip(NODES, (6, 8, 10), strict=True))
    assert sorted(metrics) == [1, 2]
    assert metrics[2]["MEAN_SQUARE_ERROR"] == pytest.approx(expected)
    replies = experiment.training_replies()[1]
    assert [reply["params"] for reply in replies] == [None] * 3, "local models are dropped"
    assert not list(Path(experiment.experimentation_path()).glob("node_params_*"))
    experiment.info()
    assert "ModelTrainer: completed, next: nothing" in capsys.readouterr().out
    assert experiment.run(rounds=1, increase=True) == 1
    assert events(experiment)[-4:-1] == [
        (2, "round started", "ongoing"),
        (3, "TrainingRoundFinished", "ongoing"),
        (3, "ModelTestFinished", "ongoing"),
    ]


def test_tests_may_be_skipped(made):
    experiment = made(trainer=ModelTrainer(skip_model_tests=True), round_limit=2, args=TESTED)
    experiment.run()
    assert experiment.trainer().training.metrics == {}
    experiment.set_round_limit(3)
    experiment.run_once(test_after=True)
    assert sorted(experiment.trainer().training.metrics) == [3]


def test_a_failed_round_is_a_state_from_which_it_goes_on(made, failing):
    experiment = made(nodes=NODES, trainer=ModelTrainer(skip_model_tests=True), round_limit=2)
    experiment.run_once()
    path = failing(1)
    with pytest.raises(FedbiomedStrategyError, match=r"2 of 3 nodes answered round 1, 3 are needed: node_1: .*bad mood"):
        experiment.run_once()
    training = experiment.trainer().training
    assert (training.state, training.round, experiment.round_current()) == ("error", 1, 1)
    assert "node_1" in training.transitions[-1].note
    path.unlink()
    assert experiment.run() == 1
    assert training is experiment.trainer().training
    assert training.state == "completed"


def seed_of(cycle):
    """A seed for which the permutation of round 0 of three nodes is this one."""
    return next(seed for seed in range(1000) if np.random.default_rng([seed, 0]).permutation(3).tolist() == cycle)


def test_three_models_change_places(made):
    seed = seed_of([1, 2, 0])  # the model of node_0 goes to node_1, that of node_1 to node_2, that of node_2 to node_0
    experiment = made(trainer=DaisyChainTrainer(1, 2, seed), round_limit=4)
    experiment.run_once()
    assert held(experiment) == {"node_1": 1.0, "node_2": 10.0, "node_0": 100.0}
    assert experiment.aggregated_params() == {}
    experiment.run_once()
    # 100 + 1, 1 + 10, 10 + 100: their mean is 222 / 3
    assert weight(experiment, 1) == pytest.approx(74.0)
    assert held(experiment) == {}
    assert experiment.run() == 2
    # whatever the permutation: the mean over models = start + rounds * mean of the steps = 4 * 37
    assert weight(experiment, 3) == pytest.approx(148.0)
    assert sorted(experiment.aggregated_params()) == [1, 3]
    assert [event for _, event, _ in events(experiment)].count("DaisyChainRoundFinished") == 4


def test_nothing_is_lost_at_a_limit_amid_a_chain(made):
    experiment = made(trainer=DaisyChainTrainer(1, 4, 3), round_limit=6)
    assert experiment.run() == 6
    assert weight(experiment, 3) == pytest.approx(4 * 37.0)
    assert weight(experiment, 5) == pytest.approx(6 * 37.0)
    files = {path.name.split("_")[0] for path in Path(experiment.experimentation_path()).glob("*.mpk")}
    assert files == {"aggregated", "node"}
    assert len(list(Path(experiment.experimentation_path()).glob("node_own_params_*"))) == 3, "only those of the last round but one"


def test_a_weighted_average_counts_by_samples(made):
    experiment = made(trainer=DaisyChainTrainer(0, 2, weighted=True), round_limit=2)
    experiment.run()
    # nobody changes places: 2, 20, 200, by 30, 40, 50 of 120 rows
    assert weight(experiment, 1) == pytest.approx((30 * 2 + 40 * 20 + 50 * 200) / 120)


def test_who_does_not_answer_keeps_its_model_and_counts_in_the_end(made, failing):
    trainer = DaisyChainTrainer(0, 3)
    experiment = made(trainer=trainer, round_limit=3, node_selection_strategy=DefaultStrategy(min_nodes=2))
    experiment.run_once()
    path = failing(2)
    experiment.run(rounds=1)
    assert held(experiment) == {"node_0": 2.0, "node_1": 20.0, "node_2": 100.0}
    experiment.run(rounds=1)
    assert weight(experiment, 2) == pytest.approx((3 + 30 + 100) / 3)
    path.unlink()


def test_a_failed_round_of_a_chain_is_run_again_alike(made, failing):
    one, other = (made(trainer=DaisyChainTrainer(1, 3, 5), round_limit=3) for _ in range(2))
    one.run()
    other.run_once()
    before = held(other)
    path = failing(0)
    with pytest.raises(FedbiomedStrategyError, match="2 of 3 nodes answered round 1"):
        other.run_once()
    assert held(other) == before
    path.unlink()
    other.run()
    assert weight(other, 2) == weight(one, 2)


def test_each_node_may_read_only_its_own_model(made, federation):
    experiment = made(trainer=DaisyChainTrainer(1, 5, 0))
    experiment.run_once()
    own = experiment.job().node_params
    keys = {node: experiment.job()._files.ref(own.url(node)).key for node in NODES}
    assert {node: set(federation.files.find(key).readers) for node, key in keys.items()} == {node: {node} for node in NODES}
    experiment.run(rounds=2)
    assert [federation.files.find(key) for key in keys.values()] == [None] * 3, "what no order needs is taken out of the repository"


def test_the_models_of_a_chain_are_tested_where_they_are(made):
    experiment = made(trainer=DaisyChainTrainer(0, 5), args={**TESTED, "test_metric": None})
    experiment.run_once(test_after=True)
    assert sorted(experiment.trainer().training.metrics) == [1]
    assert held(experiment) == STEP


def test_a_chain_goes_on_from_a_breakpoint_bit_for_bit(made, requests):
    from tests.support.plans import LinePlan

    args = {"epochs": 1, "num_updates": None}
    setting = {"training_plan_class": LinePlan, "save_breakpoints": True, "args": args, "round_limit": 6}
    unbroken = made(trainer=DaisyChainTrainer(1, 3, 11, True), **setting)
    unbroken.run()
    broken = made(trainer=DaisyChainTrainer(1, 3, 11, True), **setting)
    broken.run(rounds=5)
    resumed = Experiment.load_breakpoint(Path(broken.experimentation_path()) / "breakpoint_0001", requests=requests, show_progress=False)
    trainer = resumed.trainer()
    assert (trainer.daisy_chain_period, trainer.aggregation_period, trainer.seed, trainer.weighted) == (1, 3, 11, True)
    assert (trainer.training.state, trainer.training.round) == ("ongoing", 2)
    assert sorted(resumed.job().node_params.paths()) == NODES
    assert resumed.run() == 4
    for round_ in (2, 5):
        one, other = (e.aggregated_params()[round_]["params"] for e in (unbroken, resumed))
        assert all(np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one), round_
    assert events(resumed)[2:] == events(unbroken)[2:]
    again = Experiment.load_breakpoint(Path(broken.experimentation_path()) / "breakpoint_0001", requests=requests, show_progress=False)
    assert sorted(again.job().node_params.paths()) == NODES, "to go on leaves the breakpoint whole"


@pytest.mark.parametrize("spoilt", [{"training": {}}, {"parameters": {}}, {"class": "Other"}])
def test_a_spoilt_state_is_refused(spoilt):
    state = DaisyChainTrainer().save_state_breakpoint()
    with pytest.raises(FedbiomedBreakpointError):
        DaisyChainTrainer().load_state_breakpoint({**state, **spoilt}, 1)


class Refining(DefaultStrategy):
    """Judges at the end."""

    def refine(self, training_replies, round_i):
        return super().refine(training_replies, round_i)


def test_what_does_not_go_with_a_chain_is_refused(made):
    with pytest.raises(FedbiomedTrainerError, match="Scaffold has a half on the nodes"):
        made(trainer=DaisyChainTrainer, aggregator=Scaffold).run_once()
    with pytest.raises(FedbiomedTrainerError, match="Refining judges by `refine`"):
        made(trainer=DaisyChainTrainer, node_selection_strategy=Refining).run_once()


class Alternating(Strategy):
    """One node after the other."""

    def sample_nodes(self, round_i):
        return [self._data.node_ids()[round_i % 3]]


def test_one_node_after_the_other(made):
    experiment = made(trainer=DaisyChainTrainer(1, 3, 0), round_limit=3, node_selection_strategy=Alternating)
    experiment.run()
    assert weight(experiment, 2) == pytest.approx(37.0)


def test_permutations_are_uniform_and_bound_to_seed_and_round():
    trainer = DaisyChainTrainer(1, 10, seed=4)
    assert (
        trainer.order(3, ["b", "a", "c"]) == trainer.order(3, ["a", "b", "c"]) == DaisyChainTrainer(2, 10, seed=4).order(3, ["c", "a", "b"])
    )
    seen = {tuple(trainer.order(round_, ["a", "b", "c"]).items()) for round_ in range(200)}
    assert {tuple(sorted(pairs)) for pairs in seen}.__len__() == 6
    assert DaisyChainTrainer(2, 10, seed=4).order(2, ["a", "b"]) == {"a": "a", "b": "b"}


def test_the_event_switches_tests_off():
    trainer = DaisyChainTrainer(1, 2, 0)
    trainer.options.model_test_after_each_round = True
    event = DaisyChainRoundFinished(trainer)
    assert trainer.options.model_test_after_each_round is False
    with pytest.raises(FedbiomedTrainerError, match="no round has finished: round 0"):
        event.handle()


def test_a_chain_that_another_trainer_ends(made):
    experiment = made(trainer=DaisyChainTrainer(1, 9, 0))
    experiment.run(rounds=2)
    assert isinstance(experiment.set_trainer(None), ModelTrainer)
    experiment.run(rounds=1)
    # each node goes on from the model that it holds: 3 rounds of 1, 10, 100, by 30, 40, 50 rows of which each model's last step is known
    replies = {reply["node_id"]: float(reply["params"]["weight"]) for reply in experiment.training_replies()[2]}
    assert sum(replies.values()) == 333.0
    assert weight(experiment, 2) == pytest.approx((30 * replies["node_0"] + 40 * replies["node_1"] + 50 * replies["node_2"]) / 120)
    assert held(experiment) == {}


def test_what_a_trainer_is_told_to_let_follow():
    trainer = ModelTrainer()
    trainer.test_round()
    assert trainer.training.step == "model test"
    trainer.start_round()
    assert (trainer.training.step, trainer.training.state) == ("training round", "initial")
    trainer.finish()
    assert (trainer.training.step, trainer.training.state) == ("nothing", "completed")
