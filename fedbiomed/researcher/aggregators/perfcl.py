"""PerFCL, Zhang et al. 2022: FENDA with two contrastive terms. Formula and nodes' half: `common/training_plans/corrections/perfcl.py`."""

import math
from collections.abc import Sequence
from typing import Any

from fedbiomed.researcher.aggregators._options import at_least_zero, checked_number
from fedbiomed.researcher.aggregators.fenda import Fenda


class PerFCL(Fenda):
    """As `Fenda`; global features are drawn to those with which the round began, local ones to the node's old ones, each away from the
    other (Zhang et al. 2022, PerFCL).

    Exchanged: parameters of the global extractor. Stays on the nodes: data, local extractor, head, both extractors of the round before.

    Torch plans only, whose model is a `FendaModel` of `fedbiomed.common.models`, or has one, with as many features from both extractors;
    its last call in `training_step` counts. In a node's first round there is no term. Else as `FedPer`.

    Args:
        temperature: T of both terms, 0.000001 or more.
        global_weight: of the term of global features, 0 or more.
        local_weight: of the term of local features, 0 or more.

    Raises:
        FedbiomedAggregatorError: one is not such a number.
    """

    def __init__(self, temperature: float = 0.5, global_weight: float = 1.0, local_weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = checked_number(
            "PerFCL", "temperature", temperature, "a number of 1e-6 or more", within=(1e-6, math.inf), ends="[)"
        )
        self.global_weight = at_least_zero("PerFCL", "global_weight", global_weight)
        self.local_weight = at_least_zero("PerFCL", "local_weight", local_weight)

    def chosen_layers(self, training_plan: Any) -> Sequence[str]:
        """See `WithPrivateLayers`."""
        return self._extractor(training_plan)

    def node_options(self) -> dict[str, Any]:
        """See `WithPrivateLayers`."""
        return self.settings()
