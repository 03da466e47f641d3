"""FENDA, Tavakoli et al. 2023 (arXiv:2309.16825). The nodes' half is `common/training_plans/corrections/fenda.py`.

With g the global and l_i the local extractor of node i, h_i its head, n_i its samples: each node trains h_i(l_i(x), g(x)), then

    g <- sum of n_i g_i / sum of n_i    l_i and h_i stay
"""

from collections.abc import Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.researcher.aggregators._private_layers import WithPrivateLayers, checked_layers, layer_names

_EXTRACTOR = "global_extractor"


class Fenda(WithPrivateLayers):
    """The mean of a global feature extractor; each node has a local one and a head of its own beside it (Tavakoli et al. 2023,
    arXiv:2309.16825).

    Exchanged: parameters of the global extractor. Stays on the nodes: data, local extractor, head.

    Torch plans only, whose model is a `FendaModel` of `fedbiomed.common.models`, or has one. Else as `FedPer`.

    Args:
        shared: names of the layers that travel, where the model is built otherwise; None: the global extractor of the `FendaModel`.

    Raises:
        FedbiomedAggregatorError: these are no names.
    """

    are_shared = True

    def __init__(self, shared: Sequence[str] | str | None = None) -> None:
        super().__init__()
        self.shared = checked_layers(type(self).__name__, "shared", shared)

    def chosen_layers(self, training_plan: Any) -> Sequence[str]:
        """See `WithPrivateLayers`."""
        return self._extractor(training_plan) if self.shared is None else self.shared

    def _extractor(self, training_plan: Any) -> Sequence[str]:
        """The name of the global extractor.

        Raises:
            FedbiomedAggregatorError: there is no `FendaModel`.
        """
        from fedbiomed.common.models.fenda import FendaModel  # heavy; a torch plan has loaded torch

        for name, module in training_plan.model().named_modules():
            if isinstance(module, FendaModel):
                return [f"{name}.{_EXTRACTOR}" if name else _EXTRACTOR]
        raise FedbiomedAggregatorError(
            f"FB401: {type(self).__name__} needs a FendaModel of fedbiomed.common.models as the plan's model, or in it; the model has "
            f"{', '.join(layer_names(training_plan))}"
        )
