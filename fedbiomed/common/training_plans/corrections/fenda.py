"""The nodes' half of FENDA, Tavakoli et al. 2023 (arXiv:2309.16825): of two feature extractors and a head the global extractor travels."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.private_layers import PrivateLayers


class FendaLayers(PrivateLayers):
    """Keeps the private layers on the node."""


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> FendaLayers:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: the names of the layers did not come.
    """
    return FendaLayers("Fenda", aggregator_args)
