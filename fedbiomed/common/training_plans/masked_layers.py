"""Layers whose weights stay as they were drawn, and which learn which of these to use: FedPM, Isik et al. 2023 (arXiv:2209.15328).

With W the fixed weights and s the scores, which are trained, the layer uses

    W * m        m ~ Bernoulli(sigmoid(s)) in training, anew at each call; m = 1 where sigmoid(s) > 1/2 in evaluation

The gradient of m by sigmoid(s) is taken to be 1. Where an entry is called `<name>_mask_scores`, the fixed one is called `<name>`.
"""

from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError

SCORES = "_mask_scores"


class _Masked:
    """What masked layers do beside their kind's; mixed into a layer of torch.

    The fixed weights become buffers, so that they travel once with the model and no optimizer changes them; scores begin as N(0, 1).
    """

    def fix(self) -> None:
        """Turn parameters into buffers, each with scores beside."""
        layer: Any = self
        for name, parameter in list(layer.named_parameters(recurse=False)):
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach().clone())
            layer.register_parameter(f"{name}{SCORES}", nn.Parameter(torch.randn_like(parameter)))

    def used(self, name: str) -> torch.Tensor | None:
        """An entry under its mask; None where the layer has none of that name."""
        layer: Any = self
        fixed = getattr(layer, name, None)
        if fixed is None:
            return None
        probabilities = torch.sigmoid(getattr(layer, f"{name}{SCORES}"))
        if not layer.training:
            return torch.as_tensor(fixed * (probabilities > 0.5))
        return torch.as_tensor(fixed * (torch.bernoulli(probabilities.detach()) + probabilities - probabilities.detach()))


class MaskedLinear(_Masked, nn.Linear):
    """`torch.nn.Linear` under a mask; takes the same arguments."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.fix()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Linear`."""
        return nn.functional.linear(input, torch.as_tensor(self.used("weight")), self.used("bias"))


class MaskedConv2d(_Masked, nn.Conv2d):
    """`torch.nn.Conv2d` under a mask; takes the same arguments by name."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, **arguments: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **arguments)
        self.fix()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Conv2d`."""
        return torch.as_tensor(self._conv_forward(input, torch.as_tensor(self.used("weight")), self.used("bias")))


def masked(module: nn.Module) -> nn.Module:
    """The module with each `Linear` and `Conv2d` in it, itself too, under a mask; their weights stay as they are. Other layers are trained.

    Raises:
        FedbiomedModelError: there is no such layer.
    """
    if type(module) in (nn.Linear, nn.Conv2d):
        return _covered(module)
    modules = list(module.named_modules(remove_duplicate=False))  # a layer may stand in two places
    found = [(name, layer) for name, layer in modules if type(layer) in (nn.Linear, nn.Conv2d)]
    if not found:
        raise FedbiomedModelError(f"a {type(module).__name__} has no Linear or Conv2d to be masked")
    covered: dict[int, nn.Module] = {}
    for name, layer in found:
        parent, _, own = name.rpartition(".")
        covered[id(layer)] = covered.get(id(layer)) or _covered(layer)
        setattr(module.get_submodule(parent), own, covered[id(layer)])
    return module


def _covered(layer: nn.Module) -> nn.Module:
    new: MaskedLinear | MaskedConv2d
    if isinstance(layer, nn.Conv2d):
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        arguments = {name: getattr(layer, name) for name in names}
        new = MaskedConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, bias=layer.bias is not None, **arguments)
    elif isinstance(layer, nn.Linear):
        new = MaskedLinear(layer.in_features, layer.out_features, layer.bias is not None)
    else:
        raise FedbiomedModelError(f"a {type(layer).__name__} cannot be masked")
    new.load_state_dict(layer.state_dict(), strict=False)  # scores are new
    return new
