"""The nodes' halves that keep something on the node: steps by hand, on plans in this process."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.checkpointing.early_stopping import EarlyStopper
from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.optimizers import Optimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from tests.support.monitors import Monitor

ONES = np.ones((2, 1), dtype=np.float32)
DITTO = {"aggregator_name": "Ditto", "lambda_": 2.0}
MRMTL = {"aggregator_name": "MRMTL", "lambda_": 2.0}
APFL = {"aggregator_name": "APFL", "alpha": 0.5, "alpha_lr": 0.01, "adaptive": True}
MOON = {"aggregator_name": "MOON", "temperature": 0.5, "weight": 1.0, "layer": None}


class Line(TorchTrainingPlan):
    """y = ax from a = 1 for x = 1, y = 3; one layer more that the loss does not touch."""

    def init_model(self):
        model = nn.ModuleDict({"used": nn.Linear(1, 1, bias=False), "idle": nn.Linear(1, 1, bias=False)})
        for layer in model.values():
            nn.init.ones_(layer.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args.get("lr", 0.1))

    def training_data(self):
        return DataManager(ONES, 3 * ONES)

    def training_step(self, data, target):
        return ((self.model()["used"](data) - target) ** 2).mean() / 2

    def testing_step(self, data, target):
        return {"slope": self.model()["used"].weight.item()}


class DeclearnLine(Line):
    """With an optimizer of declearn's modules."""

    def init_optimizer(self):
        return Optimizer(lr=0.1)


class Noisy(Line):
    """With dropout and a batch normalisation."""

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    def training_data(self):
        x = np.arange(12, dtype=np.float32).reshape(-1, 1) / 12
        return DataManager(x, 3 * x, shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class Stopped(Line):
    """Asks for early stopping."""

    def early_stopping(self):
        return EarlyStopper()


class Pointed(Line):
    """Two features for x = 1, which are the weights; a loss of no gradient."""

    def init_model(self):
        model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Identity())
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        return model

    def training_step(self, data, target):
        return 0 * self.model()(data).sum()


class Featured(Pointed):
    """Says which its features are."""

    def features(self, data):
        return self.model()(data)


def built(aggregator_args, plan_class=Line, **args):
    given = TrainingArgs({"num_updates": 1, "loader_args": {"batch_size": 2}, "random_seed": 3, **args}, only_required=False)
    plan = plan_class()
    plan.post_init({}, given, aggregator_args)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(given["test_ratio"]))
    return plan


def ran(aggregator_args, kept=None, params=None, plan_class=Line, **args):
    """A round as the node makes it: what is sent, what is kept, and the plan."""
    plan = built(aggregator_args, plan_class, **args)
    half, name = plan.node_half(), aggregator_args["aggregator_name"].lower()
    if kept is not None:
        half.take_kept({name: kept})
    plan.set_model_params(half.arriving({**plan.get_model_params(), **(params or {})}))
    plan.training_routine()
    return half.leaving(plan.after_training_params()), half.kept().get(name), plan


def line(used, idle=1.0, **more):
    return {"model": {"used.weight": torch.tensor([[used]]), "idle.weight": torch.tensor([[idle]])}, **more}


def used(params):
    return params["used.weight"].item()


def as_bytes(params):
    return {name: np.asarray(value).tobytes() for name, value in params.items()}


# --- Ditto


def test_ditto_pulls_the_personal_model_to_where_the_round_began():
    # v: 1 + 0.1 * 2 = 1.2, then gradient -1.8 + 2 * 0.2 = -1.4: 1.34; w: 1.2, then 1.38
    sent, kept, _ = ran(DITTO, num_updates=2)
    assert used(kept["model"]) == pytest.approx(1.34)
    assert used(sent) == pytest.approx(1.38)


def test_ditto_goes_on_from_the_personal_model_that_was_kept():
    # v = 0, w = 1: gradient -3 + 2 * (0 - 1) = -5
    sent, kept, _ = ran(DITTO, line(0.0))
    assert used(kept["model"]) == pytest.approx(0.5)
    assert used(sent) == pytest.approx(1.2)


def test_ditto_moves_by_the_pull_alone_where_there_is_no_loss():
    # v = 2, w = 1: lr * lambda * (w - v) = -0.2
    assert ran(DITTO, line(0.0, 2.0))[1]["model"]["idle.weight"].item() == pytest.approx(1.8)


@pytest.mark.parametrize("algorithm", [DITTO, APFL], ids=lambda args: args["aggregator_name"])
def test_the_shared_model_is_that_of_averaging_to_the_bit(algorithm):
    args = {"plan_class": Noisy, "num_updates": 5, "loader_args": {"batch_size": 4}}
    plain, _, _ = ran({"aggregator_name": "FedAverage"}, **args)
    sent, kept, _ = ran(algorithm, **args)
    assert as_bytes(sent) == as_bytes(plain)
    assert kept["model"]["1.num_batches_tracked"].item() == 5
    assert as_bytes(kept["model"]) != as_bytes({name: plain[name] for name in kept["model"]})
    again = ran(algorithm, kept, plain, **args)
    assert as_bytes(again[0]) == as_bytes(ran({"aggregator_name": "FedAverage"}, None, plain, **args)[0])


@pytest.mark.parametrize("algorithm", [DITTO, APFL], ids=lambda args: args["aggregator_name"])
def test_the_personal_model_is_tested_and_the_shared_one_beside_it(algorithm):
    _, kept, plan = ran(algorithm, line(2.0, alpha=0.5), test_ratio=0.5, loader_args={"batch_size": 1})
    monitor = Monitor()
    plan.testing_routine(None, {}, monitor, before_train=False)
    share = kept.get("alpha", 1.0)
    personal = share * used(kept["model"]) + (1 - share) * 1.2
    assert [heard["metric"] for heard in monitor.heard] == [
        {"slope": pytest.approx(personal)},
        {"shared_slope": pytest.approx(1.2)},
    ]
    assert used(plan.get_model_params()) == pytest.approx(1.2)


@pytest.mark.parametrize("algorithm", [DITTO, APFL], ids=lambda args: args["aggregator_name"])
def test_optimizers_of_declearn_and_early_stopping_do_not_go_with_two_models(algorithm):
    with pytest.raises(FedbiomedTrainingPlanError, match="optimizers of torch only, not with a DeclearnOptimizer"):
        ran(algorithm, plan_class=DeclearnLine)
    with pytest.raises(FedbiomedTrainingPlanError, match=r"early stopping .* trains two models"):
        ran(algorithm, plan_class=Stopped, test_ratio=0.5)


# --- MR-MTL


def test_mr_mtl_is_only_pulled_to_what_comes():
    # v = 0, m = 1: gradient -3 + 2 * (0 - 1) = -5
    sent, kept, _ = ran(MRMTL, line(0.0))
    assert used(sent) == used(kept["model"]) == pytest.approx(0.5)


def test_mr_mtl_begins_with_what_comes_in_the_first_round():
    # v = m = 4: gradient 1
    assert used(ran(MRMTL, params={"used.weight": torch.tensor([[4.0]])})[0]) == pytest.approx(3.9)


def test_mr_mtl_leaves_the_own_model_as_it_is_with_a_rate_of_0():
    kept = line(0.1, 0.7)
    sent, after, _ = ran(MRMTL, kept, optimizer_args={"lr": 0.0})
    assert as_bytes(sent) == as_bytes(after["model"]) == as_bytes(kept["model"])


def test_mr_mtl_takes_optimizers_of_declearn_and_keeps_its_own_buffers():
    assert used(ran(MRMTL, line(0.0), plan_class=DeclearnLine)[0]) == pytest.approx(0.5)
    args = {"plan_class": Noisy, "loader_args": {"batch_size": 4}}
    _, kept, plan = ran(MRMTL, **args)
    other = {name: value + 1 for name, value in plan.get_model_params().items()}
    _, after, _ = ran(MRMTL, kept, other, **args)
    assert after["model"]["1.num_batches_tracked"].item() == 2


def test_mr_mtl_wants_an_anchor_for_each_parameter():
    plan = built(MRMTL)
    plan.set_model_params(plan.node_half().arriving({"used.weight": torch.ones(1, 1)}))
    with pytest.raises(FedbiomedTrainingPlanError, match=r"lack 'idle.weight'"):
        plan.training_routine()


# --- APFL


@pytest.mark.parametrize("steps", [1, 2])
def test_apfl_trains_the_local_model_by_the_loss_of_the_mixed_one(steps):
    # p = (3 + 1) / 2 = 2: gradient -1, by v -0.5: v = 3.05; w = 1.2; share: 1.85 * (0.5 * -0.5 + 0.5 * -2) = -2.3125, with the decay
    # -2.3025: 0.523025, which stays in the steps that follow
    _, kept, _ = ran(APFL, line(3.0, alpha=0.5), num_updates=steps)
    assert kept["alpha"] == pytest.approx(0.523025)
    if steps == 1:
        assert used(kept["model"]) == pytest.approx(3.05)
    else:  # p = 0.523025 * 3.05 + 0.476975 * 1.2 = 2.16760; gradient -0.83240, by v -0.43537
        assert used(kept["model"]) == pytest.approx(3.05 + 0.0435367, abs=1e-6)


def test_apfl_can_leave_the_share_as_it_is():
    assert ran({**APFL, "adaptive": False}, line(3.0, alpha=0.25))[1]["alpha"] == 0.25
    assert ran({**APFL, "alpha_lr": 100.0}, line(3.0, alpha=0.5))[1]["alpha"] == 1.0


def test_apfl_begins_with_the_global_model():
    # v = w = p = 1: gradient by v 0.5 * -2
    assert used(ran(APFL)[1]["model"]) == pytest.approx(1.1)


# --- MOON

OLD = {"model": {"0.weight": torch.tensor([[0.0], [1.0]])}}


@pytest.mark.parametrize(
    ("plan_class", "options"), [(Featured, {}), (Pointed, {"layer": "0"}), (Pointed, {"layer": "1"})], ids=["hook", "layer", "other layer"]
)
def test_moon_turns_the_features_away_from_those_of_the_old_model(plan_class, options):
    # z = z_glob = (1, 0), z_old = (0, 1), T = 0.5: s+ = 1, s- = 0; the loss is log(1 + e^-2); by z_2 it is 2 / (e^2 + 1); nothing by z_1
    sent, kept, _ = ran({**MOON, **options}, OLD, plan_class=plan_class)
    assert sent["0.weight"].flatten().tolist() == pytest.approx([1.0, -0.1 * 2 / (math.exp(2) + 1)])
    assert as_bytes(kept["model"]) == as_bytes(sent)


def test_moon_counts_by_its_weight():
    sent, _, _ = ran({**MOON, "weight": 3.0}, OLD, plan_class=Featured)
    assert sent["0.weight"].flatten().tolist() == pytest.approx([1.0, -0.3 * 2 / (math.exp(2) + 1)])


def test_moon_adds_nothing_in_the_first_round_and_keeps_the_model():
    sent, kept, _ = ran(MOON, plan_class=Featured)
    assert sent["0.weight"].flatten().tolist() == kept["model"]["0.weight"].flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("plan_class", "layer", "said"),
    [
        (Pointed, None, r"define features\(data\)"),
        (Pointed, "2", "no layer '2'; it has 0, 1"),
        (Line, "idle", "tensor of features"),
    ],
    ids=["nothing", "no such layer", "a layer that is not used"],
)
def test_moon_says_what_it_needs(plan_class, layer, said):
    with pytest.raises(FedbiomedTrainingPlanError, match=said):
        ran({**MOON, "layer": layer}, line(1.0), plan_class=plan_class)


# --- what came from elsewhere


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({**DITTO, "lambda_": -1.0}, "Ditto must send 'lambda_', a number of 0 or more, not -1.0"),
        ({**MRMTL, "lambda_": "much"}, "MRMTL must send 'lambda_'"),
        ({**APFL, "alpha": 1.5}, "a number from 0 to 1, not 1.5"),
        ({**APFL, "adaptive": 1}, "True or False"),
        ({**MOON, "temperature": 0.0}, "'temperature'"),
        ({**MOON, "layer": 3}, "a name or None, not 3"),
        ({"aggregator_name": "FedProx", "mu": math.nan, "adaptive": False}, "FedProx must send 'mu'"),
    ],
)
def test_options_are_checked_on_the_node_too(args, said):
    with pytest.raises(FedbiomedTrainingPlanError, match=said):
        ran(args, plan_class=Featured)


@pytest.mark.parametrize("algorithm", [DITTO, MRMTL, APFL, MOON], ids=lambda args: args["aggregator_name"])
@pytest.mark.parametrize(
    ("kept", "said"), [({"alpha": 0.5}, "has no model"), ({"alpha": 0.5, "model": {"other": torch.ones(1)}}, "differs in .*other")]
)
def test_a_state_that_does_not_fit_is_an_error(algorithm, kept, said):
    with pytest.raises(FedbiomedTrainingPlanError, match=said):
        ran(algorithm, kept, plan_class=Featured)


def test_the_proximal_term_of_the_aggregator():
    # mu = 1: steps 1.2 and then gradient -1.8 + 0.2 = -1.6: 1.36; losses 2 and 1.62
    args = {"aggregator_name": "FedProx", "mu": 1.0, "adaptive": True}
    sent, kept, plan = ran(args, num_updates=2)
    assert used(sent) == pytest.approx(1.36)
    assert kept is None
    assert plan.node_half().tells() == {"training_loss": pytest.approx(1.81)}
    assert ran({**args, "adaptive": False})[2].node_half().tells() == {}
    with pytest.raises(FedbiomedTrainingPlanError, match="leave fedprox_mu out"):
        ran(args, fedprox_mu=0.1)
