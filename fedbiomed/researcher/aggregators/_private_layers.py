"""Aggregators of which some layers stay on the nodes: only the others are sent, averaged and kept here."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.layer_names import INITIAL, PRIVATE, SHARED, is_under
from fedbiomed.common.params import Params, RunningMean
from fedbiomed.researcher.aggregators._from_global import FromGlobal
from fedbiomed.researcher.aggregators._node_half import WithNodeHalf
from fedbiomed.researcher.aggregators._sums import SumTerms

_STATE_INITIAL, _STATE_TRAINED = "initial", "trained"


class WithPrivateLayers(WithNodeHalf, FromGlobal):
    """The mean of the layers that travel, by samples. Streams: holds one sum in float64.

    A node that has not trained yet gets the private layers of the researcher's initial model, which are kept for it here.

    Attributes:
        are_shared: whether `chosen_layers` names the layers that travel, else those that stay.
    """

    takes_sums = True
    are_shared = False

    def __init__(self) -> None:
        super().__init__()
        self._layers: tuple[str, ...] | None = None
        self._initial: Params = {}
        self._trained: dict[str, float] = {}
        self.begin(0)

    @abstractmethod
    def chosen_layers(self, training_plan: Any) -> Sequence[str]:
        """The layers that stay, or those that travel, by their names in the plan's model.

        Raises:
            FedbiomedAggregatorError: the plan does not tell.
        """

    def node_options(self) -> dict[str, Any]:
        """What the nodes' half is told beside the names of layers."""
        return {}

    def travels(self, name: str) -> bool:
        """See `Aggregator`; all names do as long as no plan was seen."""
        return self._layers is None or is_under(name, self._layers) == self.are_shared

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`; takes note of the layers and of their initial values.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, has no layer of such a name, or nothing of it would travel.
        """
        self.check_plan(training_plan)
        if training_plan is not None:
            layers = tuple(self.chosen_layers(training_plan))
            self._check_layers(training_plan, layers)
            self._layers = layers
            self._note_initial(training_plan)
        return super().check_values(*args, training_plan=training_plan, **kwargs)

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; nodes are told the layers, and those that have not trained yet get the initial private ones as a file."""
        small, large = super().create_aggregator_args({n: value for n, value in global_model.items() if self.travels(n)}, node_ids)
        told = {SHARED if self.are_shared else PRIVATE: list(self._layers or ())}
        initial = {name: value for name, value in self._initial.items() if not self.travels(name)}
        new = {node_id for node_id in node_ids if initial and node_id not in self._trained}
        return (
            {node_id: {**args, **told} for node_id, args in small.items()},
            {node_id: {**args, INITIAL: initial} if node_id in new else args for node_id, args in large.items()},
        )

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not."""
        super().begin(round)
        self._mean = RunningMean()
        self._summed: Sequence[str] = ()

    def sum_terms(self, training_plan: Any) -> SumTerms:
        """See `Aggregator`; only the layers that travel are summed, so they are looked up first."""
        self.check_values(training_plan=training_plan)
        return super().sum_terms(training_plan)

    def hear_sum(self, nodes: Sequence[str], weight: float, beside: Mapping[str, Any]) -> None:
        """See `Aggregator`; takes note of who has trained."""
        self._summed = nodes

    def finish(self) -> Params:
        """The next parameters of the layers that travel.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        self._total_weight()
        params = self._mean.mean()
        self._trained = {**self._trained, **dict.fromkeys(self._summed or self._added, 1.0)}
        self.begin(0)
        return params

    def state_arrays(self) -> dict[str, Any]:
        """See `WithOptions`: initial private layers, and which nodes have trained."""
        return {_STATE_INITIAL: self._initial, _STATE_TRAINED: self._trained} if self._initial or self._trained else {}

    def take_state_arrays(self, state: Mapping[str, Any]) -> None:
        """See `WithOptions`."""
        self._initial = dict(state[_STATE_INITIAL])
        self._trained = {str(node_id): float(count) for node_id, count in state[_STATE_TRAINED].items()}

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        self._mean.add(params, weight, source=node_id)

    def _note_initial(self, training_plan: Any) -> None:
        """Keep the private layers of the initial model; those of another model than before begin anew."""
        shapes = {name: tuple(value.shape) for name, value in training_plan.model().state_dict().items() if not self.travels(name)}
        if any(name in shapes and tuple(value.shape) != shapes[name] for name, value in self._initial.items()):
            self._initial, self._trained = {}, {}
        missing = shapes.keys() - self._initial.keys()
        if missing:
            params = training_plan.get_model_params()
            self._initial = {**self._initial, **{name: params[name] for name in shapes if name in missing and name in params}}

    def _check_layers(self, training_plan: Any, layers: Sequence[str]) -> None:
        names = list(training_plan.model().state_dict())
        there = ", ".join(layer_names(training_plan))
        strange = [layer for layer in layers if not any(is_under(name, [layer]) for name in names)]
        if strange or not layers:
            asked = f"no layer {strange[0]!r:.80} with parameters" if strange else "no layer to choose"
            raise FedbiomedAggregatorError(f"FB401: the model has {asked} for {self.aggregator_name}; it has {there}")
        travelling = [name for name in names if is_under(name, layers) == self.are_shared]
        if not travelling or len(travelling) == len(names):
            what = "nothing would stay" if travelling else "nothing would travel"
            raise FedbiomedAggregatorError(
                f"FB401: with the layers {', '.join(layers)} of {self.aggregator_name} {what}; the model has {there}"
            )


def layer_names(training_plan: Any) -> list[str]:
    """The layers of a torch plan's model, and those parameters that belong to none."""
    model = training_plan.model()
    return [*(name for name, _ in model.named_modules() if name), *(name for name in model.state_dict() if "." not in name)]


def checked_layers(who: str, option: str, layers: Any) -> list[str] | None:
    """Names of layers, one may stand alone; None stays.

    Raises:
        FedbiomedAggregatorError: they are something else.
    """
    if layers is None:
        return None
    names = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, list | tuple) else []
    if not names or not all(isinstance(name, str) and name.strip(".") for name in names):
        raise FedbiomedAggregatorError(f"FB401: {option} of {who} must be names of layers, or None, not {layers!r:.80}")
    return [name.strip(".") for name in names]
