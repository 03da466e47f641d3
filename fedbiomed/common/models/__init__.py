"""A plan's model, whatever its library: parameters out and in, and files for re-use on the same machine.

The names load torch or scikit-learn when they are asked for, not before.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbiomed.common.models.fenda import FendaModel
    from fedbiomed.common.models.model import Model
    from fedbiomed.common.models.pretrained import warm_up
    from fedbiomed.common.models.sklearn_model import SGDClassifierModel, SGDRegressorModel, SkLearnModel
    from fedbiomed.common.models.torch_model import TorchModel

__all__ = ["FendaModel", "Model", "SGDClassifierModel", "SGDRegressorModel", "SkLearnModel", "TorchModel", "warm_up"]

_FILES = {
    "FendaModel": "fenda",
    "Model": "model",
    "SGDClassifierModel": "sklearn_model",
    "SGDRegressorModel": "sklearn_model",
    "SkLearnModel": "sklearn_model",
    "TorchModel": "torch_model",
    "warm_up": "pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
