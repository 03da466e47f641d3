"""A model of two feature extractors and a head, Tavakoli et al. 2023 (FENDA-FL, arXiv:2309.16825)."""

from typing import Any

import torch
from torch import nn


class FendaModel(nn.Module):
    """Features of a local and of a global extractor, side by side, go through a head.

    With the aggregators `Fenda` and `PerFCL` the global extractor travels; the local one and the head stay on the node.

    Args:
        local_extractor: features of its own for each node, samples by whatever it gives.
        global_extractor: features that all nodes share.
        head: takes both, joined along the second dimension, the local ones first.
        flatten_features: flatten the features of a sample before they are joined; without it their other dimensions must be equal.
    """

    def __init__(self, local_extractor: nn.Module, global_extractor: nn.Module, head: nn.Module, *, flatten_features: bool = False) -> None:
        super().__init__()
        self.local_extractor, self.global_extractor, self.head = local_extractor, global_extractor, head
        self.flatten_features = flatten_features

    def forward(self, *inputs: Any) -> torch.Tensor:
        """What the head makes of the joined features."""
        features = [self.local_extractor(*inputs), self.global_extractor(*inputs)]
        if self.flatten_features:
            features = [found.flatten(start_dim=1) for found in features]
        joined: torch.Tensor = self.head(torch.cat(features, dim=1))
        return joined
