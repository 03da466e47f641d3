"""Parameters out of a model and back into it, whatever its library; torch is not imported here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedCheckpointError
from fedbiomed.common.models.model import Model
from fedbiomed.common.params import Params

_SHOWN = 5


def weights_of(model: Any) -> Params:
    """All parameters of a model by name: as they are, not copied, where the library allows.

    Args:
        model: a `Model`, a torch module, or the parameters themselves by name.

    Raises:
        FedbiomedCheckpointError: something else.
    """
    if isinstance(model, Model):
        return model.get_weights()
    if isinstance(model, Mapping):
        return {str(name): _array(str(name), value) for name, value in model.items()}
    if _is_module(model):
        return {name: value.detach() for name, value in model.state_dict().items() if hasattr(value, "detach")}
    raise FedbiomedCheckpointError(f"a Model, a torch module or parameters by name can be kept, not a {type(model).__name__}")


def put_weights(params: Mapping[str, Any], model: Any, source: str) -> None:
    """Write parameters into a model whose names and shapes are theirs; a model that is refused stays as it was.

    Args:
        params: by name.
        model: a `Model` or a torch module.
        source: where the parameters come from, for the error.

    Raises:
        FedbiomedCheckpointError: names or shapes differ, or it is no model.
    """
    if isinstance(model, Mapping):
        raise FedbiomedCheckpointError("parameters are loaded into a Model or a torch module, not into a dict")
    require_same(shapes_of(weights_of(model)), shapes_of(params), source)
    if isinstance(model, Model):
        model.set_weights(params)
    else:
        from fedbiomed.common.models.torch_model import TorchModel  # heavy; whoever has a torch module has loaded torch

        TorchModel(model).set_weights(params)


def shapes_of(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter."""
    return {name: tuple(np.shape(value)) if not hasattr(value, "shape") else tuple(value.shape) for name, value in params.items()}


def require_same(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Compare names and shapes.

    Raises:
        FedbiomedCheckpointError: they differ: where.
    """
    missing, extra = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or extra:
        raise FedbiomedCheckpointError(
            f"{source} does not belong to this model: it lacks the parameters {missing[:_SHOWN]} and has {extra[:_SHOWN]} in excess"
        )
    for name, shape in own.items():
        if found[name] != shape:
            raise FedbiomedCheckpointError(
                f"{source} does not belong to this model: parameter {name!r} has the shape {found[name]} there, {shape} in the model"
            )


def _is_module(model: Any) -> bool:
    return all(callable(getattr(model, name, None)) for name in ("state_dict", "load_state_dict", "named_parameters"))


def _array(name: str, value: Any) -> Any:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return value
    raise FedbiomedCheckpointError(f"parameter {name!r} is a {type(value).__name__}, not an array")
