"""Parameters and persistent buffers of a model beside the one of the plan, which can be put in its place for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.native import NativeTorchOptimizer


class OwnModel:
    """Trainable parameters and persistent buffers by name; frozen parameters are those of the module.

    Args:
        tensors: by name; they change when the model is trained.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = dict(tensors)

    @classmethod
    def of(cls, module: nn.Module) -> "OwnModel":
        """A copy of what a module has now."""
        return cls({name: tensor.detach().clone() for name, tensor in _places(module).items()})

    @classmethod
    def from_kept(cls, state: Mapping[str, Any], who: str) -> "OwnModel":
        """The model that `kept` gave.

        Raises:
            FedbiomedTrainingPlanError: it is something else.
        """
        tensors = state.get("model")
        if not isinstance(tensors, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise FedbiomedTrainingPlanError(f"FB605: what {who} kept on this node in the round before has no model")
        return cls({str(name): tensor.clone() for name, tensor in tensors.items()})

    def kept(self) -> dict[str, Any]:
        """What `from_kept` takes."""
        return {"model": {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}}

    @contextmanager
    def within(self, module: nn.Module) -> Iterator[None]:
        """A block within which the module has these tensors, and changes them; afterwards it has its own again, untouched.

        Raises:
            FedbiomedTrainingPlanError: names or shapes are not those of the module.
        """
        places = _places(module)
        self.check(places)
        own = {name: tensor.data for name, tensor in places.items()}
        _put(places, self.tensors)
        try:
            yield
        finally:
            places = _places(module)  # a layer may have made itself new buffers
            self.tensors = {name: tensor.data for name, tensor in places.items()}
            _put(places, own)

    def check(self, places: Mapping[str, torch.Tensor]) -> None:
        """Check that names and shapes are those of a module's parameters and buffers.

        Raises:
            FedbiomedTrainingPlanError: they are not.
        """
        found, wanted = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (self.tensors, places))
        wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        if wrong:
            raise FedbiomedTrainingPlanError(
                f"FB605: the model that this node kept in the round before is not of the plan's form, it differs in "
                f"{', '.join(wrong[:5])}: has the plan changed? start the experiment anew"
            )


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters of a module, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def torch_optimizer_of(optimizer: BaseOptimizer, who: str) -> BaseOptimizer:
    """An optimizer, checked to be one of torch.

    Raises:
        FedbiomedTrainingPlanError: it is another kind.
    """
    if not isinstance(optimizer, NativeTorchOptimizer):
        raise FedbiomedTrainingPlanError(f"FB605: {who} works with the optimizers of torch only, not with a {type(optimizer).__name__}")
    return optimizer


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """A block that draws random numbers, of which the training after it does not know."""
    devices = sorted({parameter.device.index or 0 for parameter in module.parameters() if parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def judging(module: nn.Module) -> Iterator[None]:
    """A block in evaluation mode and without gradients; afterwards each layer is as it was."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer in training:
            layer.training = True


def _places(module: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and persistent buffers; those that have several names, under each of them, as in a state dict."""
    kept = module.state_dict(keep_vars=True).keys()
    parameters = {name: p for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {**parameters, **{name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name in kept}}


def _put(places: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    for name, place in places.items():
        if name in tensors:
            place.data = tensors[name].to(device=place.device, dtype=place.dtype)
