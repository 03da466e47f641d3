"""What is changed between two rounds, and what must not follow from it; real nodes, transports in memory."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedAggregatorError, FedbiomedExperimentError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedAdam, FedAverage, FedPer, FedProx
from fedbiomed.researcher.experiment import Experiment
from tests.support.moody import state


class StillPlan(TorchTrainingPlan):
    """Begins with drawn numbers, and does not move them."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self, model_args):
        return nn.ModuleDict({"body": nn.Linear(1, model_args.get("width", 1)), "norm": nn.BatchNorm1d(1)})

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.0)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        return self.model()["body"](self.model()["norm"](data)).mean()


ARGS = {"num_updates": 1, "loader_args": {"batch_size": 8}}
EXPERIMENT = {"training_plan_class": StillPlan, "training_args": ARGS, "nodes": ["node_0", "node_1"]}


def trained(experiment):
    return {name: value.numpy() for name, value in experiment.training_plan().get_model_params(only_trainable=True).items()}


def last_file(experiment):
    return Path(experiment.experimentation_path()) / f"breakpoint_{experiment.round_current() - 1:04d}"


@pytest.mark.parametrize("is_resumed", [False, True])
def test_layers_that_stayed_on_the_nodes_travel_again_with_another_aggregator(made, requests, is_resumed):
    experiment = made(aggregator=FedPer("body"), save_breakpoints=True)
    experiment.run_once()
    assert set(Serializer.load(experiment.job().params_path)["model_weights"]).isdisjoint({"body.weight", "body.bias"})
    before = trained(experiment)
    if is_resumed:
        experiment = Experiment.load_breakpoint(last_file(experiment), requests=requests, show_progress=False)
        assert {name: value.tobytes() for name, value in trained(experiment).items()} == {n: v.tobytes() for n, v in before.items()}
    experiment.set_aggregator(FedAverage)
    experiment.run_once()
    # nodes began with what the researcher has, not each with numbers of its own, and moved nothing
    for name, value in trained(experiment).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-6)


def test_buffers_may_be_kept_back_later(made):
    experiment = made(aggregator=FedAdam())
    experiment.run_once()
    experiment.set_training_args({**ARGS, "share_persistent_buffers": False})
    assert experiment.run_once() == 1
    assert sorted(experiment.aggregated_params()[1]["params"]) == ["body.bias", "body.weight", "norm.bias", "norm.weight"]


def test_a_refused_argument_can_be_left_out(made):
    experiment = made(aggregator=FedProx(), training_args={**ARGS, "fedprox_mu": 0.1})
    before = state(experiment)
    with pytest.raises(FedbiomedAggregatorError, match="leave fedprox_mu out"):
        experiment.run_once()
    assert state(experiment) == before
    experiment.set_training_args(ARGS)
    assert experiment.run_once() == 1
    experiment.set_training_args({**ARGS, "fedprox_mu": 0.1})
    with pytest.raises(FedbiomedAggregatorError, match="leave fedprox_mu out"):
        experiment.run_once()


def test_model_args_that_no_job_has_taken_yet_do_not_spoil_a_breakpoint(made, requests):
    experiment = made(model_args={"width": 1})
    experiment.run_once()
    experiment.set_model_args({"width": 2})
    experiment.breakpoint()
    resumed = Experiment.load_breakpoint(last_file(experiment), requests=requests, show_progress=False)
    assert resumed.model_args() == {"width": 1}
    assert state(resumed)["params"] == state(experiment)["params"]


@pytest.mark.parametrize("change", ["job", "params"])
def test_a_breakpoint_has_the_parameters_of_now(made, requests, change):
    experiment = made()
    experiment.run_once()
    if change == "job":
        experiment.set_job()  # begins with parameters of its own
    else:
        params = experiment.training_plan().get_model_params()
        experiment.job().update_parameters({name: value * 0 + 1 for name, value in params.items()})
    experiment.breakpoint()
    folder = last_file(experiment)
    resumed = Experiment.load_breakpoint(folder, requests=requests, show_progress=False)
    shutil.rmtree(folder)
    expected = {name: value.tobytes() for name, value in trained(experiment).items()}
    assert {name: value.tobytes() for name, value in trained(resumed).items()} == expected
    assert (Path(resumed.job().params_path).parent, Path(resumed.job().params_path).is_file()) == (folder.parent, True)
    assert experiment.run_once() == resumed.run_once() == 1
    assert state(resumed)["params"] == state(experiment)["params"]


class Failing(FedAverage):
    """Fails in the end, after it removed what would be needed to undo the round."""

    def finish(self):
        Path(self.path).unlink()
        raise ValueError("this is the reason")


def test_what_cannot_be_undone_does_not_hide_the_reason(made, caplog):
    experiment = made(aggregator=Failing)
    experiment.aggregator().path = experiment.job().params_path
    with pytest.raises(ValueError, match="this is the reason"):
        experiment.run_once()
    assert "the model on this side may not be as it was before" in caplog.text


def test_a_plan_whose_file_is_gone(made):
    experiment = made()
    Path(experiment.training_plan_file(display=False)).unlink()
    with pytest.raises(FedbiomedExperimentError, match=r"cannot read the plan: .*; set_job\(\) writes it anew"):
        experiment.training_plan_file()


class Angry:
    """Does not take the first round that it hears of."""

    has_heard = False

    def report(self, store):
        if not self.has_heard:
            self.has_heard = True
            raise ValueError("not now")


def test_a_reporter_that_fails_ends_its_round_and_nothing_of_it_is_left(made):
    experiment = made(training_args={**ARGS, "test_ratio": 0.25, "test_on_global_updates": True})
    experiment.run_once()
    experiment.monitor().add_reporter(Angry())
    before, store = state(experiment), copy.deepcopy(experiment.monitor()._metric_store)
    with pytest.raises(ValueError, match="not now"):
        experiment.run_once()
    assert state(experiment) == before
    assert experiment.monitor()._metric_store == store
    assert experiment.run_once() == 1
    assert {*experiment.history["round"]} == {0, 1}
