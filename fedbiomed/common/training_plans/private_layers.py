"""Layers that stay on the node, or a few that travel: the part that algorithms with private layers have in common."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.layer_names import INITIAL, PRIVATE, SHARED, is_under
from fedbiomed.common.training_plans.corrections.correction import Correction

_KEPT = "private"


class PrivateLayers(Correction):
    """Lets private layers neither in nor out: parameters and buffers of theirs stay on the node from round to round.

    In a node's first round they are those of the researcher's initial model.

    Args:
        who: the algorithm, for messages.
        aggregator_args: names of the layers that stay, or of those that travel; for a node that has not trained yet, the initial values.

    Raises:
        FedbiomedTrainingPlanError: the names did not come.
    """

    keeps_state = True

    def __init__(self, who: str, aggregator_args: Mapping[str, Any]) -> None:
        given = {key: aggregator_args[key] for key in (PRIVATE, SHARED) if aggregator_args.get(key) is not None}
        layers = next(iter(given.values()), None)
        if len(given) != 1 or not isinstance(layers, list | tuple) or not all(isinstance(layer, str) for layer in layers):
            raise FedbiomedTrainingPlanError(f"FB605: {who} needs the names of its layers, {PRIVATE!r} or {SHARED!r}")
        self._who, self._layers, self._are_shared = who, tuple(layers), SHARED in given
        self._initial: Any = aggregator_args.get(INITIAL) or {}
        self._own: Mapping[str, Any] | None = None
        self._module: nn.Module | None = None

    def is_private(self, name: str) -> bool:
        """Whether a parameter or buffer of that name stays on the node."""
        return is_under(name, self._layers) != self._are_shared

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        own = state.get(_KEPT)
        if not isinstance(own, Mapping) or not all(isinstance(value, torch.Tensor) for value in own.values()):
            raise FedbiomedTrainingPlanError(f"FB605: what {self._who} kept on this node in the round before has no private layers")
        self._own = own

    def arriving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Correction`: what came, with the node's own private layers."""
        own = self._initial if self._own is None else self._own
        return {**params, **{name: value for name, value in own.items() if self.is_private(name)}}

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._module = module

    def kept(self) -> dict[str, Any]:
        """See `Correction`: parameters and buffers of the private layers."""
        tensors = {} if self._module is None else self._module.state_dict()
        own = {name: value.detach().cpu().clone() for name, value in tensors.items() if self._is_kept(name, value)}
        return {_KEPT: own}

    def leaving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Correction`: what is not private."""
        return {name: value for name, value in params.items() if not self.is_private(name)}

    def _is_kept(self, name: str, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and self.is_private(name)
