"""FedPM: masks over fixed weights, and what is made of them."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedExperimentError, FedbiomedModelError
from fedbiomed.common.training_plans import MaskedConv2d, MaskedLinear, masked
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import FedPM

NAME = "weight_mask_scores"


class Masks(TorchTrainingPlan):
    """y of x by a masked layer and a plain one."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.training_plans import MaskedLinear"]

    def init_model(self, model_args):
        first = nn.Linear if model_args.get("is_plain") else MaskedLinear
        return nn.Sequential(first(1, 8), nn.ReLU(), nn.Linear(8, 1))

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


EXPERIMENT = {
    "training_plan_class": Masks,
    "aggregator": FedPM,
    "training_args": {"num_updates": 3, "loader_args": {"batch_size": 8}, "random_seed": 4},
}


def round_of(aggregator, *bits):
    """One weight under a mask, one bit of each node."""
    aggregator.begin(0)
    for index, bit in enumerate(bits):
        aggregator.add(f"node_{index}", {NAME: np.array([bit], dtype=np.uint8)}, 10**index)
    return aggregator.finish()


def test_the_estimate_is_the_mode_of_a_beta_distribution():
    # three masks, sum 2: a = 3, b = 2, (3 - 1) / (3 + 2 - 2) = 2/3, whatever the samples; logit(2/3) = ln 2
    aggregator = FedPM()
    assert round_of(aggregator, 1, 1, 0)[NAME] == pytest.approx([np.log(2)])
    assert aggregator.probabilities[NAME] == pytest.approx([2 / 3])


@pytest.mark.parametrize(("frequency", "expected"), [(1, 1 / 3), (2, 0.5)])
def test_it_begins_anew_as_often_as_asked(frequency, expected):
    # then a sum of 1 of 3: begun anew 1/3; else a = 4, b = 4, 3/6
    aggregator = FedPM(frequency)
    round_of(aggregator, 1, 1, 0)
    round_of(aggregator, 1, 0, 0)
    assert aggregator.probabilities[NAME] == pytest.approx([expected])
    round_of(aggregator, 1, 1, 1)
    assert aggregator.probabilities[NAME] == pytest.approx([1.0])


def test_the_estimate_goes_through_a_breakpoint(tmp_path):
    aggregator, resumed = FedPM(3), FedPM()
    round_of(aggregator, 1, 1, 0)
    resumed.load_state_breakpoint(aggregator.save_state_breakpoint(tmp_path))
    round_of(resumed, 1, 0, 0)
    assert resumed.probabilities[NAME] == pytest.approx([0.5])


def test_certain_bits_give_finite_scores():
    scores = round_of(FedPM(), 1, 1)[NAME]
    assert scores == pytest.approx([np.log(0.9999 / 0.0001)])


def test_what_is_no_mask_is_refused():
    aggregator = FedPM()
    aggregator.begin(0)
    with pytest.raises(AggregationError, match="must be a mask of 0 and 1"):
        aggregator.add("a", {NAME: np.array([0.5])}, 1)


def test_fixed_weights_must_be_shared():
    with pytest.raises(AggregationError, match="fixed weights that belong to weight_mask_scores"):
        FedPM().create_aggregator_args({NAME: np.zeros(1)}, ["a"])


def test_a_layer_uses_its_weights_where_the_mask_is_1():
    layer = MaskedLinear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 5.0]]))
        layer.bias.fill_(7.0)
        layer.weight_mask_scores.copy_(torch.tensor([[50.0, -50.0]]))
        layer.bias_mask_scores.fill_(50.0)
    x = torch.tensor([[1.0, 1.0]])
    assert layer.eval()(x).item() == 10.0
    assert layer.train()(x).item() == 10.0
    assert [name for name, _ in layer.named_parameters()] == ["weight_mask_scores", "bias_mask_scores"]


def test_the_gradient_passes_through_the_draw():
    # d(w m x)/ds = w x sigmoid'(s) = 3 * 2 * 1/4 at s = 0
    layer = MaskedLinear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.weight_mask_scores.zero_()
    layer(torch.tensor([[2.0]])).backward()
    assert layer.weight_mask_scores.grad.item() == pytest.approx(1.5)


def test_a_model_is_masked_and_keeps_its_weights():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1, bias=False))
    before = model[0].weight.detach().clone()
    covered = masked(model)
    assert isinstance(covered[0], MaskedConv2d)
    assert isinstance(covered[3], MaskedLinear)
    assert torch.equal(covered[0].weight, before)
    assert covered(torch.ones(2, 1, 4, 4)).shape == (2, 1)
    with pytest.raises(FedbiomedModelError, match="no Linear or Conv2d"):
        masked(nn.ReLU())


def test_a_layer_that_stands_in_two_places_has_one_mask():
    shared = nn.Linear(2, 2)
    covered = masked(nn.Sequential(shared, nn.ReLU(), shared))
    assert covered[0] is covered[2]
    assert isinstance(covered[2], MaskedLinear)


def test_through_nodes_only_masks_come_back(made):
    experiment = made()
    fixed = experiment.training_plan().model()[0].weight.clone()
    assert experiment.run(rounds=2) == 2
    for reply in experiment.training_replies()[1]:
        assert reply["params"].keys() == {"0.weight_mask_scores", "0.bias_mask_scores", "2.weight", "2.bias"}
        assert set(np.unique(np.asarray(reply["params"]["0.weight_mask_scores"]))) <= {0, 1}
    model, theta = experiment.training_plan().model(), experiment.aggregator().probabilities["0.weight_mask_scores"]
    assert torch.equal(model[0].weight, fixed)
    # two nodes: of 0, 1 or 2 masks
    assert set(np.unique(theta)) <= {0.0, 0.5, 1.0}
    scores = torch.logit(torch.as_tensor(np.clip(theta, 1e-4, 1 - 1e-4)))
    assert torch.allclose(model[0].weight_mask_scores.double(), scores, atol=1e-5)


def test_a_model_without_masks_is_refused(made):
    with pytest.raises(FedbiomedExperimentError, match="needs a model with masked layers"):
        made(model_args={"is_plain": True}).run(rounds=1)
