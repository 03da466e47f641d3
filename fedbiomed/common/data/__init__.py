"""How a plan hands its data over.

The names load torch or scikit-learn when they are asked for, not before: a node's daemon reads dataset types from this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbiomed.common.data.data_manager import DataManager
    from fedbiomed.common.data.np_data_loader import NPDataLoader
    from fedbiomed.common.data.sklearn_data_manager import SkLearnDataManager
    from fedbiomed.common.data.tabular_dataset import TabularDataset
    from fedbiomed.common.data.torch_data_manager import TorchDataManager

__all__ = ["DataManager", "NPDataLoader", "SkLearnDataManager", "TabularDataset", "TorchDataManager"]

_FILES = {
    "DataManager": "data_manager",
    "NPDataLoader": "np_data_loader",
    "SkLearnDataManager": "sklearn_data_manager",
    "TabularDataset": "tabular_dataset",
    "TorchDataManager": "torch_data_manager",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
