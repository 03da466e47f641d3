"""Client-level differential privacy. The nodes' half is `common/training_plans/corrections/clientleveldp.py`.

With x the parameters that were sent, d_i the way of node i, clipped there to the norm C, b_i whether it was within C before, n the nodes of
the round, z the noise multiplier and s the deviation of the bits' noise:

    z_d <- (z^-2 - (2 s)^-2)^(-1/2)                 so that both releases together are one of noise multiplier z
    D   <- (sum_i d_i + N(0, (z_d C)^2)) / n
    b   <- (sum_i b_i + N(0, s^2)) / n
    m   <- beta m + D
    x   <- x + server_lr m
    C   <- C exp(-clipping_lr (b - quantile))

Weighted, d_i counts by w_i = min(n_i, cap) / cap and D is divided by the sum of w_i; identical ways give themselves either way.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.params import Params, RunningMean, as_array
from fedbiomed.common.privacy_cost import PrivacyCost, spent_epsilon
from fedbiomed.common.secagg.beside import TOLD, named
from fedbiomed.common.secagg.terms import Weighting
from fedbiomed.common.secure_normal import secure_normal
from fedbiomed.researcher.aggregators._from_global import Array, FromGlobal
from fedbiomed.researcher.aggregators._options import above_zero, at_least_zero, checked_number, decay_rate
from fedbiomed.researcher.aggregators._sums import SumTerms

logger = logging.getLogger(__name__)
_BOUND, _TOLD = "aggregator_clipping_bound", "within_clipping_bound"
_SUMMED_BITS = named(TOLD, _TOLD)
_SLACK = 1e-4  # by which float32 may leave a norm above C


class ClientLevelDP(FromGlobal):
    """Hides whether a node took part: clips each node's way, adds noise to their mean, and steps with momentum; the bound of the clipping
    follows a quantile of the norms (Andrew et al. 2021, arXiv:1905.03871; with McMahan et al. 2018, arXiv:1710.06963).

    Exchanged: parameters, and whether a node's way was within the bound; to each node the bound. Stays on the nodes: data.

    The noise is added here, so the researcher must be trusted with the clipped updates; with secure aggregation, with their sum only (not
    where nodes are weighted). Needs a torch plan. Noise comes from the operating
    system unless a seed is given, with which whoever knows it can take it away again: for tests.

    Args:
        clipping_bound: C of the first round.
        quantile: share of nodes whose way shall be within the bound.
        clipping_lr: how fast the bound follows.
        noise_multiplier: z; 0 for no noise.
        bit_noise: s; above z / 2. Without noise it is not used.
        beta: momentum.
        server_lr: step of the researcher.
        weighted: let nodes count by their samples.
        per_client_example_cap: samples beyond which a node counts no more; None: those of the largest node of the round.
        adaptive_clipping: let the bound follow; else it stays, and z_d is z.
        seed: of the noise.

    Raises:
        FedbiomedAggregatorError: a setting is out of its range.
    """

    def __init__(  # noqa: PLR0917  settings of the method
        self,
        clipping_bound: float = 0.1,
        quantile: float = 0.5,
        clipping_lr: float = 1.0,
        noise_multiplier: float = 1.0,
        bit_noise: float = 1.0,
        beta: float = 0.9,
        server_lr: float = 1.0,
        *,
        weighted: bool = False,
        per_client_example_cap: float | None = None,
        adaptive_clipping: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        self.clipping_bound = above_zero(who, "clipping_bound", clipping_bound)
        self.quantile = checked_number(who, "quantile", quantile, "a number from 0 to 1", within=(0.0, 1.0))
        self.clipping_lr = at_least_zero(who, "clipping_lr", clipping_lr)
        self.noise_multiplier = at_least_zero(who, "noise_multiplier", noise_multiplier)
        self.bit_noise = at_least_zero(who, "bit_noise", bit_noise)
        self.beta = decay_rate(who, "beta", beta)
        self.server_lr = above_zero(who, "server_lr", server_lr)
        self.takes_sums = not weighted  # the noise depends on the largest node's samples then
        self.weighted, self.adaptive_clipping, self.seed = bool(weighted), bool(adaptive_clipping), seed
        self.per_client_example_cap = None if per_client_example_cap is None else above_zero(who, "cap", per_client_example_cap)
        self.update_noise_multiplier()  # refuses what does not fit together
        self.momentum: dict[str, Array] = {}
        self._noisy_rounds: dict[str, int] = {}
        self._round = 0
        self.begin(0)

    def update_noise_multiplier(self) -> float:
        """z_d, the noise multiplier of the ways alone.

        Raises:
            FedbiomedAggregatorError: the noise of the bits is too small for z.
        """
        z, s = self.noise_multiplier, self.bit_noise
        if not self.adaptive_clipping or z == 0:
            return z
        if 2 * s <= z:
            raise FedbiomedAggregatorError(f"FB401: bit_noise of ClientLevelDP must be above noise_multiplier / 2 = {z / 2:g}, not {s:g}")
        return float((z**-2 - (2 * s) ** -2) ** -0.5)

    def epsilon(self, delta: float, rounds: int | None = None) -> float:
        """What a node's taking part has cost, or would cost after so many rounds; neighbours differ by one node.

        Counted as if every node took part in every round; a strategy that draws nodes makes it less.

        Args:
            delta: far below 1 divided by the number of nodes.
            rounds: None for those that were done.
        """
        done = self._noisy_rounds if rounds is None else {repr(self.noise_multiplier): rounds}
        costs = (PrivacyCost(sample_rate=1.0, noise_multiplier=float(z), steps=count) for z, count in done.items())
        return spent_epsilon(costs, delta)

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, where the node's half is.
        """
        if training_plan is not None and training_plan.type() is not TrainingPlans.TorchTrainingPlan:
            raise FedbiomedAggregatorError(f"FB401: ClientLevelDP works with torch plans only, this one is a {training_plan.type()}")
        return super().check_values(*args, training_plan=training_plan, **kwargs)

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; each node is told the bound."""
        small, _ = super().create_aggregator_args(global_model, node_ids)
        return small, {node_id: {_BOUND: self.clipping_bound} for node_id in node_ids}

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not; momentum and bound stay."""
        super().begin(round)
        self._round, self._mean, self._bits = round, RunningMean(), dict[str, float]()
        self._top = 0.0
        self._summed: tuple[int, float] | None = None

    def hear(self, node_id: str, reply: Mapping[str, Any]) -> None:
        """Take note of whether a node's way was within the bound.

        Raises:
            AggregationError: it does not tell, and the bound is to follow.
        """
        told = reply.get("told")
        bit = told.get(_TOLD) if isinstance(told, Mapping) else None
        if bit in (0, 1):
            self._bits = {**self._bits, node_id: float(bit)}
        elif self.adaptive_clipping:
            raise AggregationError(f"{node_id} does not tell whether its update was within the clipping bound: is its release older?")

    def sum_terms(self, training_plan: Any) -> SumTerms:
        """See `Aggregator`; all nodes count alike, and how many were within the bound goes beside the parameters."""
        return SumTerms(weighting=Weighting.NODES, beside={_SUMMED_BITS: ()})

    def hear_sum(self, nodes: Sequence[str], weight: float, beside: Mapping[str, Any]) -> None:
        """See `Aggregator`; takes note of how many nodes there are, and of the share that was within the bound."""
        self._summed = len(nodes), float(beside[_SUMMED_BITS])

    def finish(self) -> Params:
        """The next parameters; momentum and bound are renewed.

        Raises:
            AggregationError: nothing was added, all weights are 0, or a step is too large for the dtype of its parameter.
        """
        self._mean.require_weight()
        draw = self._drawer()
        top = self.per_client_example_cap if self.weighted and self.per_client_example_cap is not None else self._top
        deviation = self.update_noise_multiplier() * self.clipping_bound * top / self._mean.total_weight
        params: Params = {}
        momentum: dict[str, Array] = {}
        for name in sorted(self._mean.names()):
            value, kind = self._mean.mean_of(name), self._mean.kind(name)
            step = value - self._sent_array(name)
            if self._is_trained(name):
                noisy = step + deviation * draw(step.size).reshape(step.shape) if deviation else step
                momentum[name] = noisy + self.beta * self.momentum.get(name, np.zeros_like(noisy))
                step = self.server_lr * momentum[name]
            params[name] = self._moved(name, step, kind)
        self._follow_norms(draw)
        z = repr(self.noise_multiplier)
        self.momentum, self._noisy_rounds = momentum, {**self._noisy_rounds, z: self._noisy_rounds.get(z, 0) + 1}
        self.begin(self._round)
        return {name: params[name] for name in self._sent}

    def _follow_norms(self, draw: Any) -> None:
        counted = [self._bits[node_id] for node_id, weight in self._added.items() if weight > 0 and node_id in self._bits]
        count, within = (len(counted), math.fsum(counted)) if self._summed is None else (self._summed[0], math.prod(self._summed))
        if self.adaptive_clipping and count:
            noise = self.bit_noise * float(draw(1)[0]) if self.noise_multiplier else 0.0
            share = (within + noise) / count
            self.clipping_bound *= math.exp(-self.clipping_lr * (share - self.quantile))

    def state_arrays(self) -> dict[str, Any]:
        """Momentum, and how many rounds had which noise."""
        shapes = {name: list(shape) for name, shape in self._shapes.items()}
        return {"momentum": self.momentum, "noisy_rounds": self._noisy_rounds, "shapes": shapes} if self.momentum else {}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_arrays` gave."""
        self.momentum = {name: np.array(value, np.float64) for name, value in state["momentum"].items()}
        self._noisy_rounds = {str(float(z)): int(count) for z, count in state["noisy_rounds"].items()}
        self._shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        if not (math.isfinite(weight) and weight >= 0):
            raise AggregationError(f"the weight of {node_id} must be a number of 0 or more, not {weight!r}")
        cap = self.per_client_example_cap
        counts = weight if self.weighted or not weight > 0 else 1.0
        counts = min(counts, cap) if self.weighted and cap is not None else counts
        top = counts
        if self._summed is not None:  # the mean of nodes that count by 1
            counts, top = float(self._summed[0]), 1.0
        self._mean.add(self._within(params) if weight > 0 else params, counts, source=node_id)
        self._top = max(self._top, top)

    def _within(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same, clipped here where the node did not."""
        arrays = {name: as_array(value, name, "a node") for name, value in params.items()}
        trained = {name: array.astype(np.float64) - self._sent_array(name) for name, array in arrays.items() if self._is_trained(name)}
        norm = math.sqrt(math.fsum(float((way**2).sum()) for way in trained.values()))
        if not math.isfinite(norm) or norm <= self.clipping_bound * (1 + _SLACK):
            return params
        factor = self.clipping_bound / norm
        return {**params, **{name: (self._sent_array(name) + factor * way).astype(arrays[name].dtype) for name, way in trained.items()}}

    def _drawer(self) -> Any:
        """What draws normal numbers in this round."""
        return secure_normal if self.seed is None else np.random.default_rng((self.seed, self._round)).standard_normal

    def _begin_anew(self) -> None:
        logger.warning("the model is another one than in the round before: the momentum of ClientLevelDP begins anew")
        self.momentum = {}
