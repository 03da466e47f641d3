"""Aggregators whose nodes keep something: options, refusals, an adaptive mu; and what stays on a node, through restarts and breakpoints."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.constants import Phase
from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import APFL, MOON, MRMTL, Ditto, FedProx
from fedbiomed.researcher.experiment import Experiment
from tests.researcher.test_aggregator_rounds import ARGS, NormPlan
from tests.support.declearn_plans import TorchLine
from tests.support.memory_federation import TAGS, memory_federation
from tests.support.plans import SidePlan

ALL = [APFL, Ditto, FedProx, MOON, MRMTL]
UPDATE = {"w": np.array([1.0])}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedProx(-0.1), "mu of FedProx must be a number of 0 or more, not -0.1"),
        (lambda: FedProx(adaptive=1), "adaptive of FedProx must be True or False"),
        (lambda: FedProx(delta=0), "delta of FedProx must be a number above 0"),
        (lambda: FedProx(patience=0), "patience of FedProx must be an integer of 1 or more"),
        (lambda: Ditto(math.nan), "lambda_ of Ditto"),
        (lambda: MRMTL("1"), "lambda_ of MRMTL"),
        (lambda: APFL(1.1), "alpha of APFL must be a number from 0 to 1, not 1.1"),
        (lambda: APFL(alpha_lr=-1), "alpha_lr of APFL"),
        (lambda: APFL(adaptive=None), "adaptive of APFL"),
        (lambda: MOON(0), "temperature of MOON must be a number of 1e-6 or more"),
        (lambda: MOON(weight=math.inf), "weight of MOON"),
        (lambda: MOON(layer=2), "layer of MOON must be the name of a layer"),
    ],
)
def test_an_option_that_is_none_is_a_clear_error(make, said):
    with pytest.raises(FedbiomedAggregatorError, match=said):
        make()


@pytest.mark.parametrize("kind", ALL, ids=lambda c: c.__name__)
def test_plans_of_scikit_learn_are_refused(kind):
    plan = SidePlan()
    plan.post_init({"n_features": 2, "n_classes": 2, "loss": "log_loss"}, TrainingArgs({"epochs": 1}, only_required=False))
    with pytest.raises(FedbiomedAggregatorError, match=f"{kind.__name__} works with torch plans only"):
        kind().check_values(training_plan=plan)


def built(plan_class, **args):
    plan = plan_class()
    plan.post_init({}, TrainingArgs({"num_updates": 1, **args}, only_required=False))
    return plan


@pytest.mark.parametrize("kind", [APFL, Ditto])
def test_optimizers_of_declearn_are_refused_where_there_are_two_models(kind):
    plan = built(TorchLine, optimizer_args={"modules": ["adam"]})
    with pytest.raises(FedbiomedAggregatorError, match=f"{kind.__name__} works with the optimizers of torch only"):
        kind().check_values(training_plan=plan)
    for other in (FedProx(), MRMTL(), MOON(layer="0")):
        assert other.check_values(training_plan=plan)


def test_moon_needs_features():
    with pytest.raises(FedbiomedAggregatorError, match=r"NormPlan has no method features\(data\)"):
        MOON().check_values(training_plan=built(NormPlan))
    with pytest.raises(FedbiomedAggregatorError, match="no layer '7' for MOON; it has 0, 1, 2"):
        MOON(layer="7").check_values(training_plan=built(NormPlan))


# --- FedProx


def test_mu_adapts_to_the_losses():
    # infinity >= 1.0: one good round; 0.9: the second, mu falls; 0.8: one; 1.1: mu rises
    aggregator, found = FedProx(0.5, adaptive=True, delta=0.1, patience=2), []
    for loss in (1.0, 0.9, 0.8, 1.1):
        aggregator.take_loss(loss)
        found.append(aggregator.mu)
    assert found == [pytest.approx(mu) for mu in (0.5, 0.4, 0.4, 0.5)]


def test_mu_does_not_fall_below_0_and_equal_losses_are_good():
    aggregator = FedProx(0.15, adaptive=True, patience=1)
    for _ in range(2):
        aggregator.take_loss(1.0)
    assert aggregator.mu == 0.0


def a_round(aggregator, losses, weights):
    aggregator.begin(0)
    for node_id, loss in losses.items():
        aggregator.hear(node_id, {"told": {"training_loss": loss}})
        aggregator.add(node_id, UPDATE, weights[node_id])
    aggregator.finish()


def test_the_losses_count_by_samples_and_those_of_refused_updates_do_not():
    # (1 * 1 + 3 * 2) / 4 = 1.75, then 1.8 is worse although the plain mean fell
    aggregator, weights = FedProx(0.5, adaptive=True, patience=1), {"a": 1, "b": 3}
    a_round(aggregator, {"a": 1.0, "b": 2.0}, weights)
    assert aggregator.mu == pytest.approx(0.4)
    a_round(aggregator, {"a": 0.0, "b": 2.4}, weights)
    assert aggregator.mu == pytest.approx(0.5)
    aggregator.begin(2)
    aggregator.hear("c", {"told": {"training_loss": 99.0}})
    for node_id in weights:
        aggregator.hear(node_id, {"told": {"training_loss": 1.0}})
        aggregator.add(node_id, UPDATE, 1)
    aggregator.finish()
    assert aggregator.mu == pytest.approx(0.4)


@pytest.mark.parametrize("told", [{}, {"told": None}, {"told": {"training_loss": math.nan}}, {"told": {"training_loss": "1"}}])
def test_a_loss_that_is_not_told_is_an_error_where_it_matters(told):
    with pytest.raises(AggregationError, match="node_a does not tell its training loss"):
        FedProx(adaptive=True).hear("node_a", told)
    FedProx().hear("node_a", told)


def test_mu_stands_in_one_place():
    with pytest.raises(FedbiomedAggregatorError, match="leave fedprox_mu out"):
        FedProx().check_values(training_plan=built(NormPlan, fedprox_mu=0.1))


# --- over real nodes


class FeaturePlan(TorchTrainingPlan):
    """y = ax + b over columns x, y, with buffers, dropout and momentum; says which its features are."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()

    def features(self, data):
        return self.model()[0](data)

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.05, momentum=0.9)


def kept_files(root, job_id):
    folder = root / "node_0" / "var" / "node_state_node_0" / f"job_id_{job_id}"
    return {path: Serializer.load(path)["kept"] for path in folder.glob("optim_state_1_*")}


def flat(kept):
    """Everything in it as bytes."""
    return {key: flat(value) if isinstance(value, dict) else np.asarray(value).tobytes() for key, value in kept.items()}


def holds(content, name):
    """Whether a key of that name is anywhere in it."""
    return isinstance(content, dict) and (name in content or any(holds(value, name) for value in content.values()))


def measured(experiment, round_):
    points = experiment.job().reported_metrics[round_]["node_0"]
    return [(point["metric"], point["value"]) for point in points if point["phase"] == Phase.TEST_LOCAL]


@pytest.mark.parametrize("kind", [APFL, Ditto, MOON, MRMTL], ids=lambda c: c.__name__)
def test_what_stays_on_a_node_outlives_a_restart_and_goes_on_from_a_breakpoint(tmp_path, shared_worker, kind):
    with memory_federation(tmp_path, 0, shared_worker) as federation, federation.researcher(tmp_path / "researcher") as requests:
        with federation.node(0):
            unbroken = Experiment(
                tags=TAGS,
                training_plan_class=FeaturePlan,
                training_args={**ARGS, "share_persistent_buffers": False},
                aggregator=kind(),
                requests=requests,
                save_breakpoints=True,
                show_progress=False,
            )
            unbroken.run(rounds=2)
        (first,) = kept_files(tmp_path, unbroken.job().id)
        folder = Path(unbroken.experimentation_path()) / "breakpoint_0000"
        with federation.node(0, is_new=False):
            resumed = Experiment.load_breakpoint(folder, requests=requests, show_progress=False)
            resumed.run(rounds=1)
    states = kept_files(tmp_path, unbroken.job().id)
    assert len(states) == 2
    expected = states.pop(first)
    (found,) = states.values()
    assert flat(found) == flat(expected)
    assert found.keys() == {kind.__name__.lower()}
    # two steps in each round; the counter of the shared model, which is not sent, begins anew in each
    assert found[kind.__name__.lower()]["model"]["1.num_batches_tracked"].item() == (2 if kind is MOON else 4)
    assert measured(resumed, 1) == measured(unbroken, 1)
    record = Serializer.load(resumed.training_replies()[1][0]["params_path"])
    assert record["model_weights"].keys() == unbroken.job().training_plan.get_model_params().keys()
    assert not any(holds(record, word) for word in ("kept", "alpha", "model"))
    names = {name for name, _ in measured(resumed, 1)}
    assert names == {"MEAN_SQUARE_ERROR"} | ({"shared_MEAN_SQUARE_ERROR"} if kind in (APFL, Ditto) else set())
