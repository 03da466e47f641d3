"""What an operator wants to know of a medical folder before it is registered."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbiomed.common.data.medical_folder_base import MedicalFolderBase

if TYPE_CHECKING:
    import pandas as pd

    from fedbiomed.common.data.medical_folder_dataset import MedicalFolderDataset


class MedicalFolderController(MedicalFolderBase):
    """Looks a folder of subjects over.

    Args:
        root: the folder; may be set later.
    """

    def subject_modality_status(self, index: "Sequence[str] | pd.Series[str] | None" = None) -> dict[str, list[Any]]:
        """Which subject has which modality.

        Args:
            index: names of subjects in a table, to compare with.

        Returns:
            `columns`: the modalities, and with an index `in_folder` and `in_index`; `index`: the subjects; `data`: one list of True or
            False per subject. Subjects of the index without a folder come last.
        """
        names, _ = self.modalities()
        subjects = self.subjects_with_imaging_data_folders()
        data = [self.is_modalities_existing(subject, names) for subject in subjects]
        if index is None:
            return {"columns": names, "data": data, "index": subjects}
        listed = {str(subject) for subject in index}
        _, without_folder, _ = self.available_subjects(index, subjects)
        return {
            "columns": [*names, "in_folder", "in_index"],
            "data": [[*row, True, subject in listed] for subject, row in zip(subjects, data, strict=True)]
            + [[*[False] * len(names), False, True] for _ in without_folder],
            "index": [*subjects, *without_folder],
        }

    def load_MedicalFolder(  # noqa: N802  the name that users know
        self, tabular_file: str | Path | None = None, index_col: int | str | None = None
    ) -> "MedicalFolderDataset":
        """The folder as a dataset whose items hold all modalities, both as data and as targets.

        Raises:
            FedbiomedDatasetError: no subject has them all, or the table cannot be used.
        """
        from fedbiomed.common.data.medical_folder_dataset import MedicalFolderDataset  # late: it loads torch

        names, _ = self.modalities()
        dataset = MedicalFolderDataset(
            self.root, data_modalities=names, target_modalities=names, tabular_file=tabular_file, index_col=index_col
        )
        if self._dlp is not None:
            dataset.set_dlp(self._dlp)
        dataset.shape()
        return dataset
