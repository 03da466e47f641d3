"""Exchange of the layers that drifted most (Passban et al. 2022, arXiv:2205.01557). The half on the nodes: `corrections/dynamiclayers.py`.

With x_l the layer l that was sent, y_il what node i made of it, n_i its samples, S_l the nodes that sent layer l:

    x_l <- sum of n_i y_il / sum of n_i    i in S_l; x_l stays where S_l is empty
"""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.params import Params, RunningMean, checked_arrays, combined
from fedbiomed.researcher.aggregators._from_global import FromGlobal
from fedbiomed.researcher.aggregators._node_half import WithNodeHalf
from fedbiomed.researcher.aggregators._options import at_least_zero, checked_flag, checked_number, checked_weight

_USUAL = 0.5


class DynamicLayers(WithNodeHalf, FromGlobal):
    """Each node sends only the layers that drifted most since the round began; a layer's mean is over those that sent it
    (Passban et al. 2022, arXiv:2205.01557).

    Exchanged: the chosen layers and their names. Stays on the nodes: data, and the other layers, which the next round overwrites.

    A layer is one array of the model, by its name. Torch plans only. Streams: holds one sum in float64.

    Args:
        exchange_percentage: share p of the n layers that a node sends, above 0 and at most 1: p * n of them, rounded up; 0.5 where neither
            this nor a threshold is given.
        norm_threshold: instead, send the layers whose drift lies above it (at or below it where those that drifted least are sent).
        normalize: divide the norm of a layer's drift by its number of elements.
        select_drift_more: send the layers that drifted most, else those that drifted least.

    Raises:
        FedbiomedAggregatorError: a setting is wrong, or both percentage and threshold are given.
    """

    def __init__(
        self,
        exchange_percentage: float | None = None,
        norm_threshold: float | None = None,
        *,
        normalize: bool = True,
        select_drift_more: bool = True,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if exchange_percentage is not None and norm_threshold is not None:
            raise FedbiomedAggregatorError(f"FB401: {who} takes exchange_percentage or norm_threshold, not both")
        if norm_threshold is not None:
            norm_threshold = at_least_zero(who, "norm_threshold", norm_threshold)
        else:
            share = _USUAL if exchange_percentage is None else exchange_percentage
            exchange_percentage = checked_number(
                who, "exchange_percentage", share, "a number above 0 and at most 1", within=(0.0, 1.0), ends="(]"
            )
        self.exchange_percentage, self.norm_threshold = exchange_percentage, norm_threshold
        self.normalize = checked_flag(who, "normalize", normalize)
        self.select_drift_more = checked_flag(who, "select_drift_more", select_drift_more)
        self.begin(0)

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not."""
        super().begin(round)
        self._means: dict[str, RunningMean] = {}

    def finish(self) -> Params:
        """The next parameters.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        self._total_weight()
        params = {
            name: self._means[name].mean()[name] if name in self._means else combined([(1.0, value)], name)
            for name, value in self._sent.items()
        }
        self.begin(0)
        return params

    def _check_fit(self, node_id: str, params: Mapping[str, Any]) -> None:
        if params:
            shapes = {name: shape for name, shape in self._shapes.items() if name in params}
            checked_arrays(params, node_id, shapes, "the model that was sent", with_values=False)

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        if not checked_weight(node_id, weight) or not params:
            return
        checked_arrays(params, node_id)  # before the first of several means is changed
        for name, value in params.items():
            self._means.setdefault(name, RunningMean()).add({name: value}, weight, source=node_id)
