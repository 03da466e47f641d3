"""FedBN, Li et al. 2021 (ICLR, arXiv:2102.07623), algorithm 1. The nodes' half is `common/training_plans/corrections/fedbn.py`.

With x all but batch normalisations, v_i what those of node i have (scale, shift, running mean and variance, counter), n_i its samples:

    x <- sum of n_i x_i / sum of n_i    v_i stays
"""

from collections.abc import Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.researcher.aggregators._private_layers import WithPrivateLayers, layer_names


class FedBN(WithPrivateLayers):
    """The mean of all but batch normalisations, of which each node has its own (Li et al. 2021, ICLR, arXiv:2102.07623).

    Exchanged: parameters and buffers of all layers but batch normalisations. Stays on the nodes: data, parameters and buffers of batch
    normalisations.

    Torch plans only, with `BatchNorm1d` and so on. Else as `FedPer`.
    """

    def chosen_layers(self, training_plan: Any) -> Sequence[str]:
        """See `WithPrivateLayers`."""
        from torch.nn.modules.batchnorm import _BatchNorm  # heavy; a torch plan has loaded it

        modules = training_plan.model().named_modules()
        found = [name for name, module in modules if isinstance(module, _BatchNorm) and list(module.state_dict())]
        if not found:
            raise FedbiomedAggregatorError(
                f"FB401: FedBN needs a batch normalisation below the model itself; it has {', '.join(layer_names(training_plan))}"
            )
        return found
