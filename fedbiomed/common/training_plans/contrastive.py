"""Contrastive losses of features: near to some, far from others."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError


def contrastive_loss(
    features: torch.Tensor, positive: torch.Tensor, negatives: Sequence[torch.Tensor], temperature: float = 0.5
) -> torch.Tensor:
    """Mean over samples of -log(e^(s+ / T) / (e^(s+ / T) + sum of e^(s- / T))), s being the cosine of features and another's features.

    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> round(contrastive_loss(one, one, [other], temperature=0.5).item(), 5)
    0.12693

    Args:
        features: samples by whatever they have, which is taken flat; the gradient goes through them.
        positive: of the same shape; what they shall be near to.
        negatives: each of the same shape; what they shall be far from. Without any the loss is 0.
        temperature: T, above 0.

    Raises:
        FedbiomedTrainingPlanError: the shapes differ, or there are no samples.

    Source: Li et al. 2021, CVPR (MOON, arXiv:2103.16257), equation 3.
    """
    for other in (positive, *negatives):
        if other.shape != features.shape:
            raise FedbiomedTrainingPlanError(
                f"FB605: features have the shape {tuple(features.shape)}, those to compare them with {tuple(other.shape)}"
            )
    if features.dim() < 1 or not features.numel():
        raise FedbiomedTrainingPlanError(f"FB605: features are samples by numbers, not of the shape {tuple(features.shape)}")
    flat = features.reshape(len(features), -1)
    similar = [functional.cosine_similarity(flat, other.reshape(len(features), -1), dim=1) for other in (positive, *negatives)]
    logits = torch.stack(similar, dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(features), dtype=torch.long, device=features.device))
