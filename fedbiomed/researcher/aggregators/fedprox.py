"""FedProx, Li et al. 2020 (arXiv:1812.06127). The nodes' half is `common/training_plans/corrections/fedprox.py`.

Each node follows the gradient of f(w) + mu/2 |w - w_0|^2, w_0 being the parameters with which its round began. With an adaptive mu, L
being the mean of the nodes' training losses (without the term) by their samples, after each round:

    L <= the one before   one more good round; after `patience` of them mu <- max(0, mu - delta), and they are counted anew
    L >  the one before   mu <- mu + delta, and good rounds are counted anew
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.params import Params
from fedbiomed.common.secagg.beside import TOLD, named
from fedbiomed.researcher.aggregators._node_half import MeanWithNodeHalf
from fedbiomed.researcher.aggregators._options import above_zero, at_least_zero, checked_count
from fedbiomed.researcher.aggregators._sums import SumTerms

_LOSS = "training_loss"
_SUMMED_LOSS = named(TOLD, _LOSS)


class FedProx(MeanWithNodeHalf):
    """The mean of the nodes' parameters, each held near to where its round began by a proximal term, whose weight mu may adapt to the
    losses (Li et al. 2020, arXiv:1812.06127).

    Exchanged: parameters, mu, and with `adaptive` each node's mean training loss. Stays on the nodes: data.

    For torch plans, with any optimizer. Buffers (statistics of a batch normalisation) are averaged and not pulled. With a fixed mu it is
    `FedAverage` with the training argument `fedprox_mu`, which must then be left out.

    Args:
        mu: weight of the term, 0 or more; where it adapts, the first one.
        adaptive: whether it does.
        delta: by how much, above 0.
        patience: after how many good rounds in a row it shrinks.

    Attributes:
        mu: as it is now.

    Raises:
        FedbiomedAggregatorError: an option is not such a number.
    """

    def __init__(self, mu: float = 0.1, *, adaptive: bool = False, delta: float = 0.1, patience: int = 5) -> None:
        super().__init__()
        self.mu = at_least_zero("FedProx", "mu", mu)
        if not isinstance(adaptive, bool):
            raise FedbiomedAggregatorError(f"FB401: adaptive of FedProx must be True or False, not {adaptive!r:.80}")
        self.adaptive = adaptive
        self.delta = above_zero("FedProx", "delta", delta)
        self.patience = checked_count("FedProx", "patience", patience, 1)
        self._former_loss, self._good_rounds = math.inf, 0
        self._losses: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._summed_loss: float | None = None

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, or the training arguments say `fedprox_mu`, too.
        """
        super().check_values(*args, training_plan=training_plan, **kwargs)
        if training_plan is not None and training_plan.training_args().get("fedprox_mu") is not None:
            raise FedbiomedAggregatorError("FB401: the aggregator FedProx says mu: leave fedprox_mu out of the training arguments")
        return True

    def node_options(self) -> dict[str, Any]:
        """See `MeanWithNodeHalf`."""
        return {"mu": self.mu, "adaptive": self.adaptive}

    def begin(self, round: int) -> None:
        """See `Aggregator`; mu stays."""
        super().begin(round)
        self._losses, self._weights, self._summed_loss = {}, {}, None

    def hear(self, node_id: str, reply: Mapping[str, Any]) -> None:
        """Take a node's training loss out of its reply.

        Raises:
            AggregationError: mu adapts, and there is none.
        """
        if self.adaptive:
            told = reply.get("told")
            loss = told.get(_LOSS) if isinstance(told, Mapping) else None
            if isinstance(loss, bool) or not isinstance(loss, int | float) or not math.isfinite(loss):
                raise AggregationError(f"{node_id} does not tell its training loss, which FedProx with an adaptive mu needs: {loss!r:.80}")
            self._losses = {**self._losses, node_id: float(loss)}

    def sum_terms(self, training_plan: Any) -> SumTerms:
        """See `Aggregator`; where mu adapts, the mean training loss goes beside the parameters."""
        return SumTerms(beside={_SUMMED_LOSS: ()} if self.adaptive else {})

    def hear_sum(self, nodes: Sequence[str], weight: float, beside: Mapping[str, Any]) -> None:
        """See `Aggregator`; takes note of the mean training loss."""
        if self.adaptive:
            self._summed_loss = float(beside[_SUMMED_LOSS])

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """See `FedAverage`.

        Raises:
            AggregationError: the update cannot be aggregated, or its loss was not heard.
        """
        if self._summed_loss is not None:
            self._losses = {**self._losses, node_id: self._summed_loss}
        self._require_loss(node_id)
        super().add(node_id, params, weight)
        self._weights = {**self._weights, node_id: weight}

    def finish(self) -> Params:
        """See `FedAverage`; mu adapts."""
        losses, weights = self._losses, self._weights
        mean = super().finish()
        self._adapt(losses, weights)
        return mean

    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """See `FedAverage`; mu adapts."""
        mean = super().aggregate(model_params, weights)
        for node_id in model_params:
            self._require_loss(node_id)
        self._adapt(self._losses, weights)
        return mean

    def take_loss(self, loss: float) -> None:
        """Let mu adapt to the mean training loss of a round."""
        if loss > self._former_loss:
            self.mu, self._good_rounds = self.mu + self.delta, 0
        else:
            self._good_rounds += 1
            if self._good_rounds >= self.patience:
                self.mu, self._good_rounds = max(0.0, self.mu - self.delta), 0
        self._former_loss = loss

    def state_arrays(self) -> dict[str, Any]:
        """The loss of the round before and the good rounds; mu is among the settings."""
        return {} if math.isinf(self._former_loss) else {"former_loss": self._former_loss, "good_rounds": self._good_rounds}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave."""
        self._former_loss, self._good_rounds = float(state["former_loss"]), int(state["good_rounds"])

    def _adapt(self, losses: Mapping[str, float], weights: Mapping[str, float]) -> None:
        if self.adaptive:
            total = math.fsum(weights.values())
            self.take_loss(math.fsum(losses[node_id] * weight for node_id, weight in weights.items()) / total)

    def _require_loss(self, node_id: str) -> None:
        if self.adaptive and node_id not in self._losses:
            raise AggregationError(f"FedProx cannot use the update of {node_id}: it must be told its training loss (hear) before")
