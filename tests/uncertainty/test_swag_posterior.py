"""The SWAG posterior: formulas worked out by hand, and the faults that it must not have."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedUncertaintyError, FedbiomedUserInputError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.swag_schedule import SwagSchedule
from fedbiomed.common.uncertainty import SWAG
from fedbiomed.common.uncertainty.moments import MomentCollector


def draws(posterior, count, **options):
    return torch.stack([posterior.sample(**options)["w"] for _ in range(count)])


def test_moments_of_snapshots_by_hand():
    collector = MomentCollector(max_rank=2)
    for value in (1.0, 2.0, 6.0):
        collector.add({"w": torch.tensor([value], dtype=torch.float32)})
    # means 1, 1.5, 3; squares (1 + 4 + 36) / 3; the last two deviations: 2 - 1.5 and 6 - 3
    assert float(collector.first()["w"]) == pytest.approx(3.0)
    assert float(collector.second()["w"]) == pytest.approx(41 / 3)
    assert collector.deviations()["w"].flatten().tolist() == [0.5, 3.0]
    assert {value.dtype for value in (collector.first()["w"], collector.second()["w"])} == {torch.float64}
    with pytest.raises(FedbiomedUncertaintyError, match="snapshot 4 of SWAG holds NaN"):
        collector.add({"w": torch.tensor([math.nan])})


def test_a_small_variance_between_large_numbers_is_not_lost():
    collector = MomentCollector()
    for value in (1000.0, 1000.001):
        collector.add({"w": torch.tensor([value], dtype=torch.float64)})
    posterior = SWAG(collector.first(), collector.second())
    assert float(posterior.variance()["w"]) == pytest.approx(0.0005**2, rel=1e-3)
    assert collector.deviations() is None


def test_the_width_of_a_draw_is_a_root():
    # S2: variance 4 - 0 = 4, so the standard deviation is 2, not 4
    posterior = SWAG({"w": torch.zeros(1)}, {"w": torch.full((1,), 4.0)}, seed=5)
    found = draws(posterior, 4000)
    assert float(posterior.std()["w"]) == 2.0
    assert float(found.std()) == pytest.approx(2.0, rel=0.04)
    # the scale multiplies the variance: 2 * sqrt(0.25)
    assert float(draws(posterior, 4000, scale=0.25).std()) == pytest.approx(1.0, rel=0.04)
    assert draws(posterior, 2, scale=0.0).abs().max() == 0


def test_draws_differ_and_follow_the_seed():
    # S3: each draw is a new one
    one, other = (SWAG({"w": torch.zeros(3)}, {"w": torch.ones(3)}, seed=2) for _ in range(2))
    first, second = one.sample()["w"], one.sample()["w"]
    assert not torch.equal(first, second)
    assert torch.equal(other.sample()["w"], first)
    assert torch.equal(one.sample(seed=9)["w"], one.sample(seed=9)["w"])
    source = torch.Generator().manual_seed(9)
    assert torch.equal(one.sample(generator=source)["w"], one.sample(seed=9)["w"])


def test_a_rounding_error_below_zero_is_clamped():
    # S4: second < first^2 by rounding
    posterior = SWAG({"w": torch.tensor([1.0])}, {"w": torch.tensor([1.0 - 1e-12], dtype=torch.float64)})
    assert posterior.variance()["w"].tolist() == [1e-30]
    assert posterior.sample()["w"].tolist() == [pytest.approx(1.0, abs=1e-12)]


def test_the_low_rank_part_by_hand():
    # K = 3 deviations 1, -1, 2 and no diagonal: variance (1 + 1 + 4) / (2 (3 - 1)) = 1.5
    mean = {"w": torch.zeros(1)}
    posterior = SWAG(mean, {"w": torch.zeros(1)}, {"w": torch.tensor([[1.0], [-1.0], [2.0]])}, seed=1)
    assert posterior.rank == 3
    assert float(draws(posterior, 2500).var()) == pytest.approx(1.5, rel=0.1)
    assert draws(posterior, 10, low_rank=False).abs().max() < 1e-12
    # with a diagonal of 4, half of which counts: 2 + 1.5, times a scale of 2
    posterior = SWAG(mean, {"w": torch.full((1,), 4.0)}, {"w": torch.tensor([[1.0], [-1.0], [2.0]])}, seed=1)
    assert float(draws(posterior, 2500, scale=2.0).var()) == pytest.approx(7.0, rel=0.1)


def test_one_draw_goes_along_the_deviations_of_all_names():
    deviations = {"a": torch.tensor([[1.0], [0.0]]), "b": torch.tensor([[-2.0], [0.0]])}
    zero = {"a": torch.zeros(1), "b": torch.zeros(1)}
    drawn = SWAG(zero, zero, deviations, seed=0).sample()
    assert float(drawn["b"]) == pytest.approx(-2 * float(drawn["a"]))


def test_the_variance_is_that_of_the_mixture():
    # 7.3: nodes with mean 1, variance 1 and mean 3, variance 1, shares 1/4 and 3/4: first 2.5, second 1/4 * 2 + 3/4 * 10 = 8
    posterior = SWAG({"w": torch.tensor([2.5])}, {"w": torch.tensor([8.0])})
    assert float(posterior.variance()["w"]) == pytest.approx(1 + (1 / 4 * 1.5**2 + 3 / 4 * 0.5**2))


class Net(nn.Module):
    """A batch normalisation between two weights, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.front = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)
        self.drop = nn.Dropout(0.9)

    def forward(self, inputs):
        return self.drop(self.norm(self.front(inputs)))


def of_net(spread=1.0, **options):
    model = Net()
    first = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    second = {name: value.square() + spread for name, value in first.items()}
    return model, SWAG(first, second, model=model, **options)


def test_the_statistics_of_a_batch_normalisation_are_renewed_for_each_draw():
    # S11: the mean and variance behind `front` are w and w^2 times those of the inputs 0, 2 and 4: 2 and 4 (unbiased)
    model, posterior = of_net(seed=3)
    batches = [torch.tensor([[0.0], [2.0], [4.0]])]
    drawn = posterior.draw(batch_norm_loader=batches)
    width = drawn.front.weight.item()
    assert float(drawn.norm.running_mean) == pytest.approx(2 * width, abs=1e-5)
    assert float(drawn.norm.running_var) == pytest.approx(4 * width**2, rel=1e-4)
    assert drawn.norm.momentum == 0.1
    assert not any(layer.training for layer in drawn.modules())
    assert float(drawn.frozen) == 5.0
    assert all(layer.training for layer in model.modules())
    assert float(model.norm.running_mean) == 0.0


def test_statistics_are_means_over_all_batches():
    _, posterior = of_net(seed=3)
    pairs = [(torch.tensor([[0.0], [2.0]]), None), (torch.tensor([[4.0], [6.0]]), None)]
    drawn = posterior.draw(batch_norm_loader=pairs)
    assert float(drawn.norm.running_mean) == pytest.approx(3 * drawn.front.weight.item(), abs=1e-5)


def test_a_batch_normalisation_without_batches_is_refused():
    _, posterior = of_net()
    with pytest.raises(FedbiomedUncertaintyError, match="give batch_norm_loader"):
        posterior.predict(torch.ones(2, 1))
    with pytest.raises(FedbiomedUncertaintyError, match="gave no batch"):
        posterior.predict(torch.ones(2, 1), batch_norm_loader=iter([]))
    mean, _ = posterior.predict(torch.ones(2, 1), keep_batch_norm=True)
    assert mean.shape == (2, 1)


def test_a_prediction_by_hand():
    # the output is w x with w normal of mean 3 and variance 4: mean 6, variance 16 at x = 2; evaluation mode, though the model trains
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.5))
    posterior = SWAG({"0.weight": [[3.0]]}, {"0.weight": [[13.0]]}, model=model)
    mean, spread = posterior.predict(torch.tensor([[2.0]]), 1500, seed=4)
    assert float(mean) == pytest.approx(6.0, abs=0.25)
    assert float(spread["variance"]) == pytest.approx(16.0, rel=0.12)
    again, _ = posterior.predict(torch.tensor([[2.0]]), 1500, seed=4)
    assert torch.equal(mean, again)
    assert not torch.equal(posterior.predict(torch.ones(1, 1), 3)[0], posterior.predict(torch.ones(1, 1), 3)[0])
    assert model.training


def test_members_of_a_classification_disagree():
    # S3: with the same network N times the mutual information is 0
    model = nn.Linear(2, 3)
    first = {name: p.detach() for name, p in model.named_parameters()}
    posterior = SWAG(first, {name: value.square() + 1 for name, value in first.items()}, model=model, seed=0)
    _, spread = posterior.predict(torch.ones(4, 2), softmax=True)
    assert float(spread["mutual_info"].min()) > 0.01
    assert float(spread["variance"].min()) > 0


def test_a_posterior_survives_a_file(tmp_path):
    # S5: what was kept can be read again, with its names
    one = SWAG({"a": np.ones(2), "b": [[1.0]]}, {"a": np.full(2, 3.0), "b": [[2.0]]}, {"a": np.eye(2), "b": np.ones((2, 1, 1))})
    one.save(tmp_path / "posterior.mpk")
    other = SWAG.load(tmp_path / "posterior.mpk")
    assert all(torch.equal(one.sample(seed=1)[name], other.sample(seed=1)[name]) for name in ("a", "b"))
    with pytest.raises(FedbiomedUncertaintyError, match="cannot read a posterior"):
        SWAG.load(tmp_path / "none.mpk")
    Serializer.dump({"first": 1}, tmp_path / "other.mpk")
    with pytest.raises(FedbiomedUncertaintyError, match="holds no first and second moments"):
        SWAG.load(tmp_path / "other.mpk")


def test_names_count_and_not_their_order():
    # S10
    model = nn.Linear(2, 1)
    posterior = SWAG({"bias": [7.0], "weight": [[1.0, 2.0]]}, {"weight": [[1.0, 4.0]], "bias": [49.0]}, model=model)
    assert posterior.draw().weight.tolist() == [[pytest.approx(1.0), pytest.approx(2.0)]]
    assert posterior.draw().bias.tolist() == [pytest.approx(7.0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (({}, {}), "none"),
        (({"w": [1.0]}, {}), "none"),
        (({"w": [1.0]}, {"v": [1.0]}), "do not fit: v: "),
        (({"w": [1.0]}, {"w": [1.0, 2.0]}), r"w: \(2,\) and \(1,\)"),
        (({"w": [math.inf]}, {"w": [1.0]}), "not all finite"),
        (({"w": [1.0]}, {"w": [1.0]}, {"w": [[1.0]]}), "two rows or more"),
        (({"w": [1.0]}, {"w": [1.0]}, {"w": [[1.0, 2.0], [1.0, 2.0]]}), "deviations do not fit"),
        (("moments", {"w": [1.0]}), "arrays by name"),
    ],
)
def test_moments_that_do_not_fit_are_refused(given, said):
    with pytest.raises(FedbiomedUncertaintyError, match=said):
        SWAG(*given)


def test_wrong_uses_are_refused():
    posterior = SWAG({"w": [1.0]}, {"w": [1.0]})
    with pytest.raises(FedbiomedUncertaintyError, match="low_rank=False"):
        posterior.sample(low_rank=True)
    with pytest.raises(FedbiomedUncertaintyError, match="scale must be"):
        posterior.sample(scale=-1.0)
    with pytest.raises(FedbiomedUncertaintyError, match="knows no network"):
        posterior.predict(torch.ones(1, 1))
    with pytest.raises(FedbiomedUncertaintyError, match="draws must be an integer of 2"):
        of_net()[1].predict(torch.ones(1, 1), 1)
    with pytest.raises(FedbiomedUncertaintyError, match="trainable parameters do not fit"):
        posterior.with_model(nn.Linear(1, 1))


def test_a_posterior_gets_a_network_later():
    model, posterior = of_net(seed=8)
    bare = SWAG(posterior.first(), posterior.second(), seed=8).with_model(copy.deepcopy(model))
    assert torch.equal(bare.sample()["front.weight"], posterior.sample()["front.weight"])


def test_a_schedule():
    assert [n for n in range(1, 10) if SwagSchedule().is_due(n)] == list(range(1, 10))
    assert [n for n in range(1, 10) if SwagSchedule(start=2, every=3, max_snapshots=2).is_due(n)] == [2, 5]
    schedule = SwagSchedule(start=2, unit="epochs", max_rank=0)
    assert SwagSchedule.load(schedule.save()) == schedule
    wrong = [{"start": 0}, {"every": 0}, {"max_snapshots": 0}, {"max_rank": 1}, {"max_rank": -1}, {"unit": "days"}, {"start": True}]
    for options in wrong:
        with pytest.raises(FedbiomedUserInputError, match="of SWAG must be"):
            SwagSchedule(**options)
    with pytest.raises(FedbiomedUserInputError, match="has the keys"):
        SwagSchedule.load({"begin": 1})
