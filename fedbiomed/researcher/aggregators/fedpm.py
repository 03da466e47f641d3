"""FedPM, Isik et al. 2023 ("Sparse Random Networks for Communication-Efficient Federated Learning", arXiv:2209.15328), algorithms 1 and 2.

The nodes' half is `common/training_plans/corrections/fedpm.py`. For each weight under a mask, of n masks with the sum M:

    a <- a + M        b <- b + n - M        theta <- (a - 1) / (a + b - 2)        a = b = 1 at the start

theta, the mode of Beta(a, b), is the probability of a 1. Each `reset_frequency`-th round begins with a = b = 1 again. The model gets the
scores logit(theta), with theta cut to 0.0001 .. 0.9999 so that they can move again; `probabilities` are not cut.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params, as_array, as_kind, kind_of
from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import checked_count

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
_SCORES = "_mask_scores"
_EDGE = 1e-4


class FedPM(MeanWithNodeHalf):
    """Learns which weights of a random network to use: nodes send a drawn mask, one bit a weight, and the probability of each bit is
    estimated from all masks (Isik et al. 2023, arXiv:2209.15328).

    Exchanged: the fixed weights and the scores to the nodes; back masks, and parameters that are under no mask. Stays on the nodes: data,
    scores.

    For torch plans with masked layers (`MaskedLinear`, `MaskedConv2d`, `masked(model)`) and `share_persistent_buffers`. All masks count
    alike, whatever their node's samples; what is under no mask takes the mean by samples.

    Args:
        reset_frequency: every how many rounds the estimate begins anew, 1 or more: 1 where all nodes take part in each round.

    Attributes:
        probabilities: theta of the last round, by the name of the scores.

    Raises:
        FedbiomedAggregatorError: it is not such a number.
    """

    takes_sums = False  # masks count alike, what is under none by samples

    def __init__(self, reset_frequency: int = 1) -> None:
        super().__init__()
        self.reset_frequency = checked_count("FedPM", "reset_frequency", reset_frequency, 1)
        self.probabilities: dict[str, Array] = {}
        self._posterior: dict[str, tuple[Array, Array]] = {}
        self._rounds = 0
        self._sent: dict[str, Any] = {}

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; takes note of what is sent.

        Raises:
            AggregationError: the fixed weights of a masked layer are not among it.
        """
        missing = [name for name in global_model if name.endswith(_SCORES) and name.removesuffix(_SCORES) not in global_model]
        if missing:
            raise AggregationError(f"FedPM must send the fixed weights that belong to {missing[0]}: leave share_persistent_buffers at True")
        self._sent = dict(global_model)
        return super().create_aggregator_args(global_model, node_ids)

    def begin(self, round: int) -> None:
        """See `Aggregator`; the estimate stays."""
        super().begin(round)
        self._sums: dict[str, Array] = {}
        self._masks = 0

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """See `Aggregator`; a node that counts by 0 is left out.

        Raises:
            AggregationError: as `FedAverage`, or a mask is no mask.
        """
        masks = {name: as_array(value, name, node_id) for name, value in params.items() if name.endswith(_SCORES)}
        for name, mask in masks.items():
            if weight > 0 and not np.isin(mask, (0, 1)).all():
                raise AggregationError(f"{name!r} of {node_id} must be a mask of 0 and 1; was it trained with the nodes' half of FedPM?")
            if name in self._sent and mask.shape != tuple(self._sent[name].shape):
                raise AggregationError(f"{name!r} of {node_id} has the shape {mask.shape}, {tuple(self._sent[name].shape)} was sent")
        super().add(node_id, params, weight)
        if masks and weight > 0:
            self._masks += 1
            self._sums = {name: self._sums.get(name, 0) + mask.astype(np.float64) for name, mask in masks.items()}

    def finish(self) -> Params:
        """See `Aggregator`; the estimate is renewed."""
        sums, count, sent = self._sums, self._masks, self._sent
        params = super().finish()  # begins anew
        if not sums:
            return params
        former = {} if self._rounds % self.reset_frequency == 0 else self._posterior
        start = (np.ones(()), np.ones(()))
        posterior = {name: beta_update(former.get(name, start), total, count) for name, total in sums.items()}
        self.probabilities = {name: (a - 1) / (a + b - 2) for name, (a, b) in posterior.items()}
        self._posterior, self._rounds = posterior, self._rounds + 1
        fixed = {name: value for name, value in sent.items() if f"{name}{_SCORES}" in sums}
        return {**fixed, **params, **{name: _scores(theta, sent.get(name, params[name])) for name, theta in self.probabilities.items()}}

    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """See `Aggregator`."""
        params = super().aggregate(model_params, weights)
        self.begin(0)
        for node_id, update in model_params.items():
            self.add(node_id, update, weights[node_id])
        return self.finish() if self._sums else params

    def state_arrays(self) -> dict[str, Any]:
        """The estimate, and the number of rounds."""
        if not self._posterior:
            return {}
        return {"posterior": {name: {"a": a, "b": b} for name, (a, b) in self._posterior.items()}, "rounds": self._rounds}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave."""
        found = {name: (np.array(of["a"], np.float64), np.array(of["b"], np.float64)) for name, of in state["posterior"].items()}
        self._posterior, self._rounds = found, int(state["rounds"])
        self.probabilities = {name: (a - 1) / (a + b - 2) for name, (a, b) in found.items()}


def beta_update(former: tuple[Any, Any], total: Any, count: int) -> tuple[Array, Array]:
    """Parameters of the Beta distribution after some masks.

    >>> a, b = beta_update((1, 1), 2, 3)  # three masks, two of them 1
    >>> float((a - 1) / (a + b - 2))
    0.6666666666666666

    Args:
        former: a and b before, 1 or more.
        total: sum of the masks.
        count: how many they are.
    """
    a, b = former
    ones = np.asarray(total, np.float64)
    return np.asarray(a + ones), np.asarray(b + count - ones)


def _scores(theta: Array, example: Any) -> Any:
    """Logits of probabilities, as an array or tensor of the scores' kind."""
    cut = np.clip(theta, _EDGE, 1 - _EDGE)
    return as_kind(np.log(cut / (1 - cut)), 1.0, kind_of(example, as_array(example, "scores", "the researcher")))
