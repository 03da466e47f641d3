"""What several outputs say together, worked out by hand: two members (0.9, 0.1) and (0.5, 0.5)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedUncertaintyError
from fedbiomed.common.uncertainty import DeepEnsemble, MCDropout, calibration_curve, expected_calibration_error, predictive

PAIR = [torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])]
# Of (0.7, 0.3): -0.7 ln 0.7 - 0.3 ln 0.3; mean of the entropies of (0.9, 0.1) and of (0.5, 0.5), which is ln 2
PREDICTED = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
EXPECTED = (-0.9 * math.log(0.9) - 0.1 * math.log(0.1) + math.log(2)) / 2


class Fixed(nn.Module):
    """Gives the same output for each input."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, inputs):
        return self.output.expand(len(inputs), *self.output.shape[1:])


def test_two_members_by_hand():
    mean, spread = predictive(PAIR)
    assert mean.tolist() == [[pytest.approx(0.7), pytest.approx(0.3)]]
    # (0.9 - 0.7)^2 + (0.5 - 0.7)^2, by N - 1 = 1
    assert spread["variance"].tolist() == [[pytest.approx(0.08)] * 2]
    assert spread["std"].tolist() == [[pytest.approx(0.2828, abs=5e-5)] * 2]
    found = {name: float(spread[name]) for name in ("predictive_entropy", "expected_entropy", "mutual_info")}
    assert found == {
        "predictive_entropy": pytest.approx(PREDICTED),
        "expected_entropy": pytest.approx(EXPECTED),
        "mutual_info": pytest.approx(PREDICTED - EXPECTED, abs=1e-6),
    }
    assert [round(value, 4) for value in found.values()] == [0.6109, 0.5091, 0.1017]


def test_a_single_sample_without_a_batch():
    _, spread = predictive([output[0] for output in PAIR])
    assert float(spread["mutual_info"]) == pytest.approx(0.1017, abs=5e-5)


def test_logits_with_softmax_give_the_same():
    mean, spread = predictive([output.log() + 3 for output in PAIR], softmax=True)
    assert mean[0].tolist() == pytest.approx([0.7, 0.3])
    assert float(spread["mutual_info"]) == pytest.approx(0.1017, abs=5e-5)
    assert sorted(predictive([output.log() for output in PAIR])[1]) == ["std", "variance"], "logits have no entropies"


def test_identical_members_know_nothing_of_each_other():
    _, spread = predictive([torch.tensor([[0.3, 0.7]])] * 3)
    assert float(spread["mutual_info"]) == 0.0
    assert spread["variance"].abs().max() < 1e-12


def test_classes_of_images_and_certain_outputs():
    sure = torch.zeros(2, 3, 4, 5)
    sure[:, 0] = 1
    _, spread = predictive([sure, sure.roll(1, dims=1)])
    assert spread["predictive_entropy"].shape == (2, 4, 5)
    assert float(spread["expected_entropy"].max()) == 0.0
    assert float(spread["mutual_info"][0, 0, 0]) == pytest.approx(math.log(2))


def test_a_regression_has_mean_and_variance_only():
    mean, spread = predictive([torch.tensor([[0.2], [1.0]]), torch.tensor([[0.4], [0.0]])])
    assert mean.flatten().tolist() == pytest.approx([0.3, 0.5])
    assert spread["variance"].flatten().tolist() == pytest.approx([0.02, 0.5])
    assert sorted(spread) == ["std", "variance"]
    assert sorted(predictive([torch.tensor([0.2]), torch.tensor([0.4])])[1]) == ["std", "variance"]
    assert sorted(predictive([torch.tensor([[0.2, 0.3]]), torch.tensor([[0.4, 0.1]])])[1]) == ["std", "variance"], "rows of another sum"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (PAIR[:1], "2 outputs or more .* not 1"),
        ([], "tensors of one shape"),
        ([torch.zeros(1, 2), torch.zeros(1, 3)], "one shape"),
        ([torch.tensor([[math.nan]]), torch.zeros(1, 1)], "NaN"),
    ],
)
def test_what_has_no_spread_is_refused(outputs, said):
    with pytest.raises(FedbiomedUncertaintyError, match=said):
        predictive(outputs)


def test_softmax_of_one_class_is_refused():
    with pytest.raises(FedbiomedUncertaintyError, match="two classes or more"):
        predictive([torch.zeros(3, 1)] * 2, softmax=True)


def test_an_ensemble_by_mean_and_by_vote():
    ensemble = DeepEnsemble([Fixed(output) for output in (*PAIR, torch.tensor([[0.0, 1.0]]))])
    mean, spread = ensemble.predict(torch.zeros(2, 1))
    assert mean[1].tolist() == pytest.approx([1.4 / 3, 1.6 / 3])
    assert {"variance", "mutual_info"} <= spread.keys()
    # (0.9, 0.1) and (0.5, 0.5), whose first maximum counts, name class 0; the mean would name class 1
    chosen, spread = ensemble.vote(torch.zeros(2, 1))
    assert chosen.tolist() == [0, 0]
    assert spread["votes"][0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_as_many_votes_are_decided_by_the_mean():
    ensemble = DeepEnsemble([Fixed(torch.tensor([[0.6, 0.4]])), Fixed(torch.tensor([[0.1, 0.9]]))])
    assert ensemble.vote(torch.zeros(1, 1))[0].tolist() == [1]


def test_members_answer_in_evaluation_mode_and_stay_as_they_are():
    members = [nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)) for _ in range(2)]
    members[1][1].eval()
    one, other = (DeepEnsemble(members).predict(torch.ones(4, 2))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert [[layer.training for layer in member.modules()] for member in members] == [[True, True, True], [True, True, False]]


def test_an_ensemble_of_parameters():
    ensemble = DeepEnsemble.of_params(nn.Linear(1, 1, bias=False), [{"weight": [[1.0]]}, {"weight": torch.tensor([[3.0]])}])
    mean, spread = ensemble.predict(torch.ones(1, 1))
    assert (float(mean), float(spread["variance"])) == (2.0, 2.0)
    with pytest.raises(FedbiomedUncertaintyError, match="parameters 1 of the ensemble"):
        DeepEnsemble.of_params(nn.Linear(1, 1, bias=False), [{"weight": [[1.0]]}, {"weight": [[1.0, 2.0]]}])
    with pytest.raises(FedbiomedUncertaintyError, match="there is no weight"):
        DeepEnsemble.of_params(nn.Linear(1, 1, bias=False), [{"other": [[1.0]]}] * 2)
    with pytest.raises(FedbiomedUncertaintyError, match="two torch modules"):
        DeepEnsemble([nn.Linear(1, 1)])
    with pytest.raises(FedbiomedUncertaintyError, match="take predict"):
        ensemble.vote(torch.ones(1, 1))


def test_dropout_alone_is_active_and_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.AlphaDropout(0.0))
    model[2].eval()
    before = model[1].running_mean.clone()
    mean, spread = MCDropout(model, 40, seed=1).predict(torch.ones(3, 4))
    assert mean.shape == (3, 4)
    assert float(spread["variance"].max()) > 0
    assert torch.equal(model[1].running_mean, before), "batch normalisation is in evaluation mode"
    assert [layer.training for layer in model] == [True, True, False, True]


def test_dropout_by_hand_and_by_seed():
    # an input of 1 is 0 or 2, each with probability 1/2: mean 1, variance 1
    model = nn.Dropout(0.5)
    mean, spread = MCDropout(model, 200, seed=3).predict(torch.ones(50))
    assert float(mean.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(spread["variance"].mean()) == pytest.approx(1.0, abs=0.05)
    state = torch.get_rng_state()
    assert torch.equal(MCDropout(model, 200, seed=3).predict(torch.ones(50))[0], mean)
    assert torch.equal(torch.get_rng_state(), state), "a seed leaves torch's random state alone"
    assert not torch.equal(MCDropout(model, 200, seed=4).predict(torch.ones(50))[0], mean)


def test_dropout_that_cannot_tell_is_refused():
    with pytest.raises(FedbiomedUncertaintyError, match="no dropout layer"):
        MCDropout(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0)))
    with pytest.raises(FedbiomedUncertaintyError, match="passes must be an integer of 2 or more"):
        MCDropout(nn.Dropout(0.5), 1)


def test_calibration_by_hand():
    # two bins: confidences 0.6 and 0.8 lie above 0.5; 1 is right of 2: |0.7 - 0.5| = 0.2
    shares = np.array([[0.6, 0.4], [0.2, 0.8]])
    found = calibration_curve(shares, [0, 0], bins=2)
    assert (found.confidence.tolist(), found.accuracy.tolist(), found.count.tolist()) == ([pytest.approx(0.7)], [0.5], [2])
    assert found.ece == pytest.approx(0.2)
    # five bins: 0.6 in (0.4, 0.6], right: 0.4; 0.8 in (0.6, 0.8], wrong: 0.8; each of one sample in two
    assert expected_calibration_error(shares, [0, 0], bins=5) == pytest.approx((0.4 + 0.8) / 2)
    with pytest.raises(FedbiomedUncertaintyError, match="softmax of logits"):
        calibration_curve(shares * 3, [0, 0])
    with pytest.raises(FedbiomedUncertaintyError, match="labels must be classes"):
        calibration_curve(shares, [0, 2])
    with pytest.raises(FedbiomedUncertaintyError, match="as many labels"):
        calibration_curve(shares, [0])
