"""Optimizers' states that go with their models, over real nodes; only the transports are in memory. Numbers are worked out by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import (
    AggregationError,
    FedbiomedOptimizerError,
    FedbiomedTrainerError,
    FedbiomedTrainingPlanError,
    FedbiomedUserInputError,
    FileStoreError,
)
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.optimizers.native import NativeTorchOptimizer
from fedbiomed.common.optimizers.travelling import STATE_KEY, TRAVELS_KEY
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.travelling_optimizer import correction
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.common.transport.memory_store import MemoryFileStore
from fedbiomed.researcher.aggregated_params import read_params
from fedbiomed.researcher.events import CyclicWeightTransfer, DaisyChainTrainer, MergeTrainer, ModelTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.optimizer_travel import RoundStates
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.strategies import CyclicOrder, DefaultStrategy
from tests.support.plans import LinePlan, SidePlan

NODE_COUNT = 3
NODES = ["node_0", "node_1", "node_2"]
STEP = {"node_0": 1.0, "node_1": 10.0, "node_2": 100.0}


class MomentumPlan(TorchTrainingPlan):
    """One step: v <- v / 2 + s, w <- w + v, where s is 1, 10, 100 on the nodes of 30, 40, 50 rows; a file `fails` makes it fail."""

    def init_dependencies(self):
        return [
            "import pandas as pd",
            "import pathlib",
            "from fedbiomed.common.optimizers import Optimizer",
            "from declearn.optimizer.modules import MomentumModule",
        ]

    def init_model(self, model_args):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        if self.model_args().get("is_declearn"):
            return Optimizer(lr=1.0, modules=[MomentumModule(beta=0.5)])  # noqa: F821  declared above
        return torch.optim.SGD(self.model().parameters(), lr=1.0, momentum=0.5)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        self.rows = len(table)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821
            raise ValueError("in a bad mood")
        return -self.model().weight.sum() * 10.0 ** (self.rows / 10 - 3)


class OwnRoutinePlan(MomentumPlan):
    """Trains by a routine of its own."""

    def init_dependencies(self):
        return [*super().init_dependencies(), "from tests.researcher.test_optimizer_travel import MomentumPlan"]

    def training_routine(self, history_monitor=None, node_args=None):
        self.model().weight.data += 1.0


ARGS = {"num_updates": 1, "loader_args": {"batch_size": 8}, "random_seed": 7}
EXPERIMENT = {"training_plan_class": MomentumPlan, "training_args": ARGS}


def seed_of(cycle):
    """A seed for which the permutation of round 0 of three nodes is this one."""
    return next(seed for seed in range(1000) if np.random.default_rng([seed, 0]).permutation(3).tolist() == cycle)


SEED = seed_of([1, 2, 0])  # the model of node_0 goes to node_1, that of node_1 to node_2, that of node_2 to node_0


def weights(experiment):
    return {node: float(read_params(path)["weight"]) for node, path in experiment.job().node_params.paths().items()}


def moments(experiment):
    """The momentum that goes to each node next; torch's follows the gradient."""
    paths = experiment.job().node_params.optimizers.paths()
    return {node: -float(Serializer.load(path)["state"][0]["momentum_buffer"]) for node, path in paths.items()}


def average(experiment, round_):
    return float(experiment.aggregated_params()[round_]["params"]["weight"])


def test_a_model_keeps_its_momentum_when_it_changes_places(made):
    trainer = DaisyChainTrainer(1, 2, SEED, with_optimizer=True)
    experiment = made(trainer=trainer, round_limit=4)
    experiment.run_once()
    assert weights(experiment) == moments(experiment) == {"node_1": 1.0, "node_2": 10.0, "node_0": 100.0}
    experiment.run_once()
    # v: 100 / 2 + 1 = 51, 1 / 2 + 10 = 10.5, 10 / 2 + 100 = 105; w: 100 + 51, 1 + 10.5, 10 + 105
    assert average(experiment, 1) == pytest.approx((151 + 11.5 + 115) / 3)
    left = {"node_0": 51.0, "node_1": 10.5, "node_2": 105.0}
    assert weights(experiment) == {}
    expected = {receiver: left[giver] for receiver, giver in trainer.order(1, NODES).items()}
    assert moments(experiment) == expected, "an average keeps them, and they change places with the models"
    experiment.run_once()
    mean, order = 277.5 / 3, trainer.order(2, NODES)
    grown = {node: expected[node] / 2 + STEP[node] for node in NODES}
    assert weights(experiment) == pytest.approx({receiver: mean + grown[giver] for receiver, giver in order.items()})
    experiment.run_once()
    # over the nodes: v 166.5, then 166.5 / 2 + 111 = 194.25, then 194.25 / 2 + 111 = 208.125
    assert average(experiment, 3) == pytest.approx((277.5 + 194.25 + 208.125) / 3)


def test_without_it_a_torch_optimizer_begins_anew(made):
    experiment = made(trainer=DaisyChainTrainer(1, 2, SEED, with_optimizer=False), round_limit=2)
    experiment.run()
    assert average(experiment, 1) == pytest.approx(222 / 3)
    assert moments(experiment) == {}


def test_it_is_the_default_where_it_can_be(made):
    assert DaisyChainTrainer().with_optimizer is None
    assert (MergeTrainer().with_optimizer, CyclicWeightTransfer().with_optimizer) == (False, False)
    experiment = made(trainer=DaisyChainTrainer(1, 2, SEED), round_limit=2)
    experiment.run()
    assert average(experiment, 1) == pytest.approx(277.5 / 3)


def test_who_does_not_answer_keeps_its_state(made, mood):
    experiment = made(trainer=DaisyChainTrainer(0, 4), round_limit=4, node_selection_strategy=DefaultStrategy(min_nodes=2))
    experiment.run_once()
    path = mood(2, "fails")
    experiment.run(rounds=1)
    assert moments(experiment) == {"node_0": 1.5, "node_1": 15.0, "node_2": 100.0}
    path.unlink()
    experiment.run(rounds=1)
    assert moments(experiment) == {"node_0": 1.75, "node_1": 17.5, "node_2": 150.0}


def test_each_node_may_read_only_its_own_state(made, federation):
    experiment = made(trainer=DaisyChainTrainer(1, 5, 0))
    experiment.run_once()
    optimizers = experiment.job().node_params.optimizers
    keys = {node: experiment.job()._files.ref(optimizers.url(node)).key for node in NODES}
    assert {node: set(federation.files.find(key).readers) for node, key in keys.items()} == {node: {node} for node in NODES}
    experiment.run(rounds=2)
    assert [federation.files.find(key) for key in keys.values()] == [None] * 3, "what no order needs is taken out of the repository"
    left = list(Path(experiment.experimentation_path()).glob("node_own_optimizer_*"))
    assert len(left) == 6, "those that are needed, and those of the round before until the next one begins"


def test_another_trainer_begins_without_them(made):
    experiment = made(trainer=DaisyChainTrainer(1, 5, 0))
    experiment.run(rounds=1)
    experiment.set_trainer(ModelTrainer(skip_model_tests=True))
    experiment.run(rounds=1)
    assert moments(experiment) == {}


def test_a_failed_round_leaves_states_as_they_were(made, mood):
    one, other = (made(trainer=DaisyChainTrainer(1, 3, 5), round_limit=3) for _ in range(2))
    one.run()
    other.run_once()
    before, path = moments(other), mood(0, "fails")
    with pytest.raises(Exception, match="2 of 3 nodes answered round 1"):
        other.run_once()
    assert moments(other) == before
    path.unlink()
    other.run()
    assert average(other, 2) == average(one, 2)


def test_a_chain_of_adam_goes_on_from_a_breakpoint_bit_for_bit(made, requests):
    args = {"epochs": 1, "num_updates": None, "loader_args": {"batch_size": 8}, "random_seed": 7}
    setting = {"training_plan_class": LinePlan, "save_breakpoints": True, "training_args": args, "round_limit": 5}
    unbroken = made(trainer=DaisyChainTrainer(1, 3, 11, with_optimizer=True), **setting)
    unbroken.run()
    for begun in (1, 2):  # amid a chain, and after an average
        folder = Path(unbroken.experimentation_path()) / f"breakpoint_{begun:04d}"
        resumed = Experiment.load_breakpoint(folder, requests=requests, show_progress=False)
        assert resumed.trainer().with_optimizer is True
        assert sorted(resumed.job().node_params.optimizers.paths()) == NODES
        shutil.rmtree(folder)  # breakpoints may be removed once an experiment goes on
        resumed.breakpoint()
        resumed.run()
        one, other = (e.aggregated_params()[4]["params"] for e in (unbroken, resumed))
        assert all(np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one), begun


def test_what_declearn_remembers_goes_with_the_model(made):
    setting = {"model_args": {"is_declearn": True}, "round_limit": 2}
    experiment = made(trainer=DaisyChainTrainer(1, 2, SEED, with_optimizer=True), **setting)
    experiment.run()
    assert average(experiment, 1) == pytest.approx(277.5 / 3)
    staying = made(trainer=DaisyChainTrainer(1, 2, SEED, with_optimizer=False), **setting)
    staying.run()
    # each node's own v: 1 / 2 + 1, 10 / 2 + 10, 100 / 2 + 100
    assert average(staying, 1) == pytest.approx((100 + 1.5 + 1 + 15 + 10 + 150) / 3)


def test_it_travels_from_node_to_node(made, mood, requests):
    order = CyclicOrder(order=["node_1", "node_0", "node_2"])
    setting = {"node_selection_strategy": order, "round_limit": 4, "save_breakpoints": True}
    experiment = made(trainer=CyclicWeightTransfer(with_optimizer=True), **setting)
    experiment.run(rounds=1)
    path = mood(0, "fails")
    experiment.run(rounds=1)
    path.unlink()
    assert moments(experiment) == {"node_0": 10.0}, "who is skipped does not change it"
    experiment.run(rounds=2)
    # v: 10, then 105 on node_2, then 62.5 on node_1
    assert average(experiment, 2) == pytest.approx(10 + 105)
    assert average(experiment, 3) == pytest.approx(10 + 105 + 62.5)
    folder = Path(experiment.experimentation_path()) / "breakpoint_0001"
    resumed = Experiment.load_breakpoint(folder, requests=requests, show_progress=False)
    resumed.run()
    assert average(resumed, 3) == average(experiment, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training_plan_class": SidePlan}, r"SidePlan is no torch plan, so there is no state of an optimizer to send; give with_opt"),
        ({"training_args": {**ARGS, "dp_args": {"type": "local", "clip": 1.0, "sigma": 1.0}}}, "dp_args"),
        ({"training_plan_class": OwnRoutinePlan}, "OwnRoutinePlan has a training_routine.. of its own"),
    ],
)
def test_what_cannot_is_refused(made, changes, said):
    if "training_plan_class" in changes and changes["training_plan_class"] is SidePlan:
        changes = {**changes, "model_args": {"n_features": 2, "n_classes": 2}}
    for trainer in (DaisyChainTrainer(with_optimizer=True), CyclicWeightTransfer(with_optimizer=True)):
        strategy = CyclicOrder(seed=1) if isinstance(trainer, CyclicWeightTransfer) else None
        experiment = made(trainer=trainer, node_selection_strategy=strategy, **changes)
        with pytest.raises(FedbiomedTrainerError, match=said):
            experiment.run_once()
        assert experiment.round_current() == 0


def test_where_it_cannot_the_default_goes_without(made):
    experiment = made(trainer=DaisyChainTrainer(1, 2), training_plan_class=SidePlan, model_args={"n_features": 2, "n_classes": 2})
    assert experiment.run(rounds=1) == 1
    assert moments(experiment) == {}


def test_wrong_options():
    for trainer in (DaisyChainTrainer, CyclicWeightTransfer):
        with pytest.raises(FedbiomedUserInputError, match="with_optimizer must be True, False or None, not 1"):
            trainer(with_optimizer=1)


# --- states that do not fit


def adam(steps=1, features=2):
    torch.manual_seed(0)
    model = nn.Linear(features, 1)
    wrapped = NativeTorchOptimizer(TorchModel(model), torch.optim.Adam(model.parameters(), lr=0.1))
    for _ in range(steps):
        model(torch.ones(1, features)).sum().backward()
        wrapped.step()
    return wrapped


def test_settings_do_not_travel():
    giver, taker = adam(), adam(0)
    giver.optimizer.param_groups[0]["lr"] = 9.0
    taker.take_travelling_state(giver.travelling_state())
    assert taker.optimizer.param_groups[0]["lr"] == 0.1
    assert torch.equal(taker.optimizer.state_dict()["state"][0]["exp_avg"], giver.optimizer.state_dict()["state"][0]["exp_avg"])
    assert adam(0).travelling_state() is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state["state"][0]["exp_avg"].fill_(float("nan")), "holds NaN"),
        (lambda state: state["state"][0].update(exp_avg=torch.ones(3, 2)), r"exp_avg of parameter 0 does not fit to its shape \[1, 2\]"),
        (lambda state: state["state"][0].update(exp_avg="text"), "exp_avg of parameter 0 does not fit"),
        (lambda state: state["state"].update({5: {}}), "an entry 5, the plan has 2 parameters"),
        (lambda state: state.update(optimizer="SGD"), "that of a SGD"),
        (lambda state: state.update(shapes=[[3]]), r"of parameters \[\[3\]\], the plan has a Adam"),
        (lambda state: state.pop("state"), "the plan has a Adam"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path, spoil, said):
    state, taker = adam().travelling_state(), adam(2)
    before = taker.travelling_state()
    spoil(state)
    with pytest.raises(FedbiomedOptimizerError, match=said):
        taker.take_travelling_state(state)
    assert torch.equal(taker.travelling_state()["state"][0]["exp_avg"], before["state"][0]["exp_avg"])
    Serializer.dump(
        {"researcher_id": "r", "job_id": "j", "node_id": "n", "model_weights": {}, "sent": {TRAVELS_KEY: state}}, tmp_path / "result.mpk"
    )
    with pytest.raises(AggregationError, match="the optimizer's state of n cannot go on with its model"):
        RoundStates(taker).take("n", {"params_path": str(tmp_path / "result.mpk")})


def test_a_state_from_which_no_step_can_be_made_is_not_handed_on():
    state, plan = adam().travelling_state(), adam(0)
    plan.check_travelling_state(state)
    del state["state"][1]["exp_avg_sq"]
    with pytest.raises(FedbiomedOptimizerError, match="a Adam can make no step from the state: KeyError"):
        plan.check_travelling_state(state)
    assert plan.travelling_state() is None, "only a copy made the steps"


def test_a_full_repository_at_an_average_changes_nothing(made, federation, requests):
    files = Full(federation.files, "researcher_test")
    experiment = made(trainer=DaisyChainTrainer(1, 2, SEED), requests=Requests(replace(requests.connection, files=files)))
    experiment.run(rounds=1)
    before, held = moments(experiment), weights(experiment)
    files.left = 1  # the first of the three states goes through
    with pytest.raises(FileStoreError, match="disk is full"):
        experiment.run(rounds=1)
    assert (experiment.round_current(), moments(experiment), weights(experiment)) == (1, before, held)
    files.left = None
    experiment.run(rounds=1)
    assert average(experiment, 1) == pytest.approx(277.5 / 3)


class Full(MemoryFileStore):
    """A repository that takes so many files more; None: all."""

    left = None

    def put(self, path, **options):
        if self.left == 0:
            raise FileStoreError("FB203: 507: the repository's disk is full")
        self.left = None if self.left is None else self.left - 1
        return super().put(path, **options)


def test_a_node_refuses_what_is_no_state_and_dp_args():
    assert correction(TrainingArgs({}), {}) is None
    with pytest.raises(FedbiomedTrainingPlanError, match="does not leave a node with dp_args"):
        correction(TrainingArgs({"dp_args": {"type": "local", "clip": 1.0, "sigma": 1.0}}), {TRAVELS_KEY: True})
    with pytest.raises(FedbiomedTrainingPlanError, match="is a list, not a dict"):
        correction(TrainingArgs({}), {TRAVELS_KEY: True, STATE_KEY: [1]})
