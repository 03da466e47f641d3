"""Client-level differential privacy: the formulas by hand, noise by its deviation, and whole rounds."""

import math

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent
from dp_accounting.rdp import RdpAccountant
from torch import nn

from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.clientleveldp import correction
from fedbiomed.researcher.aggregators import ClientLevelDP
from fedbiomed.researcher.experiment import Experiment
from tests.support.plans import LinePlan, SidePlan

START = {"w": np.zeros(2), "b": np.zeros(1)}
UPDATE = {"w": np.array([3.0, 0.0]), "b": np.array([4.0])}  # a way of norm 5
QUIET = {"noise_multiplier": 0.0, "beta": 0.0}
EXPERIMENT = {
    "training_plan_class": LinePlan,
    "training_args": {"num_updates": 4, "loader_args": {"batch_size": 8}, "random_seed": 7},
}


def one_round(aggregator, updates, weights=None, *, bits=None, round_=0, start=START):
    aggregator.begin(round_)
    _, large = aggregator.create_aggregator_args(start, list(updates))
    for node_id, params in updates.items():
        bit = 1.0 if bits is None else bits[node_id]
        aggregator.hear(node_id, {"told": {"within_clipping_bound": bit}})
        aggregator.add(node_id, params, 1 if weights is None else weights[node_id])
    return aggregator.finish(), large


def test_a_node_clips_its_way_and_tells_whether_it_was_within():
    module = nn.Linear(2, 1)
    half = correction(TrainingArgs(), {"aggregator_clipping_bound": 1.0})
    came = {"weight": torch.tensor([[1.0, 1.0]]), "bias": torch.tensor([1.0]), "steps": torch.tensor(4)}
    half.arriving(came)
    half.begin(module, dict(module.named_parameters()))
    left = half.leaving({"weight": torch.tensor([[4.0, 1.0]]), "bias": torch.tensor([5.0]), "steps": torch.tensor(9)})
    # the way (3, 0, 4) of norm 5 is scaled by 0.2; what is not trained leaves as it came
    assert left["weight"].tolist() == [[pytest.approx(1.6), 1.0]]
    assert left["bias"].tolist() == [pytest.approx(1.8)]
    assert left["steps"].item() == 4
    assert half.tells() == {"within_clipping_bound": 0.0}
    half.leaving({"weight": torch.tensor([[1.6, 1.0]]), "bias": torch.tensor([1.79]), "steps": torch.tensor(9)})
    assert half.tells() == {"within_clipping_bound": 1.0}


def test_a_parameter_of_two_names_leaves_clipped_under_both():
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    module[1].weight = module[0].weight
    half = correction(TrainingArgs(), {"aggregator_clipping_bound": 50.0})
    half.arriving({"0.weight": torch.tensor([[1.0]]), "1.weight": torch.tensor([[1.0]])})
    half.begin(module, dict(module.named_parameters()))
    left = half.leaving({"0.weight": torch.tensor([[4.0]]), "1.weight": torch.tensor([[4.0]])})
    assert (left["0.weight"].item(), left["1.weight"].item()) == (4.0, 4.0)


@pytest.mark.parametrize("settings", [{}, {"weighted": True}, {"weighted": True, "per_client_example_cap": 20}])
def test_identical_updates_give_themselves(settings):
    made, _ = one_round(ClientLevelDP(10.0, **QUIET, **settings), {"a": UPDATE, "b": UPDATE}, {"a": 10, "b": 30})
    assert made["w"].tolist() == [3.0, 0.0]
    assert made["b"].tolist() == [4.0]


def test_the_researcher_clips_what_a_node_did_not():
    made, large = one_round(ClientLevelDP(1.0, **QUIET), {"a": UPDATE})
    assert (made["w"].tolist(), made["b"].tolist()) == ([pytest.approx(0.6), 0.0], [pytest.approx(0.8)])
    assert large == {"a": {"aggregator_clipping_bound": 1.0}}


def test_weights_are_capped():
    updates = {"a": {"w": np.array([1.0, 0.0]), "b": np.zeros(1)}, "b": START}
    for settings, expected in (({}, 0.5), ({"weighted": True}, 0.75), ({"weighted": True, "per_client_example_cap": 20}, 2 / 3)):
        made, _ = one_round(ClientLevelDP(10.0, **QUIET, **settings), updates, {"a": 30, "b": 10})
        assert made["w"][0] == pytest.approx(expected)


def test_the_bound_follows_the_quantile_of_the_norms():
    aggregator = ClientLevelDP(**QUIET)
    assert (aggregator.clipping_bound, aggregator.quantile, aggregator.clipping_lr) == (0.1, 0.5, 1.0)
    one_round(aggregator, {"a": START, "b": START})
    assert aggregator.clipping_bound == pytest.approx(0.06065, abs=1e-5)  # 0.1 exp(-(1 - 0.5))
    one_round(aggregator, {"a": START, "b": START}, bits={"a": 0.0, "b": 1.0})
    assert aggregator.clipping_bound == pytest.approx(0.06065, abs=1e-5)
    one_round(aggregator, {"a": START}, bits={"a": 0.0})
    assert aggregator.clipping_bound == pytest.approx(0.1)


def test_momentum_by_hand():
    aggregator = ClientLevelDP(10.0, noise_multiplier=0.0)
    first, _ = one_round(aggregator, {"a": UPDATE})
    second, _ = one_round(aggregator, {"a": first}, round_=1, start=first)
    assert second["w"][0] == pytest.approx(3.0 + 0.9 * 3.0)


def test_noise_multipliers_of_ways_and_bits():
    assert ClientLevelDP().update_noise_multiplier() == pytest.approx(1.1547, abs=1e-4)  # (1 - 1/4) ^ -1/2
    assert ClientLevelDP(adaptive_clipping=False).update_noise_multiplier() == 1.0
    with pytest.raises(FedbiomedAggregatorError, match="above noise_multiplier / 2 = 1, not 1"):
        ClientLevelDP(noise_multiplier=2.0)


def test_noise_has_the_deviation_that_it_says():
    start = {"w": np.zeros(20_000)}
    made, _ = one_round(ClientLevelDP(0.5, noise_multiplier=1.0, seed=3), {"a": start, "b": start}, start=start)
    drawn = made["w"] / (2 / math.sqrt(3) * 0.5 / 2)
    # chi square of 20000 draws: within n +- 5.3 sqrt(2n) but for 1 seed in 10 million
    assert abs((drawn**2).sum() - 20_000) < 5.3 * math.sqrt(40_000)
    again = [
        one_round(ClientLevelDP(0.5, seed=seed), {"a": start}, round_=round_, start=start)[0]["w"] for seed, round_ in ((3, 0), (3, 1))
    ]
    assert abs(np.corrcoef(*again)[0, 1]) < 5.3 / math.sqrt(20_000)


def test_epsilon_is_that_of_one_release_for_each_round():
    aggregator = ClientLevelDP(noise_multiplier=1.5, seed=1)
    assert aggregator.epsilon(1e-3) == 0
    for round_ in range(3):
        one_round(aggregator, {"a": START}, round_=round_)
    expected = RdpAccountant().compose(GaussianDpEvent(1.5), 3).get_epsilon(1e-3)
    assert aggregator.epsilon(1e-3) == aggregator.epsilon(1e-3, rounds=3) == pytest.approx(expected)
    assert ClientLevelDP(**QUIET).epsilon(1e-3, rounds=1) == math.inf


def test_a_node_that_does_not_tell_is_refused():
    aggregator = ClientLevelDP()
    with pytest.raises(AggregationError, match="node_a does not tell"):
        aggregator.hear("node_a", {})


def test_rounds_and_a_breakpoint(made):
    def private():
        return ClientLevelDP(0.05, noise_multiplier=0.5, seed=11)

    unbroken = made(aggregator=private())
    unbroken.run(rounds=1)
    bound = unbroken.aggregator().clipping_bound
    unbroken.run(rounds=1)
    stopped = made(aggregator=private(), save_breakpoints=True)
    stopped.run(rounds=1)
    resumed = Experiment.load_breakpoint(stopped.experimentation_path(), stopped._requests, show_progress=False)
    resumed.run(rounds=1, increase=True)
    ends = [experiment.aggregated_params()[1]["params"] for experiment in (unbroken, resumed)]
    assert all(np.asarray(ends[0][name]).tobytes() == np.asarray(value).tobytes() for name, value in ends[1].items())
    assert resumed.aggregator().epsilon(1e-3) == unbroken.aggregator().epsilon(1e-3) > 0
    assert resumed.aggregator().clipping_bound == unbroken.aggregator().clipping_bound != bound
    sent = unbroken.aggregated_params()[0]["params"]
    for reply in unbroken.training_replies()[1]:
        trained = [name for name in sent if "running" not in name and "num_batches" not in name]
        way = math.sqrt(sum(float(((reply["params"][name] - sent[name]) ** 2).sum()) for name in trained))
        assert way <= bound * 1.0001
        assert reply["told"]["within_clipping_bound"] in (0.0, 1.0)


def test_scikit_learn_plans_are_refused(made):
    experiment = made(
        training_plan_class=SidePlan, model_args={"n_features": 2, "n_classes": 2}, aggregator=ClientLevelDP(), training_args={"epochs": 1}
    )
    with pytest.raises(FedbiomedAggregatorError, match="torch plans only"):
        experiment.run(rounds=1)
