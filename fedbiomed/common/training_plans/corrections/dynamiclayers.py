"""The nodes' half of the exchange of layers by their drift, Passban et al. 2022 (arXiv:2205.01557).

With x_l a layer as it came, y_l as the training made it, |x_l| its number of elements: its drift is ||y_l - x_l||, divided by |x_l| where
that is wanted. Of n layers those ceil(p n) are sent that drifted most (or least), or those whose drift lies above a threshold (or not).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections._options import sent_flag, sent_number
from fedbiomed.common.training_plans.corrections.correction import Correction


class DriftedLayers(Correction):
    """Lets only some layers leave; for the settings see the aggregator `DynamicLayers`.

    Raises:
        FedbiomedTrainingPlanError: one is missing or out of its range.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        settings = {"normalize": True, "select_drift_more": True, **settings}
        share, threshold = settings.get("exchange_percentage"), settings.get("norm_threshold")
        if (share is None) == (threshold is None):
            raise FedbiomedTrainingPlanError("FB605: DynamicLayers needs exchange_percentage or norm_threshold, and not both")
        self._share = None if share is None else sent_number(settings, "exchange_percentage", within=(0.0, 1.0))
        self._threshold = None if threshold is None else sent_number(settings, "norm_threshold", within=(0.0, math.inf))
        self._is_normalized, self._is_most = sent_flag(settings, "normalize"), sent_flag(settings, "select_drift_more")
        self._arrived: Mapping[str, Any] = {}

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`."""
        self._arrived = params
        return params

    def leaving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Correction`."""
        chosen = self._chosen({name: self._drift(name, value) for name, value in params.items()})
        return {name: value for name, value in params.items() if name in chosen}

    def _chosen(self, drifts: Mapping[str, float]) -> set[str]:
        if self._threshold is not None:
            return {name for name, drift in drifts.items() if (drift > self._threshold) == self._is_most}
        count = math.ceil(round((self._share or 0.0) * len(drifts), 9))
        return set(sorted(drifts, key=lambda name: -drifts[name] if self._is_most else drifts[name])[:count])

    def _drift(self, name: str, value: Any) -> float:
        after, before = torch.as_tensor(value).detach().double(), self._arrived.get(name)
        if before is None or tuple(before.shape) != tuple(after.shape):
            found = "is none of those" if before is None else f"has the shape {tuple(after.shape)}, not the {tuple(before.shape)} of that"
            raise FedbiomedTrainingPlanError(f"FB605: DynamicLayers cannot tell the drift of {name!r}: it {found} which came")
        norm = float(torch.linalg.vector_norm(after - torch.as_tensor(before).double()))
        if not math.isfinite(norm):
            raise FedbiomedTrainingPlanError(f"FB605: after the training parameter {name!r} holds NaN or infinite values")
        return norm / max(1, after.numel()) if self._is_normalized else norm


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> DriftedLayers:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: the aggregator sent no settings, or one that is out of its range.
    """
    return DriftedLayers(aggregator_args)
