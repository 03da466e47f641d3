"""FedAvgM, FedAdam, FedYogi, FedAdagrad, Flash and FedNova: numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError
from fedbiomed.researcher.aggregators import FedAdagrad, FedAdam, FedAvgM, FedNova, FedOpt, FedYogi, Flash
from tests.support.aggregators import begun, folded

START = {"w": np.array([1.0, 1.0])}
# two nodes, 1 and 3 samples: the mean is (1 * 1 + 3 * 3) / 4 = 2.5, so D is 1.5 in the first coordinate and 0 in the second
WEIGHTS = {"a": 1, "b": 3}
UPDATES = {"a": {"w": np.array([1.0, 1.0])}, "b": {"w": np.array([3.0, 1.0])}}
HALF = {"a": {"w": np.array([1.5, 1.0])}}  # D = 0.5


def test_momentum_adds_up():
    # v = 1.5, x = 1 + 0.5 * 1.5 = 1.75; then from 1: v = 0.8 * 1.5 + 0.5 = 1.7, x = 1 + 0.5 * 1.7 = 1.85
    aggregator = FedAvgM(eta=0.5, beta=0.8)
    assert folded(aggregator, START, UPDATES, WEIGHTS)["w"].tolist() == [1.75, 1.0]
    assert folded(aggregator, START, HALF)["w"].tolist() == pytest.approx([1.85, 1.0])
    assert aggregator.moments["w"]["momentum"].tolist() == pytest.approx([1.7, 0.0])
    assert aggregator.moments["w"]["momentum"].dtype == np.float64


def test_adam():
    # m = 0.2 * 1.5 = 0.3; v = 0.9 * 0.01 + 0.1 * 2.25 = 0.234; x = 1 + 0.5 * 0.3 / (sqrt 0.234 + 0.1) = 1.256996...
    # then D = 0.5: m = 0.8 * 0.3 + 0.2 * 0.5 = 0.34; v = 0.9 * 0.234 + 0.1 * 0.25 = 0.2356
    aggregator = FedAdam(eta=0.5, beta_1=0.8, beta_2=0.9, tau=0.1)
    assert folded(aggregator, START, UPDATES, WEIGHTS)["w"].tolist() == pytest.approx([1 + 0.15 / (0.234**0.5 + 0.1), 1.0])
    assert folded(aggregator, START, HALF)["w"].tolist() == pytest.approx([1 + 0.17 / (0.2356**0.5 + 0.1), 1.0])


def test_yogi_grows_and_shrinks_by_the_difference():
    # v from 0.01, below 2.25: v = 0.01 + 0.1 * 2.25 = 0.235; m = 0.3
    # then D = 0.1, 0.01 is below v: v = 0.235 - 0.1 * 0.01 = 0.234; m = 0.24 + 0.02 = 0.26
    aggregator = FedYogi(eta=0.5, beta_1=0.8, beta_2=0.9, tau=0.1)
    assert folded(aggregator, START, UPDATES, WEIGHTS)["w"].tolist() == pytest.approx([1 + 0.15 / (0.235**0.5 + 0.1), 1.0])
    assert folded(aggregator, START, {"a": {"w": np.array([1.1, 1.0])}})["w"].tolist() == pytest.approx(
        [1 + 0.13 / (0.234**0.5 + 0.1), 1.0]
    )


def test_adagrad_only_grows():
    # v = 0.01 + 2.25 = 2.26, m = D = 1.5; then v = 2.26 + 0.25 = 2.51, m = 0.5
    aggregator = FedAdagrad(eta=0.5, tau=0.1)
    assert folded(aggregator, START, UPDATES, WEIGHTS)["w"].tolist() == pytest.approx([1 + 0.75 / (2.26**0.5 + 0.1), 1.0])
    assert folded(aggregator, START, HALF)["w"].tolist() == pytest.approx([1 + 0.25 / (2.51**0.5 + 0.1), 1.0])


@pytest.mark.parametrize(("kind", "v"), [(FedAdam, 0.001 * 2.25), (FedYogi, 0.001 * 2.25), (FedAdagrad, 2.25)])
def test_the_rules_of_the_heart_disease_benchmark(kind, v):
    # beta 0.9 and 0.999, tau 1e-8, v from 0, no correction: m = 0.15
    options = {"eta": 0.01, "beta_1": 0.9, "tau": 1e-8, "initial_v": 0.0}
    aggregator = kind(**options) if kind is FedAdagrad else kind(**options, beta_2=0.999)
    assert folded(aggregator, START, UPDATES, WEIGHTS)["w"].tolist() == pytest.approx([1 + 0.01 * 0.15 / (v**0.5 + 1e-8), 1.0])


def test_defaults_are_the_published_ones():
    assert FedAvgM().settings() == {"eta": 1.0, "beta": 0.9}
    assert FedAdam().settings() == {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3, "initial_v": None}
    assert FedYogi().settings() == {"eta": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3, "initial_v": None}
    assert FedAdagrad().settings() == {"eta": 0.1, "beta_1": 0.0, "tau": 1e-3, "initial_v": None}
    assert Flash().settings() == {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-9}


def test_flash_makes_larger_steps_where_the_size_drifts():
    # D = 0.1: m = 0.05, v = 0.005, d = 0; x = 1 + 0.1 * 0.05 / sqrt 0.005
    # D = 0.2: m = 0.125, v = 0.5 * 0.005 + 0.5 * 0.04 = 0.0225, D^2 - v = 0.0175, b_3 = 0.005 / 0.0225 = 2 / 9,
    #   d = 7 / 9 * 0.0175 = 0.0136111; x = 1 + 0.1 * 0.125 / (0.15 - 0.0136111)
    aggregator = Flash(beta_1=0.5, beta_2=0.5)
    small, large = ({"a": {"w": np.array([1 + delta, 1.0])}} for delta in (0.1, 0.2))
    assert folded(aggregator, START, small)["w"].tolist() == pytest.approx([1 + 0.005 / 0.005**0.5, 1.0])
    assert folded(aggregator, START, large)["w"].tolist() == pytest.approx([1 + 0.0125 / (0.15 - 7 / 9 * 0.0175), 1.0])


def test_flash_never_steps_backwards_or_out_of_sight():
    aggregator, start = Flash(), START
    for _ in range(20):  # D = 10 each time: the paper's divisor is then negative
        update = {"a": {"w": start["w"] + np.array([10.0, 0.0])}}
        after = folded(aggregator, start, update)
        assert 0 < after["w"][0] - start["w"][0] < 10
        assert after["w"][1] == 1.0
        start = after


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FedAdam(eta=0), "eta"),
        (lambda: FedAdam(beta_1=1.0), "beta_1"),
        (lambda: FedYogi(beta_2=-0.1), "beta_2"),
        (lambda: FedAdagrad(tau=0), "tau"),
        (lambda: FedAdam(initial_v=-1), "initial_v"),
        (lambda: FedAvgM(beta=float("nan")), "beta"),
        (lambda: FedAvgM(eta="1"), "eta"),
        (lambda: Flash(tau=True), "tau"),
        (lambda: FedNova(momentum=1), "momentum"),
    ],
)
def test_settings_out_of_range_are_refused(make, name):
    with pytest.raises(FedbiomedAggregatorError, match=f"FB401: {name} of .* must be a number"):
        make()


def test_the_frame_is_no_aggregator():
    with pytest.raises(TypeError, match="abstract"):
        FedOpt(1.0)


class Plan:
    """What an aggregator asks of a torch plan: one parameter and the statistics of a batch normalisation."""

    def type(self):
        return TrainingPlans.TorchTrainingPlan

    def model(self):
        return nn.BatchNorm1d(1, affine=True)


@pytest.mark.parametrize("make", [FedAdam, FedAvgM, Flash, FedNova], ids=lambda c: c.__name__)
def test_what_is_not_trained_takes_the_plain_mean(make):
    start = {name: value.clone() for name, value in Plan().model().state_dict().items()}
    updates = {
        node_id: {**start, "running_mean": torch.tensor([value]), "num_batches_tracked": torch.tensor(int(10 * value))}
        for node_id, value in (("a", 3.0), ("b", 4.0))
    }
    aggregator = make()
    aggregator.check_values(n_updates=2, training_plan=Plan())
    aggregator.create_aggregator_args(start, ["a", "b"])
    for node_id, steps in (("a", 1), ("b", 7)):
        aggregator.hear(node_id, {"optimizer_args": {"num_updates": steps}})
        aggregator.add(node_id, updates[node_id], 1 if node_id == "a" else 3)
    result = aggregator.finish()
    assert result["running_mean"].tolist() == [3.75]
    assert result["num_batches_tracked"].item() == 37.5
    assert result["weight"].tolist() == [1.0]


def test_it_must_be_told_what_was_sent():
    with pytest.raises(AggregationError, match=r"cannot use the update of a: .*create_aggregator_args"):
        FedAdam().add("a", START, 1)
    assert FedAvgM().aggregate(UPDATES, {"a": 0.25, "b": 0.75}, global_model=START)["w"].tolist() == [2.5, 1.0]


def test_another_model_begins_anew(caplog):
    aggregator = FedAvgM()
    folded(aggregator, START, UPDATES)
    assert folded(aggregator, {"w": np.zeros(3)}, {"a": {"w": np.ones(3)}})["w"].tolist() == [1.0, 1.0, 1.0]
    assert "moments of FedAvgM begin anew" in caplog.text


def test_a_step_too_large_for_its_dtype_is_an_error():
    start = {"w": np.full(1, 60000, np.float16)}
    with pytest.raises(AggregationError, match="FedAvgM makes parameter 'w' infinite"):
        folded(FedAvgM(eta=100), start, {"a": {"w": np.full(1, 61000, np.float16)}})


def test_moments_need_a_folder():
    aggregator = FedAdam()
    assert "state_filename" not in aggregator.save_state_breakpoint()["parameters"]
    folded(aggregator, START, UPDATES)
    with pytest.raises(FedbiomedBreakpointError, match="the state of FedAdam needs a folder"):
        aggregator.save_state_breakpoint()


def test_fednova_divides_by_the_number_of_steps():
    # x = 0: a goes 2 in 1 step, b goes 8 in 4 steps: both 2 a step; 2.5 steps on average: 5 (the plain mean is 5 too, by chance of shares)
    start, updates = {"w": np.zeros(1)}, {"a": {"w": np.array([2.0])}, "b": {"w": np.array([8.0])}}
    assert folded(FedNova(), start, updates, steps={"a": 1, "b": 4})["w"].tolist() == [5.0]
    # a goes 2 in 1 step, b goes 4 in 4: (2 + 1) / 2 = 1.5 a step, times 2.5 is 3.75, where the mean is 3
    updates["b"] = {"w": np.array([4.0])}
    assert folded(FedNova(), start, updates, steps={"a": 1, "b": 4})["w"].tolist() == [3.75]
    # with 3 and 1 samples: (3 * 2 + 1 * 1) / 4 = 1.75 a step, (3 * 1 + 1 * 4) / 4 = 1.75 steps: 3.0625
    assert folded(FedNova(), start, updates, {"a": 3, "b": 1}, steps={"a": 1, "b": 4})["w"].tolist() == [3.0625]


def test_fednova_with_equal_steps_is_the_mean():
    for momentum in (0.0, 0.9):
        assert folded(FedNova(momentum), START, UPDATES, WEIGHTS, steps={"a": 5, "b": 5})["w"].tolist() == pytest.approx([2.5, 1.0])


def test_steps_with_momentum_count_by_how_far_they_carry():
    # rho = 0.5: 1 step carries 1; the second carries 1 and half of the first: 1 + 1.5 = 2.5; three: 1 + 1.5 + 1.75 = 4.25
    assert [FedNova(0.5).length(steps) for steps in (1, 2, 3)] == pytest.approx([1.0, 2.5, 4.25])
    assert [FedNova().length(steps) for steps in (1, 2, 3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("told", [None, {}, {"num_updates": 0}, {"num_updates": 2.5}, {"num_updates": True}], ids=str)
def test_a_node_that_does_not_tell_its_steps_is_named(told):
    with pytest.raises(AggregationError, match="node_x does not tell how many steps it made"):
        FedNova().hear("node_x", {"optimizer_args": told})
    aggregator = FedNova()
    begun(aggregator, START, [])
    with pytest.raises(AggregationError, match="update of node_x: it must be told its number of steps"):
        aggregator.add("node_x", START, 1)
