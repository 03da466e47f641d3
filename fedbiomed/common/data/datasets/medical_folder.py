"""Medical images, one folder per subject and modality, with or without a table of demographics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.demographics import table_of
from fedbiomed.common.data.loading_blocks import MedicalFolderLoadingBlockTypes
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.data.medical_folder_base import MedicalFolderBase
from fedbiomed.common.data.nifti import read_nifti


class MedicalFolder(DatasetType):
    """`<path>/<subject>/<modality>/<image>.nii[.gz]`; parameters `tabular_file` and `index_col` name the table, both or none."""

    block_key = MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS
    parameters: ClassVar[frozenset[str] | None] = frozenset({"tabular_file", "index_col"})
    path_parameters: ClassVar[frozenset[str]] = frozenset({"tabular_file"})

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `{modality: [x, y, z], "demographics": [rows, columns] or None, "num_modalities": n}`; see `DatasetType.describe`.

        The modalities are those that some subject has (or that the plan maps). One subject must have all of them; the images of the first
        such subject are read.
        """
        base = MedicalFolderBase(path)
        if plan is not None:
            base.set_dlp(plan)
        table, index_col = table_of(parameters)
        demographics = None if table is None else base.read_demographics(table, index_col)
        modalities, _ = base.modalities()
        subject = base.require_complete(modalities, None if demographics is None else demographics.index)[0]
        images = {modality: base.image_of(subject, modality) for modality in modalities}
        shape: dict[str, Any] = {modality: list(read_nifti(image).shape) for modality, image in images.items() if image is not None}
        shape["demographics"] = None if demographics is None else list(demographics.shape)
        shape["num_modalities"] = len(modalities)
        return Description(shape=shape)
