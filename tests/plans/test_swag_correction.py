"""The nodes' half of SWAG, on plans in this process; numbers are worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.swag_schedule import SwagSchedule
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.training_plans.correction_choice import chosen_corrections
from fedbiomed.common.training_plans.corrections.swag import WeightMoments


class Steady(TorchTrainingPlan):
    """Each step adds 1 to `fast` and 10 to `slow`; one parameter is frozen, and there is a batch normalisation with buffers."""

    def init_model(self):
        model = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("fast", "slow", "frozen")})
        for layer in model.values():
            nn.init.zeros_(layer.weight)
        model["frozen"].weight.requires_grad = False
        model["norm"] = nn.BatchNorm1d(1, affine=False)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        return DataManager(np.arange(6, dtype=np.float32)[:, None], np.ones((6, 1), dtype=np.float32))

    def training_step(self, data, target):
        self.model()["norm"](data)
        return -(self.model()["fast"].weight.sum() + 10 * self.model()["slow"].weight.sum())


class Diverging(Steady):
    """Ends in infinity."""

    def training_step(self, data, target):
        return super().training_step(data, target) * torch.tensor(float("inf"))


def trained(schedule, plan_class=Steady, **args):
    given = TrainingArgs({"num_updates": 4, "loader_args": {"batch_size": 2}, "random_seed": 1, **args}, only_required=False)
    plan = plan_class()
    plan.post_init({}, given, {"aggregator_name": "FedAverage", "swag": schedule.save()})
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(0.0))
    assert plan.swag() is None
    plan.training_routine()
    return plan


NAMES = ["fast.weight", "slow.weight", "frozen.weight", "norm.running_mean"]


def test_moments_by_name_of_what_is_trained():
    plan = trained(SwagSchedule(start=2, every=2))
    sent = plan.node_half().sends(NAMES)["swag"]
    # after steps 2 and 4: 2 and 4, mean 3, of squares 10; for `slow` ten times that
    assert {name: value.item() for name, value in sent["first"].items()} == {"fast.weight": 3.0, "slow.weight": 30.0}
    assert {name: value.item() for name, value in sent["second"].items()} == {"fast.weight": 10.0, "slow.weight": 1000.0}
    assert sent["snapshots"] == 2
    kept = plan.node_half().kept()["swag"]
    # deviations from the running means 2 and 3
    assert kept["deviations"]["fast.weight"].flatten().tolist() == [0.0, 1.0]


def test_nothing_is_told_of_what_is_not_sent():
    sent = trained(SwagSchedule()).node_half().sends(["fast.weight"])["swag"]
    assert [list(sent[part]) for part in ("first", "second")] == [["fast.weight"]] * 2


def test_the_last_deviations_only():
    kept = trained(SwagSchedule(max_rank=2)).node_half().kept()["swag"]
    # snapshots 3 and 4, running means 2 and 2.5
    assert kept["deviations"]["fast.weight"].flatten().tolist() == [1.0, 1.5]
    assert trained(SwagSchedule(max_rank=0)).node_half().kept() == {}


def test_passes_over_the_data_count_as_epochs():
    # 3 batches: after 3 steps, and after the 4 that there are
    sent = trained(SwagSchedule(unit="epochs")).node_half().sends(NAMES)["swag"]
    assert sent["first"]["fast.weight"].item() == pytest.approx(3.5)
    sent = trained(SwagSchedule(unit="epochs", start=2), epochs=2, num_updates=None).node_half().sends(NAMES)["swag"]
    assert sent["first"]["fast.weight"].item() == 6.0


def test_the_node_has_the_low_rank_part():
    plan = trained(SwagSchedule(max_rank=3))
    posterior = plan.swag()
    assert posterior.rank == 3
    assert plan.node_half().personal(plan.model()) is None


def test_what_was_kept_is_taken_up():
    first, other = trained(SwagSchedule()), WeightMoments(SwagSchedule())
    other.take_kept(first.node_half().kept()["swag"])
    assert torch.equal(other.posterior(first.model()).sample(seed=1)["fast.weight"], first.swag().sample(seed=1)["fast.weight"])
    other.take_kept({"first": {"other": [1.0]}, "second": {"other": [1.0]}, "deviations": None})
    with pytest.raises(FedbiomedTrainingPlanError, match="does not fit to the model"):
        other.posterior(first.model())


def test_what_goes_wrong_is_told():
    with pytest.raises(FedbiomedTrainingPlanError, match="first snapshot after 5 steps, this training ended after 4"):
        trained(SwagSchedule(start=5))
    with pytest.raises(FedbiomedTrainingPlanError, match="snapshot 1 of SWAG holds NaN or infinite values in fast"):
        trained(SwagSchedule(), Diverging)
    with pytest.raises(FedbiomedTrainingPlanError, match="does not go with dp_args"):
        chosen_corrections(TrainingArgs({"dp_args": {"sigma": 1.0, "clip": 1.0}}, only_required=False), {"swag": {}})
    for wrong in ("often", {"start": "soon"}, {"begin": 1}):
        with pytest.raises(FedbiomedTrainingPlanError, match="of SWAG"):
            chosen_corrections(TrainingArgs(only_required=False), {"swag": wrong})
    assert chosen_corrections(TrainingArgs(only_required=False), {"aggregator_name": "swag"}) == []
