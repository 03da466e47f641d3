"""The nodes' half of FedPer, Arivazhagan et al. 2019 (arXiv:1912.00818): the base travels, the head stays on the node."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.private_layers import PrivateLayers


class FedPerLayers(PrivateLayers):
    """Keeps the private layers on the node."""


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> FedPerLayers:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: the names of the layers did not come.
    """
    return FedPerLayers("FedPer", aggregator_args)
