"""How a plan hands its data over.

The names load torch, pandas or scikit-learn when they are asked for, not before: a node's daemon reads dataset types from this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbiomed.common.data.data_manager import DataManager
    from fedbiomed.common.data.flamby import discover_flamby_datasets
    from fedbiomed.common.data.flamby_dataset import FlambyDataset
    from fedbiomed.common.data.image_folder_dataset import ImageFolderDataset
    from fedbiomed.common.data.loading_blocks import (
        DataLoadingBlock,
        FlambyDatasetMetadataBlock,
        FlambyLoadingBlockTypes,
        MapperBlock,
        MedicalFolderLoadingBlockTypes,
        SerializationValidation,
    )
    from fedbiomed.common.data.loading_plan import DataLoadingPlan, DataLoadingPlanMixin
    from fedbiomed.common.data.medical_folder_base import MedicalFolderBase
    from fedbiomed.common.data.medical_folder_controller import MedicalFolderController
    from fedbiomed.common.data.medical_folder_dataset import MedicalFolderDataset
    from fedbiomed.common.data.mnist_dataset import MnistDataset
    from fedbiomed.common.data.nifti_folder_dataset import NIFTIFolderDataset
    from fedbiomed.common.data.np_data_loader import NPDataLoader
    from fedbiomed.common.data.partition import DirichletLabelPartitioner, LabelSkewPartitioner
    from fedbiomed.common.data.sklearn_data_manager import SkLearnDataManager
    from fedbiomed.common.data.synthetic import fedprox_synthetic
    from fedbiomed.common.data.tabular_alignment import TabularSchema, table_statistics
    from fedbiomed.common.data.tabular_dataset import TabularDataset
    from fedbiomed.common.data.torch_data_manager import TorchDataManager

__all__ = [
    "DataLoadingBlock",
    "DataLoadingPlan",
    "DataLoadingPlanMixin",
    "DataManager",
    "DirichletLabelPartitioner",
    "FlambyDataset",
    "FlambyDatasetMetadataBlock",
    "FlambyLoadingBlockTypes",
    "ImageFolderDataset",
    "LabelSkewPartitioner",
    "MapperBlock",
    "MedicalFolderBase",
    "MedicalFolderController",
    "MedicalFolderDataset",
    "MedicalFolderLoadingBlockTypes",
    "MnistDataset",
    "NIFTIFolderDataset",
    "NPDataLoader",
    "SerializationValidation",
    "SkLearnDataManager",
    "TabularDataset",
    "TabularSchema",
    "TorchDataManager",
    "discover_flamby_datasets",
    "fedprox_synthetic",
    "table_statistics",
]

_FILES = {
    "DataLoadingBlock": "loading_blocks",
    "DataLoadingPlan": "loading_plan",
    "DataLoadingPlanMixin": "loading_plan",
    "DataManager": "data_manager",
    "DirichletLabelPartitioner": "partition",
    "FlambyDataset": "flamby_dataset",
    "FlambyDatasetMetadataBlock": "loading_blocks",
    "FlambyLoadingBlockTypes": "loading_blocks",
    "ImageFolderDataset": "image_folder_dataset",
    "LabelSkewPartitioner": "partition",
    "MapperBlock": "loading_blocks",
    "MedicalFolderBase": "medical_folder_base",
    "MedicalFolderController": "medical_folder_controller",
    "MedicalFolderDataset": "medical_folder_dataset",
    "MedicalFolderLoadingBlockTypes": "loading_blocks",
    "MnistDataset": "mnist_dataset",
    "NIFTIFolderDataset": "nifti_folder_dataset",
    "NPDataLoader": "np_data_loader",
    "SerializationValidation": "loading_blocks",
    "SkLearnDataManager": "sklearn_data_manager",
    "TabularDataset": "tabular_dataset",
    "TabularSchema": "tabular_alignment",
    "TorchDataManager": "torch_data_manager",
    "discover_flamby_datasets": "flamby",
    "fedprox_synthetic": "synthetic",
    "table_statistics": "tabular_alignment",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
