"""The nodes' half of PerFCL, Zhang et al. 2022: FENDA's model with two contrastive terms.

With z_g, z_l the features of a batch by the global and the local extractor that are trained; and by extractors that are not: z_init by the
global one with which the round began, z_old_g and z_old_l by those with which this node's round before ended; and the contrastive loss

    l(z, z+, z-) = mean of -log(e^(cos(z, z+) / T) / (e^(cos(z, z+) / T) + e^(cos(z, z-) / T)))

the loss of a batch gets

    global_weight * l(z_g, z_init, z_old_g) + local_weight * l(z_l, z_old_l, z_init)

There is no term in a node's first round. The old extractors stay on the node; the three others give their features in evaluation mode
and without gradients.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.models.fenda import FendaModel
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.contrastive import contrastive_loss
from fedbiomed.common.training_plans.corrections._options import sent_number
from fedbiomed.common.training_plans.corrections.correction import Step
from fedbiomed.common.training_plans.private_layers import PrivateLayers

_OLD = "old_global"


class ContrastedExtractors(PrivateLayers):
    """Draws global features to the initial global ones, local features to the old local ones, and both away from the other.

    Args:
        aggregator_args: see `PrivateLayers`; and `temperature`, `global_weight`, `local_weight`.

    Raises:
        FedbiomedTrainingPlanError: one of these did not come.
    """

    def __init__(self, aggregator_args: Mapping[str, Any]) -> None:
        super().__init__("PerFCL", aggregator_args)
        self._temperature = sent_number(aggregator_args, "temperature", within=(1e-6, math.inf))
        self._weights = [sent_number(aggregator_args, name, within=(0.0, math.inf)) for name in ("global_weight", "local_weight")]
        self._old_params: Mapping[str, Any] | None = None
        self._others: tuple[nn.Module, nn.Module, nn.Module] | None = None
        self._seen: dict[str, tuple[Any, torch.Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        super().take_kept(state)
        if not isinstance(state.get(_OLD), Mapping):
            raise FedbiomedTrainingPlanError("FB605: what PerFCL kept on this node in the round before has no global extractor")
        self._old_params = state[_OLD]

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`.

        Raises:
            FedbiomedTrainingPlanError: the model has no `FendaModel`, or the old extractor is of another form.
        """
        super().begin(module, initial)
        model = fenda_model(module)
        if self._old_params is None:
            return
        old_global = _still(model.global_extractor)
        try:
            old_global.load_state_dict(dict(self._old_params))
        except RuntimeError as error:
            raise FedbiomedTrainingPlanError(
                f"FB605: the global extractor that this node kept is not of the plan's form: {' '.join(str(error).split())}"
            ) from error
        self._others = (_still(model.global_extractor), old_global, _still(model.local_extractor))
        self._handles = [extractor.register_forward_hook(self._see) for extractor in (model.global_extractor, model.local_extractor)]
        self._names = {id(model.global_extractor): "global", id(model.local_extractor): "local"}

    def step_begins(self, step: Step) -> None:
        """See `Correction`."""
        self._seen = {}

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        if self._others is None:
            return loss
        if self._seen.keys() != {"global", "local"}:
            raise FedbiomedTrainingPlanError("FB605: PerFCL needs a training_step() that calls the plan's FendaModel")
        initial, old_global, old_local = self._others
        (inputs, global_features), (local_inputs, local_features) = self._seen["global"], self._seen["local"]
        with torch.no_grad():
            by_initial, by_old, by_local = initial(*inputs), old_global(*inputs), old_local(*local_inputs)
        near_global = contrastive_loss(global_features, by_initial, [by_old], self._temperature)
        near_local = contrastive_loss(local_features, by_local, [by_initial], self._temperature)
        return loss + self._weights[0] * near_global + self._weights[1] * near_local

    def end(self) -> None:
        """See `Correction`."""
        for handle in self._handles:
            handle.remove()

    def kept(self) -> dict[str, Any]:
        """See `Correction`: the private layers, and the global extractor as this round made it."""
        if self._module is None:
            return super().kept()
        state = fenda_model(self._module).global_extractor.state_dict()
        return {**super().kept(), _OLD: {name: value.detach().cpu().clone() for name, value in state.items()}}

    def _see(self, extractor: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if extractor.training:
            self._seen[self._names[id(extractor)]] = (inputs, output)


def fenda_model(module: nn.Module) -> FendaModel:
    """The `FendaModel` that a module is or has.

    Raises:
        FedbiomedTrainingPlanError: there is none.
    """
    found = next((part for part in module.modules() if isinstance(part, FendaModel)), None)
    if found is None:
        raise FedbiomedTrainingPlanError("FB605: PerFCL needs a FendaModel of fedbiomed.common.models as the plan's model, or in it")
    return found


def _still(extractor: nn.Module) -> nn.Module:
    return copy.deepcopy(extractor).eval().requires_grad_(False)


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ContrastedExtractors:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: names or options did not come.
    """
    return ContrastedExtractors(aggregator_args)
