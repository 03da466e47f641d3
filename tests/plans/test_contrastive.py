"""The contrastive loss, by hand."""

import math

import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.contrastive import contrastive_loss

ONE, OTHER = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])


def test_near_to_the_positive_and_far_from_the_negative():
    # s+ = 1, s- = 0, T = 0.5: log(1 + e^-2) = 0.12693; the other way round log(1 + e^2)
    assert contrastive_loss(ONE, ONE, [OTHER], 0.5).item() == pytest.approx(0.12693, abs=5e-6)
    assert contrastive_loss(ONE, OTHER, [ONE], 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_the_length_of_features_does_not_matter_and_samples_are_averaged():
    twice = contrastive_loss(torch.cat([3 * ONE, OTHER]), torch.cat([ONE, ONE]), [torch.cat([OTHER, OTHER])], 1.0).item()
    assert twice == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2)


def test_several_negatives_and_none():
    assert contrastive_loss(ONE, ONE, [OTHER, OTHER], 1.0).item() == pytest.approx(math.log(1 + 2 * math.exp(-1)))
    assert contrastive_loss(ONE, OTHER, []).item() == 0.0


def test_features_of_any_shape_are_taken_flat():
    images = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    assert contrastive_loss(images, images, [-images], 1.0).item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize(("features", "other"), [(ONE, torch.ones(1, 3)), (torch.ones(0, 2), torch.ones(0, 2)), (torch.tensor(1.0),) * 2])
def test_shapes_that_do_not_fit_are_refused(features, other):
    with pytest.raises(FedbiomedTrainingPlanError, match="shape"):
        contrastive_loss(features, other, [])
