"""Differential privacy of a torch plan's training: clipping, noise, what is refused."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedDPControllerError
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.privacy_cost import PrivacyCost, spent_epsilon
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.privacy_noise import Noise
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

X = np.array([[3.0, 4.0], [0.3, 0.4]], dtype=np.float32)
Y = np.array([[-1.0], [-1.0]], dtype=np.float32)


class Slope(TorchTrainingPlan):
    """Loss mean(-y (w x)): the gradient of a sample is -y x, whatever w is; w begins at 0."""

    data = (X, Y)

    def init_model(self):
        model = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        return DataManager(*self.data)

    def training_step(self, data, target):
        return -(target * self.model()(data)).mean()


def ready(plan_class, dp_args, aggregator_args=None, **args):
    plan = plan_class()
    given = {"num_updates": 1, "loader_args": {"batch_size": 2}, "random_seed": 5, "dp_args": dp_args, **args}
    plan.post_init({}, TrainingArgs(given, only_required=False), aggregator_args or {})
    manager = plan.training_data()
    manager.extend_loader_args(plan.loader_args())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(0.0))
    return plan


def trained(plan_class, dp_args, aggregator_args=None, **args):
    plan = ready(plan_class, dp_args, aggregator_args, **args)
    plan.training_routine()
    return plan


def local(sigma, clip):
    return {"type": "local", "sigma": sigma, "clip": clip}


def weight(plan):
    return plan.after_training_params()["weight"].numpy().ravel()


def test_the_gradient_of_each_sample_is_clipped():
    # gradients x: (3, 4) of norm 5 is clipped to (0.6, 0.8), (0.3, 0.4) of norm 0.5 stays; the step is minus half their sum, lr 1
    assert weight(trained(Slope, local(0.0, 1.0))) == pytest.approx([-0.45, -0.6], abs=1e-5)
    # beyond every norm: as without privacy
    assert weight(trained(Slope, local(0.0, 50.0))) == pytest.approx(weight(trained(Slope, None)), abs=1e-5)


def test_a_model_may_be_called_by_its_forward():
    class Forward(Slope):
        def training_step(self, data, target):
            return -(target * self.model().forward(data)).mean()

    plan = trained(Forward, local(0.0, 1.0), num_updates=2)
    assert weight(plan) == pytest.approx(weight(trained(Slope, local(0.0, 1.0), num_updates=2)), abs=1e-6)
    assert "forward" not in vars(plan.model())  # as it was


def test_noise_of_a_step_has_the_deviation_sigma_times_clip():
    class Wide(Slope):
        data = (np.zeros((1, 20_000), np.float32), np.ones((1, 1), np.float32))

        def init_model(self):
            model = nn.Linear(20_000, 1, bias=False)
            nn.init.zeros_(model.weight)
            return model

    drawn = weight(trained(Wide, local(3.0, 0.5))) / 1.5  # a batch of one sample: nothing but noise, lr 1
    # chi square of 20000 draws: (n-1) s^2 lies within n +- 5.3 sqrt(2n) but for 1 seed in 10 million
    assert abs((drawn**2).sum() - 20_000) < 5.3 * math.sqrt(40_000)
    assert abs(drawn.mean()) < 5.3 / math.sqrt(20_000)


@pytest.mark.parametrize("seed", [None, 3], ids=["of the system", "seeded"])
def test_noise_is_normal(seed):
    noise = Noise(seed)
    drawn = noise.normal(torch.zeros(100, 100), 2.0).numpy().ravel() / 2
    ordered = np.sort(drawn)
    expected = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in ordered])
    # Kolmogorov and Smirnov: sqrt(n) D stays below 2.9 but for 1 draw in 10 million: 2 exp(-2 * 2.9^2)
    assert math.sqrt(len(ordered)) * np.abs(expected - np.arange(len(ordered)) / len(ordered)).max() < 2.9
    again = Noise(seed).normal(torch.zeros(100, 100), 2.0).numpy().ravel() / 2
    assert np.array_equal(drawn, again) == (seed is not None)
    other = Noise(seed, "node_2/1").normal(torch.zeros(100, 100), 2.0).numpy().ravel() / 2
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 5.3 / 100


def test_central_noise_is_added_once_to_what_leaves():
    class Large(Slope):
        def init_model(self):
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(2, 5000), nn.Linear(5000, 1))

        def init_optimizer(self):
            return torch.optim.SGD(self.model().parameters(), lr=0.01)

    clean, noisy = trained(Large, {"sigma": 0.0, "clip": 0.5}), trained(Large, {"sigma": 4.0, "clip": 0.5})
    left = noisy.after_training_params()
    for name, value in clean.after_training_params().items():
        assert torch.equal(value, noisy.get_model_params()[name])  # the model itself was trained without noise
        drawn = (left[name] - value).numpy().ravel() / 2.0
        assert abs((drawn**2).sum() - drawn.size) < 6 * math.sqrt(2 * drawn.size) + 12
    assert all(torch.equal(value, noisy.after_training_params()[name]) for name, value in left.items())
    assert noisy.after_training_params(flatten=True)[:3] == left["0.weight"].ravel()[:3].tolist()
    assert noisy.privacy_cost() == PrivacyCost(sample_rate=1.0, noise_multiplier=4.0, steps=1)


def test_a_plan_that_has_not_trained_adds_no_noise():
    assert weight(ready(Slope, {"sigma": 4.0, "clip": 1.0})).tolist() == [0.0, 0.0]


def test_batches_are_drawn_by_poisson_sampling():
    sizes = []

    class Counting(Slope):
        data = (np.ones((40, 2), np.float32), np.ones((40, 1), np.float32))

        def training_step(self, data, target):
            sizes.append(len(data))
            return -(target * self.model()(data)).mean()

    plan = trained(Counting, local(1.0, 1.0), num_updates=200, loader_args={"batch_size": 4})
    assert plan.privacy_cost() == PrivacyCost(sample_rate=0.1, noise_multiplier=1.0, steps=200)
    assert 0 not in sizes  # the plan's code is not called for an empty batch
    # the mean of 200 binomial sizes (40, 0.1): 4 +- 0.14; a fixed size would never vary
    assert abs(sum(sizes) / 200 - 4) < 5.3 * math.sqrt(3.6 / 200)
    assert min(sizes) < 3
    assert max(sizes) > 6


def test_a_batch_without_samples_is_a_step_of_noise():
    class Rare(Slope):
        data = (np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))

    plan = trained(Rare, local(1.0, 1.0), num_updates=20, loader_args={"batch_size": 1})
    assert plan.updates_done() == 20
    assert np.isfinite(weight(plan)).all()


def test_layers_that_mix_samples_are_replaced_on_both_sides():
    class Normed(Slope):
        def init_model(self):
            self.norm = nn.BatchNorm1d(4)
            self.net = nn.Sequential(nn.Linear(2, 4), self.norm, nn.Linear(4, 1), nn.BatchNorm1d(1, affine=False))
            return self.net

    plan = trained(Normed, local(0.5, 1.0))
    assert isinstance(plan.model()[1], nn.GroupNorm)
    assert isinstance(plan.model()[3], nn.GroupNorm)
    assert plan.model() is plan.net
    researcher = Normed()
    researcher.post_init({}, TrainingArgs({"dp_args": local(0.5, 1.0)}, only_required=False))
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(plan.after_training_params()) == list(researcher.get_model_params()) == names


def test_adam_steps_on_the_private_gradient():
    class Adams(Slope):
        def init_optimizer(self):
            return torch.optim.Adam(self.model().parameters(), lr=0.5)

    # Adam's first step is lr times the sign of the gradient
    assert weight(trained(Adams, local(0.0, 1.0))) == pytest.approx([-0.5, -0.5], abs=1e-3)


def test_fedprox_pulls_beside_the_clipped_gradient():
    # step 1: as without; step 2: the gradient (0.45, 0.6) and mu times the way so far (-0.45, -0.6)
    assert weight(trained(Slope, local(0.0, 1.0), num_updates=2, fedprox_mu=1.0)) == pytest.approx([-0.45, -0.6], abs=1e-5)
    assert weight(trained(Slope, local(0.0, 1.0), num_updates=2)) == pytest.approx([-0.9, -1.2], abs=1e-5)


def test_scaffold_corrects_after_clipping():
    told = {"aggregator_name": "Scaffold", "aggregator_correction": {"weight": torch.tensor([[10.0, 0.0]])}}
    # gradient (0.45, 0.6) less the correction (10, 0), which is not clipped
    assert weight(trained(Slope, local(0.0, 1.0), told)) == pytest.approx([-0.45 + 10, -0.6], abs=1e-5)


def test_with_a_seed_all_is_repeated_and_without_it_nothing():
    runs = [trained(Slope, local(1.0, 1.0), num_updates=3, random_seed=seed) for seed in (4, 4, None, None)]
    assert weight(runs[0]).tobytes() == weight(runs[1]).tobytes()
    assert weight(runs[2]).tobytes() != weight(runs[3]).tobytes()


def test_the_guard_is_asked_before_the_first_step():
    asked = []

    def refuse(cost):
        asked.append(cost)
        raise FedbiomedDPControllerError("too much")

    plan = ready(Slope, local(2.0, 1.0), num_updates=7)
    plan.privacy_guard = refuse
    with pytest.raises(FedbiomedDPControllerError, match="too much"):
        plan.training_routine()
    assert asked == [PrivacyCost(sample_rate=1.0, noise_multiplier=2.0, steps=7)]
    assert weight(plan).tolist() == [0.0, 0.0]
    plan.privacy_guard = None
    plan.training_routine()  # the refusal left nothing behind
    assert plan.updates_done() == 7


def declearn(self):
    return Optimizer(lr=0.1)


def own_routine(self, history_monitor=None, node_args=None):
    return None


def penalised(self, data, target):
    return Slope.training_step(self, data, target) + self.model().weight.square().sum() + self.model().weight.sum()


def flattening(self, data, target):
    return self.model()(data.reshape(-1, 1).repeat(1, 2)).mean()


def counting_model(self):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen += len(x)
            return x

    return nn.Sequential(Counter(), nn.Linear(2, 1))


def frozen_model(self):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("hooks", "text"),
    [
        ({"init_optimizer": declearn}, r"optimizers of torch.*torch\.optim\.SGD"),
        ({"training_routine": own_routine}, "training_routine"),
        ({"training_step": penalised}, "parameter 'weight' beside its layer.*weight_decay"),
        ({"training_step": flattening}, "4 gradients came out for 2 samples"),
        ({"init_model": counting_model}, "changed the buffer '0.seen'.*share_persistent_buffers"),
        ({"init_model": frozen_model}, "layer '0' .BatchNorm1d. mixes the samples.*GroupNorm"),
    ],
    ids=["declearn", "routine", "penalty", "samples", "buffer", "frozen"],
)
def test_what_cannot_be_made_private_is_refused(hooks, text):
    with pytest.raises(FedbiomedDPControllerError, match=text):
        trained(type("Odd", (Slope,), hooks), local(1.0, 1.0))


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.01, 1.1, 1000), (0.2, 4.0, 50), (1.0, 5.0, 10)])
def test_epsilon_is_that_of_the_library(rate, noise, steps):
    event = GaussianDpEvent(noise) if rate == 1 else PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
    expected = RdpAccountant().compose(event, steps).get_epsilon(1e-5)
    halves = [PrivacyCost(sample_rate=rate, noise_multiplier=noise, steps=steps // 2)] * 2
    assert spent_epsilon(halves, 1e-5) == pytest.approx(expected, rel=1e-12)


def test_epsilon_at_the_edges():
    assert spent_epsilon([], 1e-5) == 0
    assert spent_epsilon([PrivacyCost(sample_rate=0.5, noise_multiplier=0.0, steps=1)], 1e-5) == math.inf
    with pytest.raises(FedbiomedDPControllerError, match="sample rate above 0"):
        PrivacyCost(sample_rate=0.0, noise_multiplier=1.0, steps=1)


@pytest.mark.parametrize("delta", [0.0, 1.0, 2, -1e-5, math.nan, "1e-5"])
def test_delta_is_a_probability(delta):
    with pytest.raises(FedbiomedDPControllerError, match="delta is a number above 0 and below 1"):
        spent_epsilon([PrivacyCost(sample_rate=0.5, noise_multiplier=1.0, steps=1)], delta)


def test_without_opacus_one_line_says_what_to_install(tmp_path):
    code = """if True:
        import sys
        sys.modules["opacus"] = None
        from fedbiomed.common.exceptions import FedbiomedDPControllerError
        from fedbiomed.researcher.experiment import Experiment
        experiment = Experiment()
        before = experiment.training_args()
        try:
            experiment.set_training_args({"dp_args": {"sigma": 1.0, "clip": 1.0}})
        except FedbiomedDPControllerError as error:
            print(error)
        print(experiment.training_args() == before)
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "FB616: differential privacy error: differential privacy needs the package opacus, which is not installed here: "
        "pip install 'fedbiomed[dp]'",
        "True",
    ], done.stderr
