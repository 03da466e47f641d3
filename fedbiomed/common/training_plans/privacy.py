"""Differential privacy of one node's training, on opacus (Abadi et al. 2016, arXiv:1607.00133).

Batches are drawn by Poisson sampling, the gradient of each sample is clipped to the norm `clip`, and then

- `local`: each step adds N(0, (sigma clip)^2) to the sum of the clipped gradients;
- `central`: the steps add nothing; each tensor that leaves the node gets N(0, (sigma clip)^2) once.

opacus attaches to the plan's module from outside (no wrapper), so the names of parameters are the plain ones everywhere. A batch that is
empty, which Poisson sampling may give, is a step of noise alone. What the aggregator's half on the node adds to a gradient comes after the
noise: it depends on parameters that were released already, so it costs nothing and must not be clipped.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedDPControllerError
from fedbiomed.common.privacy_cost import PrivacyCost, imported_quietly, require_installed
from fedbiomed.common.training_plans.privacy_noise import Noise
from fedbiomed.common.training_plans.torch_half import TorchHalf

# How far a gradient may be from the mean of its samples' gradients, by itself and by the whole gradient: what float32 leaves.
_AGREEMENT, _SLACK = 1e-3, 1e-5


class PrivateTraining:
    """One plan's training with differential privacy.

    Args:
        dp_args: `type`, `sigma`, `clip`, as checked by `TrainingArgs`.
        seed: makes sampling and noise repeatable, see `Noise`.

    Raises:
        FedbiomedDPControllerError: a package is not installed.
    """

    def __init__(self, dp_args: Mapping[str, Any], seed: int | None) -> None:
        require_installed()
        self._sigma, self._clip, self._seed = dp_args["sigma"], dp_args["clip"], seed
        self._is_central = dp_args["type"] == "central"
        self._noise = Noise(seed)
        self._is_trained = False
        self._sample_rate = 1.0
        self._left: dict[str, Any] | None = None

    def cost(self, steps: int) -> PrivacyCost:
        """What so many steps cost: each of them, or, where the noise is central, the one release after them."""
        rate, count = (1.0, min(steps, 1)) if self._is_central else (self._sample_rate, steps)
        return PrivacyCost(sample_rate=rate, noise_multiplier=self._sigma, steps=count)

    @contextlib.contextmanager
    def training(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader[Any],
        half: TorchHalf,
        *,
        stream: str,
        are_buffers_shared: bool,
    ) -> Iterator[DataLoader[Any]]:
        """A block in which `zero_grad` and `step` train the module; gives the loader of batches drawn by Poisson sampling.

        Args:
            module, optimizer: in place and ready to train.
            loader: whose dataset and mean size of a batch are kept.
            half: the corrections of this training.
            stream: see `Noise`.
            are_buffers_shared: whether buffers leave the node: then training must not change them.

        Raises:
            FedbiomedDPControllerError: opacus cannot train this, or a correction reads data without clipping.
        """
        _refuse_half(half)
        self._half, self._module = half, module
        self._noise, self._left, self._is_checked = Noise(self._seed, stream), None, False
        self._is_trained = True
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()} if are_buffers_shared else {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Full backward hook is firing")  # the first layer's input is data
            hooks, self._optimizer, private_loader = self._made_private(module, optimizer, loader, self._noise)
            stack.callback(hooks.cleanup)
            stack.enter_context(_forward_is_heard(module))
            yield private_loader
            _refuse_changed(buffers, module)

    def _made_private(self, module: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], noise: Noise) -> tuple[Any, ...]:
        opacus = imported_quietly("opacus")
        try:
            with warnings.catch_warnings(action="ignore"):  # that the noise is not that of opacus' secure mode: it is ours
                engine = opacus.PrivacyEngine(accountant="rdp")
                engine.secure_rng = noise.sampling  # what it gives to the loader
                hooks, private, private_loader = engine.make_private(
                    module=module,
                    optimizer=optimizer,
                    data_loader=loader,
                    noise_multiplier=0.0 if self._is_central else self._sigma,
                    max_grad_norm=self._clip,
                    wrap_model=False,
                )
                private_loader.collate_fn([loader.dataset[0]])  # from it an empty batch has its form
        except (ValueError, NotImplementedError, TypeError, RuntimeError, opacus.validators.errors.UnsupportedModuleError) as error:
            raise _refused(f"opacus cannot train this plan: {' '.join(str(error).split()):.500}") from error
        self._sample_rate = float(private_loader.sample_rate)
        expected = len(loader.dataset) * self._sample_rate  # type: ignore[arg-type]  # datasets here have a length
        private.expected_batch_size = max(1, int(expected + 1e-9))  # opacus rounds 0.999... to 0
        return hooks, private, private_loader

    def zero_grad(self) -> None:
        """Forget gradients, those of single samples too, also of parameters that the optimizer does not know."""
        self._optimizer.zero_grad(set_to_none=True)
        for parameter in self._module.parameters():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]  # opacus' attribute

    def step(self, size: int) -> None:
        """Clip, sum, add noise, correct, and let the optimizer step.

        Args:
            size: samples in the batch; 0: no gradient was computed.

        Raises:
            FedbiomedDPControllerError: the loss depends on parameters in a way that does not come apart by samples.
        """
        self._require_samples_gradients(size)
        self._optimizer.clip_and_accumulate()
        deviation = self._optimizer.noise_multiplier * self._clip
        for parameter in self._optimizer.params:
            total = parameter.summed_grad
            parameter.grad = total if deviation == 0 else total + self._noise.normal(total, deviation)
        self._optimizer.scale_grad()
        self._correct()
        self._optimizer.original_optimizer.step()

    def _require_samples_gradients(self, size: int) -> None:
        """Each parameter has one gradient per sample; where the loss does not touch it, zeros."""
        for name, parameter in self._module.named_parameters():
            if not parameter.requires_grad:
                continue
            samples = getattr(parameter, "grad_sample", None)
            if isinstance(samples, list):
                samples = torch.cat(samples)
            found = torch.zeros((size, *parameter.shape), device=parameter.device) if samples is None else samples
            if len(found) != size:
                raise _refused(
                    f"{len(found)} gradients came out for {size} samples at parameter {name!r}: the first dimension of what each layer "
                    "gets must be that of the samples"
                )
            parameter.grad_sample = found  # type: ignore[attr-defined]
        if size and not self._is_checked:
            _require_agreement(self._module)
            self._is_checked = True

    def _correct(self) -> None:
        nothing = torch.zeros((), device=next(self._module.parameters()).device)
        followed = self._half.corrected_loss(nothing)
        if followed is not nothing and followed.requires_grad:
            parameters = self._optimizer.params
            for parameter, gradient in zip(parameters, torch.autograd.grad(followed, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    parameter.grad += gradient
        self._half.correct_gradients()

    def leaving(self, params: dict[str, Any]) -> dict[str, Any]:
        """What may leave the node after a training: with noise on each tensor of floats, drawn once, where it is central.

        Raises:
            FedbiomedDPControllerError: a value is no tensor or array.
        """
        if not self._is_central or not self._is_trained:
            return params
        if self._left is None:
            self._left = {name: self._noisy(name, value) for name, value in params.items()}
        return dict(self._left)

    def _noisy(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor | np.ndarray):
            raise _refused(f"{name!r} is a {type(value).__name__}: what leaves the node must be tensors or arrays, to which noise is added")
        tensor = torch.as_tensor(value)
        if not tensor.is_floating_point():
            return value
        noisy = tensor + self._noise.normal(tensor, self._sigma * self._clip)
        return noisy if isinstance(value, torch.Tensor) else noisy.numpy()


@contextlib.contextmanager
def _forward_is_heard(module: nn.Module) -> Iterator[None]:
    """A block in which the module's hooks hear of `module.forward(x)`, which is how notebooks call a model, as they do of `module(x)`."""
    forward, is_within_call = module.forward, False

    def enter(layer: nn.Module, inputs: Any) -> None:
        nonlocal is_within_call
        is_within_call = True

    def heard_forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_within_call
        if not is_within_call:
            return module(*args, **kwargs)
        is_within_call = False
        return forward(*args, **kwargs)

    given = module.__dict__.get("forward")
    handle = module.register_forward_pre_hook(enter)
    module.__dict__["forward"] = heard_forward
    try:
        yield
    finally:
        handle.remove()
        module.__dict__.pop("forward")
        module.__dict__.update({} if given is None else {"forward": given})


def fitted_module(module: nn.Module) -> nn.Module:
    """Replace, in place, the layers with which gradients do not come apart by samples (a batch normalisation by a group normalisation).

    Returns:
        The module, or what stands for it where it is such a layer itself.

    Raises:
        FedbiomedDPControllerError: a layer cannot be replaced.
    """
    validator = imported_quietly("opacus.validators").ModuleValidator
    replaced: dict[int, nn.Module] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        parameters = list(layer.parameters(recurse=False))
        if type(layer) not in validator.FIXERS or (parameters and not any(parameter.requires_grad for parameter in parameters)):
            continue
        if id(layer) not in replaced:
            replaced[id(layer)] = validator.FIXERS[type(layer)](layer, **_options(layer)).train(layer.training)
        new = replaced[id(layer)]
        if not name:
            return new
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, new)
    _refuse_layers(module, validator)
    return module


def _options(layer: nn.Module) -> dict[str, int]:
    """opacus makes groups of one channel for up to 32 channels; where a channel is one number, such a group is a constant."""
    return {"num_groups": 1} if isinstance(layer, nn.BatchNorm1d) else {}


def _refuse_layers(module: nn.Module, validator: Any) -> None:
    was_training = module.training
    errors = validator.validate(module.train(), strict=False)
    module.train(was_training)
    if errors:
        raise _refused(f"the model has a layer that differential privacy does not go with: {' '.join(str(errors[0]).split()):.400}")
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise _refused(
                f"layer {name!r} ({type(layer).__name__}) mixes the samples of a batch, and cannot be replaced because it is frozen or of "
                "a class of its own: use a torch.nn.GroupNorm in its place"
            )


def _refuse_half(half: TorchHalf) -> None:
    if half.without_privacy:
        raise _refused(
            f"dp_args do not go with {', '.join(half.without_privacy)}, the node's half of this experiment's aggregator, which reads data "
            "in a way that is not clipped: choose FedAverage, fedprox_mu or Scaffold, or leave dp_args out"
        )


def _refuse_changed(buffers: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    for name, buffer in module.named_buffers():
        if name in buffers and not torch.equal(buffers[name], buffer):
            raise _refused(
                f"training changed the buffer {name!r}, which would leave this node without noise: leave that layer out, or set "
                "share_persistent_buffers to False"
            )


def _require_agreement(module: nn.Module) -> None:
    """What the loss says through no layer (a penalty on a weight, for instance) is in the gradient, but in no sample's."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    whole = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.items()}
    mean = {name: p.grad_sample.mean(dim=0) for name, p in trained.items()}  # type: ignore[attr-defined]
    slack = _SLACK * torch.stack([gradient.norm() for gradient in whole.values()]).norm() + 1e-6
    for name, gradient in whole.items():
        if (gradient - mean[name]).norm() <= _AGREEMENT * gradient.norm() + slack:
            continue
        raise _refused(
            f"the loss uses parameter {name!r} beside its layer, which does not come apart by samples: leave penalties on parameters to "
            "the optimizer (weight_decay), and call a layer itself, not its forward()"
        )


def _refused(reason: str) -> FedbiomedDPControllerError:
    return FedbiomedDPControllerError(f"{ErrorNumbers.FB616.value}: {reason}")
