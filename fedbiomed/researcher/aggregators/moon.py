"""MOON, Li et al. 2021 (CVPR, arXiv:2103.16257). The nodes' half is `common/training_plans/corrections/moon.py`.

To each loss is added weight * -log(e^(s+ / T) / (e^(s+ / T) + e^(s- / T))), s+ being the cosine of a sample's features and those by the
global model, s- that of its features and those by the node's model of the round before.
"""

import math
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import at_least_zero, checked_number


class MOON(MeanWithNodeHalf):
    """The mean of the nodes' parameters, whose features are drawn towards those of the global model and away from those of the node's old
    one (Li et al. 2021, CVPR, arXiv:2103.16257).

    Exchanged: parameters. Stays on the nodes: data, the model with which each node's round before ended.

    For torch plans, with any optimizer. The features are what the plan's `features(data)` returns for a batch, samples by numbers, which is
    called once more for each batch in training mode; or the output of a layer in `training_step`, which costs no call more. In a node's
    first round there is no term. Persistent buffers are averaged; global and old model give their features with their own.

    Args:
        temperature: T, 0.000001 or more.
        weight: of the term, 0 or more; 0 trains as `FedAverage`.
        layer: name of a layer of the model, as `named_modules` tells it; None: the plan has `features`.

    Raises:
        FedbiomedAggregatorError: an option is not such a number or name.
    """

    def __init__(self, temperature: float = 0.5, weight: float = 1.0, *, layer: str | None = None) -> None:
        super().__init__()
        self.temperature = checked_number(
            "MOON", "temperature", temperature, "a number of 1e-6 or more", within=(1e-6, math.inf), ends="[)"
        )
        self.weight = at_least_zero("MOON", "weight", weight)
        if layer is not None and not (isinstance(layer, str) and layer):
            raise FedbiomedAggregatorError(f"FB401: layer of MOON must be the name of a layer, or None, not {layer!r:.80}")
        self.layer = layer

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, or offers no features.
        """
        super().check_values(*args, training_plan=training_plan, **kwargs)
        if training_plan is None:
            return True
        if self.layer is None and not callable(getattr(training_plan, "features", None)):
            raise FedbiomedAggregatorError(
                f"FB401: MOON needs features, and {type(training_plan).__name__} has no method features(data): define it, or name a layer "
                "by MOON(layer=...)"
            )
        layers = [name for name, _ in training_plan.model().named_modules() if name]
        if self.layer is not None and self.layer not in layers:
            raise FedbiomedAggregatorError(f"FB401: the model has no layer {self.layer!r:.80} for MOON; it has {', '.join(layers)}")
        return True
