"""FedPer, Arivazhagan et al. 2019 (arXiv:1912.00818). The nodes' half is `common/training_plans/corrections/fedper.py`.

With b the base and h_i the head of node i, n_i its samples: each node trains (b, h_i) together, then

    b <- sum of n_i b_i / sum of n_i    h_i stays
"""

from collections.abc import Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.training_plans.user_code import call_user
from fedbiomed.researcher.aggregators._private_layers import WithPrivateLayers, checked_layers, layer_names


class FedPer(WithPrivateLayers):
    """The mean of the base layers; each node keeps a head of its own (Arivazhagan et al. 2019, arXiv:1912.00818).

    Exchanged: parameters of the layers that are not private. Stays on the nodes: data, the private layers.

    Torch plans only. `aggregated_params()` has the shared layers only. The nodes test the shared layers with their own private ones. A node
    that has not trained yet begins with the private layers of the initial model.

    Args:
        private: names of the layers that stay, as `named_modules` tells them (what lies below a layer belongs to it); None: the plan tells
            them by a method `private_layers()`.

    Raises:
        FedbiomedAggregatorError: these are no names.
    """

    def __init__(self, private: Sequence[str] | str | None = None) -> None:
        super().__init__()
        self.private = checked_layers(type(self).__name__, "private", private)

    def chosen_layers(self, training_plan: Any) -> Sequence[str]:
        """See `WithPrivateLayers`."""
        if self.private is not None:
            return self.private
        who, there = type(self).__name__, ", ".join(layer_names(training_plan))
        if not callable(getattr(training_plan, "private_layers", None)):
            raise FedbiomedAggregatorError(
                f"FB401: {who} must know which layers stay on the nodes: name them by {who}(private=[...]), or define private_layers() in "
                f"the plan; the model has {there}"
            )
        layers = checked_layers(who, "private_layers()", call_user(training_plan, "private_layers"))
        if layers is None:
            raise FedbiomedAggregatorError(f"FB401: private_layers() of the plan must return names of layers; the model has {there}")
        return layers
