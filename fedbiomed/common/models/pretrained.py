"""Begin with the parameters of another model."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError
from fedbiomed.common.models.torch_model import as_tensor, fitted

logger = logging.getLogger(__name__)


def warm_up(model: nn.Module, pretrained: nn.Module | Mapping[str, Any], mapping: Mapping[str, str] | None = None) -> int:
    """Copy entries of equal size from another model; all others stay as they are, and the log says which.

    Without a mapping an entry takes the one of the same name. With one, the shortest prefix of an entry's name that is mapped (a prefix
    ends at a dot or with the name) is replaced by what it is mapped to; an entry none of whose prefixes is mapped stays.

    Args:
        model: whose parameters and buffers are set.
        pretrained: another model, or its parameters by name (arrays or tensors), as `Experiment.aggregated_params` holds them.
        mapping: by name or prefix in `model`, name or prefix in `pretrained`.

    Returns:
        How many entries were copied.

    Raises:
        FedbiomedModelError: an argument is of another kind, or a mapped name is in neither of the models; nothing was copied.
    """
    if not isinstance(model, nn.Module):
        raise FedbiomedModelError(f"warm_up() sets a torch.nn.Module, not a {type(model).__name__}")
    source = pretrained.state_dict() if isinstance(pretrained, nn.Module) else pretrained
    if not isinstance(source, Mapping):
        raise FedbiomedModelError(f"pretrained must be a torch.nn.Module or parameters by name, not a {type(pretrained).__name__}")
    own = model.state_dict()
    if mapping is not None:
        _check(mapping, own, source)
    chosen: dict[str, torch.Tensor] = {}
    for name, value in own.items():
        wanted = name if mapping is None else _mapped(name, mapping)
        if wanted is None or wanted not in source:
            logger.info("warm-up: %s stays, nothing is meant for it", name)
            continue
        given = as_tensor(wanted, source[wanted])
        if given.shape != value.shape:
            logger.warning("warm-up: %s stays: its shape is %s, that of %s is %s", name, tuple(value.shape), wanted, tuple(given.shape))
            continue
        chosen[name] = fitted(given, value)
    with torch.no_grad():
        for name, given in chosen.items():
            own[name].copy_(given)
    logger.info("warm-up: %d of %d entries were copied", len(chosen), len(own))
    return len(chosen)


def _mapped(name: str, mapping: Mapping[str, str]) -> str | None:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count])
        if prefix in mapping:
            return ".".join([mapping[prefix], *parts[count:]])
    return None


def _check(mapping: Mapping[str, str], own: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    if not isinstance(mapping, Mapping) or not all(isinstance(word, str) for pair in mapping.items() for word in pair):
        raise FedbiomedModelError(f"mapping must be names or prefixes by name or prefix, not {mapping!r:.120}")
    for wanted, names, whose in ((mapping.keys(), own, "the model"), (mapping.values(), source, "the pretrained one")):
        for word in wanted:
            if not any(name == word or name.startswith(f"{word}.") for name in names):
                raise FedbiomedModelError(f"mapping names {word!r}, which is no entry or prefix of {whose}: {', '.join(names)}"[:600])
