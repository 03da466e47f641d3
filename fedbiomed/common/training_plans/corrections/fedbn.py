"""The nodes' half of FedBN, Li et al. 2021 (ICLR, arXiv:2102.07623): all travels but what batch normalisations have."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.private_layers import PrivateLayers


class FedBNLayers(PrivateLayers):
    """Keeps the private layers on the node."""


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> FedBNLayers:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: the names of the layers did not come.
    """
    return FedBNLayers("FedBN", aggregator_args)
