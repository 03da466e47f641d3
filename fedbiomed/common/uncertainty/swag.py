"""SWAG: a normal distribution over the weights of a network, of which networks are drawn.

Source: Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning (arXiv:1902.02476). With moments of several nodes,
each by its share p_k of the samples, the variance is sum p_k S_k + sum p_k (mean_k - mean)^2: that nodes disagree counts as uncertainty.
"""

import copy
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedUncertaintyError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.uncertainty.layers import batch_norms, renew_batch_norm
from fedbiomed.common.uncertainty.predictive import Prediction, output_of, predictive, required_count

LEAST_VARIANCE = 1e-30
Tensors = dict[str, torch.Tensor]
logger = logging.getLogger(__name__)


class SWAG:
    """A posterior over the trained weights, by name (Maddox et al. 2019, arXiv:1902.02476). Exchanged: nothing; it is made of the moments
    that a `SWAGTrainer` gathers. Stays on the nodes: data, and the low-rank part of each node's own posterior.

    Args:
        first: mean of the weights.
        second: mean of their squares.
        deviations: the last K deviations from the running mean, in rows of `(K, ...)`, of one node's training; None: the covariance is
            diagonal, as it always is of several nodes together, for the low-rank part cannot be aggregated.
        model: the network that they belong to, of which a copy is taken; its other values are used as they are.
        seed: of the draws of this object; None: drawn now.

    Raises:
        FedbiomedUncertaintyError: names, shapes or counts do not fit together, or a value is not finite.
    """

    def __init__(
        self,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        deviations: Mapping[str, Any] | None = None,
        *,
        model: nn.Module | None = None,
        seed: int | None = None,
    ) -> None:
        self._first = _tensors("first", first)
        self._second = _tensors("second", second, self._first)
        self._deviations = None if deviations is None else _deviations(deviations, self._first)
        self._model = None if model is None else copy.deepcopy(_fitting(model, self._first))
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    @property
    def rank(self) -> int:
        """How many deviations there are; 0: the covariance is diagonal."""
        return 0 if self._deviations is None else len(next(iter(self._deviations.values())))

    def first(self) -> Tensors:
        """Mean of the weights by name, float64."""
        return {name: value.clone() for name, value in self._first.items()}

    def second(self) -> Tensors:
        """Mean of the squares of the weights by name, float64."""
        return {name: value.clone() for name, value in self._second.items()}

    def variance(self) -> Tensors:
        """Of each weight, second - first^2, at least 1e-30: a rounding error may lie below 0."""
        return {name: (self._second[name] - value.square()).clamp(min=LEAST_VARIANCE) for name, value in self._first.items()}

    def std(self) -> Tensors:
        """Square root of the variance, by name."""
        return {name: value.sqrt() for name, value in self.variance().items()}

    def sample(
        self, scale: float = 1.0, seed: int | None = None, *, generator: torch.Generator | None = None, low_rank: bool | None = None
    ) -> Tensors:
        """Draw weights, anew at each call.

        Diagonal: mean + sqrt(scale) std z. With the low-rank part: mean + sqrt(scale) (std z1 / sqrt 2 + D z2 / sqrt(2 (K - 1))).

        Args:
            scale: by which the variance is multiplied; 0 gives the mean.
            seed: of this draw alone: one seed, one draw. None: the next draw of this object.
            generator: where the numbers come from in its place.
            low_rank: None: where there are deviations.

        Returns:
            Weights by name, float64.

        Raises:
            FedbiomedUncertaintyError: the scale is negative or not finite, or there are no deviations.
        """
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not (math.isfinite(scale) and scale >= 0):
            raise FedbiomedUncertaintyError(f"scale must be a number of 0 or more, not {scale!r:.80}")
        source = generator or (self._generator if seed is None else torch.Generator().manual_seed(seed))
        if low_rank and self._deviations is None:
            raise FedbiomedUncertaintyError(
                "this posterior has no deviations: they stay on the nodes, and cannot be aggregated; draw with low_rank=False"
            )
        width = math.sqrt(scale)
        noise = {name: value * _normal(value.shape, source) for name, value in self.std().items()}
        if low_rank is not False and self._deviations is not None:
            along = _normal((self.rank,), source) / math.sqrt(2 * (self.rank - 1))
            deviations = self._deviations
            noise = {name: value / math.sqrt(2) + torch.tensordot(along, deviations[name], dims=1) for name, value in noise.items()}
        return {name: value + width * noise[name] for name, value in self._first.items()}

    def draw(self, scale: float = 1.0, seed: int | None = None, *, batch_norm_loader: Iterable[Any] | None = None) -> nn.Module:
        """A copy of the network with weights drawn anew, in evaluation mode.

        Args:
            scale, seed: see `sample`.
            batch_norm_loader: see `predict`.

        Raises:
            FedbiomedUncertaintyError: see `sample` and `predict`.
        """
        network = copy.deepcopy(self._network())
        self._fill(network, self.sample(scale, seed))
        self._renew(network, batch_norm_loader, keep=False)
        return network.eval()

    def predict(
        self,
        inputs: Any,
        draws: int = 30,
        *,
        scale: float = 1.0,
        softmax: bool = False,
        seed: int | None = None,
        batch_norm_loader: Iterable[Any] | None = None,
        keep_batch_norm: bool = False,
    ) -> Prediction:
        """Mean of the outputs of networks drawn anew, and their spread; see `predictive`.

        Args:
            inputs: of the network, one batch.
            draws: how many networks, 2 or more.
            scale: see `sample`.
            softmax: whether the network gives logits.
            seed: of these draws; None: they go on from those before.
            batch_norm_loader: batches of training inputs (or pairs of inputs and targets), gone over once for each draw: the statistics of
                a batch normalisation belong to the weights. Needed where the network has such layers.
            keep_batch_norm: use the statistics of the model instead.

        Raises:
            FedbiomedUncertaintyError: there is no network, an argument is wrong, or batches for the batch normalisation are missing.
        """
        required_count("draws", draws)
        network, outputs = copy.deepcopy(self._network()), []
        source = self._generator if seed is None else torch.Generator().manual_seed(seed)
        for _ in range(draws):
            self._fill(network, self.sample(scale, generator=source))
            self._renew(network, batch_norm_loader, keep=keep_batch_norm)
            outputs.append(output_of(network.eval(), inputs))
        return predictive(outputs, softmax=softmax)

    def with_model(self, model: nn.Module) -> "SWAG":
        """The same posterior for a network.

        Raises:
            FedbiomedUncertaintyError: its trainable parameters have other names or shapes.
        """
        other = SWAG(self._first, self._second, self._deviations, model=model)
        other._generator.set_state(self._generator.get_state())
        return other

    def save(self, path: str | Path) -> None:
        """Write the moments, and deviations if there are any, with the Serializer; without the network.

        Raises:
            OSError: it cannot be written.
        """
        Serializer.dump({"first": self._first, "second": self._second, "deviations": self._deviations}, path)

    @classmethod
    def load(cls, path: str | Path, *, model: nn.Module | None = None, seed: int | None = None) -> Self:
        """Read what `save` wrote.

        Raises:
            FedbiomedUncertaintyError: it is not there, or not of that form.
        """
        try:
            content = Serializer.load(path)
        except (FedbiomedError, OSError) as error:
            raise FedbiomedUncertaintyError(f"cannot read a posterior in {path}: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("first", "second")):
            raise FedbiomedUncertaintyError(f"{path} holds no first and second moments")
        return cls(content["first"], content["second"], content.get("deviations"), model=model, seed=seed)

    def _network(self) -> nn.Module:
        if self._model is None:
            raise FedbiomedUncertaintyError("this posterior knows no network: give it one by with_model(model)")
        return self._model

    def _fill(self, network: nn.Module, weights: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    @staticmethod
    def _renew(network: nn.Module, loader: Iterable[Any] | None, *, keep: bool) -> None:
        if loader is not None:
            renew_batch_norm(network, loader)
        elif batch_norms(network) and not keep:
            raise FedbiomedUncertaintyError(
                "the network has a batch normalisation, whose statistics belong to the weights: give batch_norm_loader, batches of "
                "training inputs, or predict with keep_batch_norm=True"
            )


def _normal(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=source, dtype=torch.float64)


def _tensors(what: str, values: Mapping[str, Any], like: Mapping[str, torch.Tensor] | None = None) -> Tensors:
    try:
        tensors = {str(name): torch.as_tensor(value).detach().cpu().double() for name, value in values.items()}
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FedbiomedUncertaintyError(f"the {what} moments must be arrays by name: {error}") from error
    if not tensors or not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise FedbiomedUncertaintyError(f"the {what} moments are {'not all finite' if tensors else 'none'}")
    if like is not None:
        _same_shapes(what, {name: tuple(value.shape) for name, value in tensors.items()}, like)
    return tensors


def _deviations(values: Mapping[str, Any], first: Tensors) -> Tensors:
    tensors = _tensors("deviations of the", values)
    counts = {value.shape[0] if value.dim() else 0 for value in tensors.values()}
    if len(counts) != 1 or min(counts) < 2:
        raise FedbiomedUncertaintyError(f"deviations must be two rows or more, as many for each name, not {sorted(counts)}")
    _same_shapes("deviations", {name: tuple(value.shape[1:]) for name, value in tensors.items()}, first)
    return tensors


def _same_shapes(what: str, shapes: Mapping[str, tuple[int, ...]], like: Mapping[str, torch.Tensor]) -> None:
    wanted = {name: tuple(value.shape) for name, value in like.items()}
    wrong = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
    if wrong:
        found = "; ".join(f"{name}: {shapes.get(name, 'missing')} and {wanted.get(name, 'none')}" for name in wrong[:5])
        raise FedbiomedUncertaintyError(f"names or shapes of {what} do not fit: {found}")


def _fitting(model: nn.Module, first: Tensors) -> nn.Module:
    trained = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = sorted(trained.keys() - first.keys())
    if without:
        logger.warning("%d parameters have no moments and stay as they are: %s", len(without), ", ".join(without[:10]))
    _same_shapes("the network's trainable parameters", {name: shape for name, shape in trained.items() if name in first}, first)
    return model
