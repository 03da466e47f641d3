"""What several outputs for the same inputs say together: their mean, their spread, and entropies where they are probabilities."""

from collections.abc import Sequence

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedUncertaintyError

Prediction = tuple[torch.Tensor, dict[str, torch.Tensor]]
_SUM_TOLERANCE = 1e-3


def predictive(outputs: torch.Tensor | Sequence[torch.Tensor], *, softmax: bool = False) -> Prediction:
    """Put N outputs together.

    Args:
        outputs: N of one shape, 2 or more: `(batch, ...)` each, with the classes in dimension 1; `(classes,)` for a single sample.
        softmax: whether they are logits, of which the probabilities are taken.

    Returns:
        The mean, and by name, all over the N outputs: `variance` (unbiased) and `std`, of the outputs' shape. If all outputs are
        probabilities (two classes or more, from 0 to 1, of sum 1) also, with natural logarithms and without the dimension of the classes:
        `predictive_entropy` (of the mean), `expected_entropy` (mean of the entropies), and `mutual_info`, their difference.

    Raises:
        FedbiomedUncertaintyError: fewer than 2 outputs, which have no spread; not tensors of numbers of one shape; a value is not finite.

    Examples:
        >>> mean, spread = predictive([torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])])
        >>> round(float(spread["variance"][0, 0]), 4), round(float(spread["mutual_info"]), 4)
        (0.08, 0.1017)

    Source: Depeweg et al. 2018, Decomposition of Uncertainty (arXiv:1710.07283), section 3.
    """
    stacked = _stacked(outputs)
    values = stacked.double()
    classes = 1 if stacked.dim() == 2 else 2
    if softmax:
        if stacked.dim() < 2 or stacked.shape[classes] < 2:
            raise FedbiomedUncertaintyError(f"softmax needs logits of two classes or more, not outputs of shape {tuple(stacked.shape[1:])}")
        values = values.softmax(dim=classes)
    mean, variance = values.mean(dim=0), values.var(dim=0, unbiased=True)
    spread = {"variance": variance, "std": variance.sqrt()}
    if softmax or _are_probabilities(values, classes):
        spread |= _entropies(values, classes)
    kind = stacked.dtype if stacked.is_floating_point() else torch.float32
    return mean.to(kind), {name: value.to(kind) for name, value in spread.items()}


def output_of(model: nn.Module, inputs: object) -> torch.Tensor:
    """What a model gives, without gradients.

    Raises:
        FedbiomedUncertaintyError: it is not a tensor.
    """
    with torch.no_grad():
        output = model(inputs)
    if not isinstance(output, torch.Tensor):
        raise FedbiomedUncertaintyError(
            f"the model gives a {type(output).__name__}, a tensor is needed: wrap the model in one that gives it"
        )
    return output


def required_count(name: str, given: object, least: int = 2) -> int:
    """A number of outputs.

    Raises:
        FedbiomedUncertaintyError: it is not an integer of so much; of one output there is no spread.
    """
    if type(given) is not int or given < least:
        raise FedbiomedUncertaintyError(f"{name} must be an integer of {least} or more, not {given!r:.80}: a spread takes 2 outputs")
    return given


def _stacked(outputs: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    try:
        stacked = outputs if isinstance(outputs, torch.Tensor) else torch.stack([torch.as_tensor(output) for output in outputs])
    except (RuntimeError, TypeError, ValueError) as error:
        raise FedbiomedUncertaintyError(f"outputs must be tensors of one shape: {error}") from error
    if stacked.dim() == 0 or stacked.shape[0] < 2:
        count = 1 if stacked.dim() == 0 else stacked.shape[0]
        raise FedbiomedUncertaintyError(f"a spread takes 2 outputs or more for the same inputs, not {count}")
    if stacked.is_complex() or not torch.isfinite(stacked).all():
        raise FedbiomedUncertaintyError("an output holds NaN, infinite or complex values")
    return stacked


def _are_probabilities(values: torch.Tensor, classes: int) -> bool:
    if values.dim() <= classes or values.shape[classes] < 2 or not values.numel():
        return False
    is_between = bool(((values >= 0) & (values <= 1)).all())
    return is_between and bool(((values.sum(dim=classes) - 1).abs() <= _SUM_TOLERANCE).all())


def _entropies(values: torch.Tensor, classes: int) -> dict[str, torch.Tensor]:
    shares = values / values.sum(dim=classes, keepdim=True)
    predicted = torch.special.entr(shares.mean(dim=0)).sum(dim=classes - 1)
    expected = torch.special.entr(shares).sum(dim=classes).mean(dim=0)
    return {
        "predictive_entropy": predicted,
        "expected_entropy": expected,
        "mutual_info": (predicted - expected).clamp(min=0.0),  # below 0 by rounding only
    }
