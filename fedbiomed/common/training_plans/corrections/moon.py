"""The nodes' half of MOON, Li et al. 2021 (CVPR, arXiv:2103.16257): model-contrastive learning.

To the loss of each batch is added, z being its features by the model that is trained, z_glob by the one with which the round began, z_old
by the one that this node's round before ended with, and sim the cosine:

    weight * mean of -log(e^(sim(z, z_glob) / T) / (e^(sim(z, z_glob) / T) + e^(sim(z, z_old) / T)))

The old model stays on the node. In the node's first round there is none, and no term. The two other models give their features in
evaluation mode and without gradients.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.contrastive import contrastive_loss
from fedbiomed.common.training_plans.corrections._options import sent_number
from fedbiomed.common.training_plans.corrections._own_model import OwnModel, judging
from fedbiomed.common.training_plans.corrections.correction import Correction, Step, Tools


class ContrastiveTerm(Correction):
    """Draws the features towards those of the global model, and away from those of the node's old one.

    Args:
        temperature: T, above 0.
        weight: of the term, 0 or more.
        layer: whose output the features are, by its name in the module; None: what the plan's `features(data)` returns.
    """

    keeps_state = True

    def __init__(self, temperature: float, weight: float, layer: str | None) -> None:
        self._temperature, self._weight, self._layer = temperature, weight, layer
        self._old: OwnModel | None = None
        self._captured: torch.Tensor | None = None
        self._step: Step | None = None

    def take_kept(self, state: Mapping[str, Any]) -> None:
        """See `Correction`."""
        self._old = OwnModel.from_kept(state, "MOON")

    def use(self, tools: Tools) -> None:
        """See `Correction`.

        Raises:
            FedbiomedTrainingPlanError: there is neither a layer nor a plan's `features`.
        """
        self._features_hook, self._training_step = tools.hook("features"), tools.hook("training_step")
        if self._layer is None and self._features_hook is None:
            raise FedbiomedTrainingPlanError(
                "FB605: MOON needs features: define features(data) in the plan, or name a layer of its model by MOON(layer=...)"
            )

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        self._module, self._global = module, OwnModel.of(module)
        self._handle = None
        layer = None if self._layer is None else _layer(module, self._layer)
        if layer is not None and self._old is not None:
            self._handle = layer.register_forward_hook(self._capture)

    def step_begins(self, step: Step) -> None:
        """See `Correction`; the features of the two models that are not trained."""
        self._step = step
        if self._old is not None:
            self._others = [self._features_by(model, step) for model in (self._global, self._old)]
            self._captured = None

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """See `Correction`."""
        if self._old is None or self._step is None:
            return loss
        positive, negative = self._others
        features = self._found(self._features_hook, self._step)
        return loss + self._weight * contrastive_loss(features, positive, [negative], self._temperature)

    def end(self) -> None:
        """See `Correction`."""
        if self._handle is not None:
            self._handle.remove()
        self._old = OwnModel.of(self._module)

    def kept(self) -> dict[str, Any] | None:
        """See `Correction`."""
        return None if self._old is None else self._old.kept()

    def _features_by(self, model: OwnModel, step: Step) -> torch.Tensor:
        with model.within(self._module), judging(self._module):
            if self._layer is not None and self._training_step is not None:
                self._captured = None
                self._training_step(step.data, step.target)
            return self._found(self._features_hook, step).detach()

    def _found(self, hook: Callable[..., Any] | None, step: Step) -> torch.Tensor:
        """The features of a batch: what the layer gave in the training step, or what the plan's hook gives."""
        found = self._captured if self._layer is not None or hook is None else hook(step.data)
        if not isinstance(found, torch.Tensor):
            where = f"the layer {self._layer!r} in training_step()" if self._layer is not None else "features() of the plan"
            raise FedbiomedTrainingPlanError(f"FB605: MOON needs a tensor of features from {where}, it gave {type(found).__name__}")
        return found

    def _capture(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._captured = output


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> ContrastiveTerm:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: an option did not come, or is something else.
    """
    layer = aggregator_args.get("layer")
    if layer is not None and not isinstance(layer, str):
        raise FedbiomedTrainingPlanError(f"FB605: MOON must send 'layer', a name or None, not {layer!r:.80}")
    temperature = sent_number(aggregator_args, "temperature", within=(1e-6, math.inf))
    return ContrastiveTerm(temperature, sent_number(aggregator_args, "weight", within=(0.0, math.inf)), layer)


def _layer(module: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if name not in layers:
        raise FedbiomedTrainingPlanError(f"FB605: the model has no layer {name!r:.80}; it has {', '.join(filter(None, layers))}")
    return layers[name]
