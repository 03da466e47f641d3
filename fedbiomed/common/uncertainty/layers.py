"""Layers that need care when a network is used with other weights, or several times: batch normalisation and dropout."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fedbiomed.common.exceptions import FedbiomedUncertaintyError


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """After the block each layer is in training or evaluation mode as it was before."""
    before = [(layer, layer.training) for layer in model.modules()]
    try:
        yield
    finally:
        for layer, mode in before:
            layer.training = mode


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics of their inputs."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The dropout layers of all kinds that drop anything, found by their type."""
    return [layer for layer in model.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


def renew_batch_norm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Work out the running statistics anew, as the means over these batches, for the weights that the model has now.

    Args:
        model: is in evaluation mode afterwards; only its batch normalisation learns.
        batches: inputs, or pairs of inputs and targets; gone over once.

    Raises:
        FedbiomedUncertaintyError: there is no batch.
    """
    layers = batch_norms(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.train()
    count = 0
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch[0] if isinstance(batch, tuple | list) else batch)
                count += 1
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
    if not count:
        raise FedbiomedUncertaintyError("the loader for the batch normalisation gave no batch; a generator can be gone over only once")
