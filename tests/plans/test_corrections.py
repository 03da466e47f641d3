"""The nodes' half of algorithms, on plans in this process."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.training_plans.correction_choice import chosen_corrections
from fedbiomed.common.training_plans.corrections.fedprox import ProximalTerm
from fedbiomed.common.training_plans.corrections.scaffold import ControlVariate
from tests.support.monitors import Monitor

ONES = np.ones((2, 1), dtype=np.float32)


class Line(TorchTrainingPlan):
    """y = ax from a = 1 for x = 1, y = 3; one layer more that the loss does not touch."""

    def init_model(self):
        model = nn.ModuleDict({"used": nn.Linear(1, 1, bias=False), "idle": nn.Linear(1, 1, bias=False)})
        for layer in model.values():
            nn.init.ones_(layer.weight)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        return DataManager(ONES, 3 * ONES)

    def training_step(self, data, target):
        return ((self.model()["used"](data) - target) ** 2).mean() / 2


def trained(aggregator_args, plan_class=Line, **args):
    given = TrainingArgs({"num_updates": 2, "loader_args": {"batch_size": 2}, **args}, only_required=False)
    plan, monitor = plan_class(), Monitor()
    plan.post_init({}, given, aggregator_args)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(0.0))
    plan.training_routine(history_monitor=monitor)
    return {name: value.item() for name, value in plan.get_model_params().items()}, monitor.values("Loss")


def scaffold(used, idle=0.0):
    deltas = {"used.weight": torch.tensor([[used]]), "idle.weight": torch.tensor([[idle]])}
    return {"aggregator_name": "Scaffold", "aggregator_correction": deltas}


def test_a_correction_is_subtracted_from_each_gradient():
    # a = 1: gradient a - 3 - 0.5 = -2.5, a = 1.25; then -2.25, a = 1.475; losses are the plan's: 4 / 2 and 1.75^2 / 2
    found, losses = trained(scaffold(0.5))
    assert found["used.weight"] == pytest.approx(1.475)
    assert losses == [pytest.approx(2.0), pytest.approx(1.53125)]


def test_a_parameter_that_the_loss_does_not_touch_has_a_gradient_of_zero():
    # 1 - 2 * 0.1 * (0 - 0.5) = 1.1
    assert trained(scaffold(0.0, 0.5))[0]["idle.weight"] == pytest.approx(1.1)


def test_corrections_of_zero_change_nothing_to_the_bit():
    assert trained(scaffold(0.0)) == trained({"aggregator_name": "FedAverage"}) == trained({})


def test_what_is_no_trainable_parameter_is_passed_over():
    args = scaffold(0.5)
    args["aggregator_correction"]["1.running_mean"] = torch.ones(3)
    assert trained(args) == trained(scaffold(0.5))


def test_numbers_of_numpy_are_taken():
    args = scaffold(0.5)
    args["aggregator_correction"] = {name: value.numpy().astype(np.float64) for name, value in args["aggregator_correction"].items()}
    assert trained(args) == trained(scaffold(0.5))


def test_the_proximal_term_and_a_correction_go_together():
    # step 1: gradient -2 - 0.5, distance 0: a = 1.25; step 2: -1.75 - 0.5 + 2 * 0.25 = -1.75: a = 1.425
    assert trained(scaffold(0.5), fedprox_mu=2.0)[0]["used.weight"] == pytest.approx(1.425)


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        (None, "none came"),
        ([1.0], "a list came"),
        ({}, "lack the parameter 'used.weight'; they have none"),
        ({"other": torch.ones(1)}, "they have other"),
        ({"used.weight": torch.ones(2), "idle.weight": torch.ones(1, 1)}, r"shape \(2,\), the model needs \(1, 1\)"),
        ({"used.weight": torch.tensor([[math.nan]]), "idle.weight": torch.ones(1, 1)}, "NaN"),
    ],
    ids=["nothing", "list", "empty", "other", "shape", "nan"],
)
def test_corrections_that_do_not_fit_are_a_clear_error(correction, said):
    with pytest.raises(FedbiomedTrainingPlanError, match=said):
        trained({"aggregator_name": "Scaffold", "aggregator_correction": correction})


def test_a_validation_needs_none():
    plan = Line()
    plan.post_init({}, TrainingArgs({"num_updates": 1}, only_required=False), {"aggregator_name": "Scaffold"})
    assert plan.aggregator_args() == {"aggregator_name": "Scaffold"}


def kinds(aggregator_args, **args):
    return [type(one) for one in chosen_corrections(TrainingArgs(args, only_required=False), aggregator_args)]


def test_the_choice_is_by_argument_and_by_name():
    given = {"aggregator_correction": {}}
    assert kinds({}) == []
    assert kinds({"aggregator_name": "FedAverage", **given}) == []
    assert kinds({"aggregator_name": "Scaffold", **given}) == [ControlVariate]
    assert kinds({"aggregator_name": "Scaffold", **given}, fedprox_mu=0.1) == [ProximalTerm, ControlVariate]
    assert kinds({"aggregator_name": "FedProx"}, fedprox_mu=0.1) == [ProximalTerm]
    assert kinds({"aggregator_name": "FedProx"}) == []


@pytest.mark.parametrize("name", ["correction", "../scaffold", "os", "scaffold.os", "__init__", "", None, 3, ["scaffold"]])
def test_a_name_that_is_no_file_of_the_family_loads_nothing(name):
    assert kinds({"aggregator_name": name, "aggregator_correction": {}}) == []
