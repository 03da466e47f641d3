"""A torch module as a model of a training plan."""

import copy
import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError
from fedbiomed.common.models.model import Model
from fedbiomed.common.params import Params, numpy_ready

logger = logging.getLogger(__name__)


class TorchModel(Model):
    """Parameters are those of `state_dict()`: trainable and frozen ones and buffers, as CPU tensors.

    A mean of integers (a counter) comes as a floating number and is rounded, of two equally near integers to the even one; that of
    booleans (a mask) is True from 0.5 on.

    Files hold the state dict, not the pickled module: they can be read when the plan's class was imported under another name, as it is
    in every process, and torch reads them without running what they say.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @property
    def model(self) -> nn.Module:
        """The torch module."""
        return self._module

    def get_weights(
        self,
        only_trainable: bool = False,  # by position in the public signature
        *,
        with_buffers: bool = True,
    ) -> Params:
        """Copies of the parameters, as CPU tensors.

        Args:
            only_trainable: leave out frozen parameters and buffers.
            with_buffers: take along what is not a parameter, as the running statistics of a batch normalisation.
        """
        if only_trainable:
            everything = self._module.named_parameters(remove_duplicate=False)
            return {name: _copy(parameter) for name, parameter in everything if parameter.requires_grad}
        parameters = {name for name, _ in self._module.named_parameters(remove_duplicate=False)}
        return {
            name: _copy(value)
            for name, value in self._module.state_dict().items()
            if isinstance(value, torch.Tensor) and (with_buffers or name in parameters)
        }

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Take parameters over; those not given stay as they are, those not known are left out, both with a warning.

        Raises:
            FedbiomedModelError: a shape differs from the model's, or it is no mapping of names to arrays.
        """
        if not isinstance(weights, Mapping):
            raise FedbiomedModelError(f"the parameters of a model are a dict of arrays, not a {type(weights).__name__}")
        own = self._module.state_dict()
        given = {name: as_tensor(name, value) for name, value in weights.items() if name in own}
        for name, tensor in given.items():
            if isinstance(own[name], torch.Tensor) and own[name].shape != tensor.shape:
                raise FedbiomedModelError(
                    f"parameter {name!r} has the shape {tuple(tensor.shape)}, the plan's model needs {tuple(own[name].shape)}"
                )
        _warn("were not given and stay as they are", [name for name, _ in self.trainable() if name not in given])
        _warn("are not in the plan's model and are left out", [name for name in weights if name not in own])
        self._module.load_state_dict({name: fitted(tensor, own[name]) for name, tensor in given.items()}, strict=False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that training changes; one that has two names comes once."""
        return ((name, parameter) for name, parameter in self._module.named_parameters() if parameter.requires_grad)

    def zero_gradients(self) -> None:
        """See `Model`."""
        self._module.zero_grad()

    def get_gradients(self) -> Params:
        """See `Model`; dense."""
        return {name: _gradient(parameter) for name, parameter in self.trainable()}

    def trainable_copies(self) -> Params:
        """See `Model`."""
        return {name: parameter.detach().clone() for name, parameter in self.trainable()}

    def apply_updates(self, updates: Mapping[str, Any]) -> None:
        """See `Model`."""
        trainable = dict(self.trainable())
        for name, update in updates.items():
            if name not in trainable or trainable[name].shape != update.shape:
                raise FedbiomedModelError(f"an update of {name!r} with the shape {tuple(update.shape)} fits to no trainable parameter")
        with torch.no_grad():
            for name, update in updates.items():
                trainable[name].add_(update.to(trainable[name].device))

    def predict(self, inputs: Any) -> np.ndarray[Any, Any]:
        """What the model gives for a batch, without gradients; float32 for bfloat16, which numpy has not.

        Raises:
            FedbiomedModelError: it gives something else than a tensor.
        """
        with torch.no_grad():
            outputs = self._module(inputs)
        if not isinstance(outputs, torch.Tensor):
            raise FedbiomedModelError(f"the model gives a {type(outputs).__name__}, not a tensor; define testing_step() in the plan")
        predicted: np.ndarray[Any, Any] = numpy_ready(outputs).numpy()
        return predicted

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the block the module is in evaluation mode; afterwards each layer is as it was."""
        training = [layer for layer in self._module.modules() if layer.training]
        self._module.eval()
        try:
            yield
        finally:
            for layer in training:
                layer.training = True

    def export(self, filename: str | Path) -> None:
        """Write the state dict with `torch.save`.

        Raises:
            OSError: the file cannot be written.
        """
        with Path(filename).open("wb") as file:
            torch.save(self._module.state_dict(), file)

    def reload(self, filename: str | Path) -> None:
        """Read a state dict that `export` wrote for the same model.

        torch's reader of plain tensors is used. All the same it is for files of one's own: what comes from other machines goes
        through the Serializer.

        Raises:
            FedbiomedModelError: the file holds something else, or not all parameters of this model, which stays as it was.
            OSError: the file cannot be read.
        """
        try:
            with Path(filename).open("rb") as file, warnings.catch_warnings(action="ignore"):  # what is wrong is raised
                state = torch.load(file, map_location="cpu", weights_only=True)
            self._load(state)
        except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
            raise FedbiomedModelError(f"{filename} does not hold the parameters of this model: {' '.join(str(error).split())}") from error

    def _load(self, state: Any) -> None:
        before = copy.deepcopy(self._module.state_dict())
        try:
            self._module.load_state_dict(state)
        except BaseException:  # torch has put what fits in by then
            self._module.load_state_dict(before)
            raise


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter, requires_grad=False)
    return parameter.grad.detach().to_dense() if parameter.grad.is_sparse else parameter.grad.detach()


def as_tensor(name: str, value: Any) -> torch.Tensor:
    """A parameter as a tensor: the given one, or a copy of an array or number in the byte order of the machine.

    Raises:
        FedbiomedModelError: it is neither.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        array = np.array(value)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        raise FedbiomedModelError(f"parameter {name!r} is a {type(value).__name__}, not an array of numbers") from error


def fitted(value: torch.Tensor, own: Any) -> torch.Tensor:
    """A value for a parameter or buffer: floating numbers for one of integers or booleans become such, see `TorchModel`."""
    if not isinstance(own, torch.Tensor) or own.is_floating_point() or own.is_complex() or not value.is_floating_point():
        return value
    return value >= 0.5 if own.dtype is torch.bool else value.round()


def _warn(what: str, names: list[str]) -> None:
    if names:
        logger.warning("%d parameters %s: %s", len(names), what, ", ".join(map(str, names[:10])) + (" ..." if len(names) > 10 else ""))
