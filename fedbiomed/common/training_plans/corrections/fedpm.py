"""The nodes' half of FedPM, Isik et al. 2023 (arXiv:2209.15328): what is sent of a masked layer is a mask, one bit a weight.

After training, of each entry `<name>_mask_scores` with the scores s a mask is drawn and sent in their place: m ~ Bernoulli(sigmoid(s)). The
fixed weights do not travel back. What is not under a mask is sent as it is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction
from fedbiomed.common.training_plans.masked_layers import SCORES


class SampledMasks(Correction):
    """Sends masks instead of scores."""

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        if not any(name.endswith(SCORES) for name in initial):
            raise FedbiomedTrainingPlanError("FB605: FedPM needs a model with masked layers: MaskedLinear, MaskedConv2d, or masked(model)")

    def leaving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`."""
        sent = {}
        for name, value in params.items():
            if name.endswith(SCORES):
                sent[name] = torch.bernoulli(torch.sigmoid(torch.as_tensor(value))).to(torch.uint8)
            elif f"{name}{SCORES}" not in params:
                sent[name] = value
        return sent


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> SampledMasks:
    """Asked for by the aggregator's name."""
    return SampledMasks()
