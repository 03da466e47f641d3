"""A folder of subjects: `<root>/<subject>/<modality>/<image>.nii[.gz]`, and perhaps a table of demographics beside it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedbiomed.common.constants import DatasetTypes
from fedbiomed.common.data.class_folders import files_in
from fedbiomed.common.data.demographics import column_names, read_demographics
from fedbiomed.common.data.loading_blocks import MapperBlock, MedicalFolderLoadingBlockTypes
from fedbiomed.common.data.loading_plan import DataLoadingPlan, DataLoadingPlanMixin, check_folder_map
from fedbiomed.common.data.nifti import ENDINGS
from fedbiomed.common.exceptions import FedbiomedDatasetError

if TYPE_CHECKING:
    import pandas as pd

_KEY = MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS


class MedicalFolderBase(DataLoadingPlanMixin):
    """Finds subjects, modalities and images; the first image of a modality's folder, by name, is the one that counts.

    A loading plan may map a modality to a list of folder names: then the first of them that a subject has, with an image in it, counts.

    Args:
        root: the folder; may be set later.

    Raises:
        FedbiomedDatasetError: it is no folder that holds folders.
    """

    default_modality_names = ["T1", "T2", "label"]
    target_dataset_type = DatasetTypes.MEDICAL_FOLDER

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__()
        self._root = None if root is None else self.validate_MedicalFolder_root_folder(root)

    @property
    def root(self) -> Path:
        """The folder.

        Raises:
            FedbiomedDatasetError: none was set.
        """
        if self._root is None:
            raise FedbiomedDatasetError("no folder of subjects was set; give `root`")
        return self._root

    @root.setter
    def root(self, path: str | Path) -> None:
        self._root = self.validate_MedicalFolder_root_folder(path)

    def set_dlp(self, dlp: DataLoadingPlan) -> None:
        """Attach a loading plan.

        Raises:
            FedbiomedDataLoadingPlanValueError: it is no plan, or maps a modality to something else than a list of folder names.
        """
        if isinstance(dlp, DataLoadingPlan):
            check_folder_map(dlp)
        super().set_dlp(dlp)

    @staticmethod
    def validate_MedicalFolder_root_folder(path: str | Path) -> Path:  # noqa: N802  the name that users know
        """Check that a path is a folder which holds folders, and make it absolute.

        Raises:
            FedbiomedDatasetError: what was found instead.
        """
        if not isinstance(path, str | Path):
            raise FedbiomedDatasetError(f"the folder of subjects is a path, not a {type(path).__name__}")
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise FedbiomedDatasetError(
                f"{root} is {'a file' if root.exists() else 'not there'}; a medical folder holds one folder per subject"
            )
        if not _folders_in(root):
            raise FedbiomedDatasetError(f"{root} holds no folder; a medical folder is <root>/<subject>/<modality>/<image>.nii.gz")
        return root

    def modalities(self) -> tuple[list[str], list[str]]:
        """The modalities: those that the loading plan maps, else the names of the folders in which images lie.

        Returns:
            The modalities, sorted; and those of all subjects one after the other, each as often as subjects have it.
        """
        found, everything = self.modalities_candidates_from_subfolders()
        block = None if self._dlp is None else self._dlp.get(_KEY)
        if not isinstance(block, MapperBlock):
            return found, everything
        names = sorted(block.map)
        subjects = _folders_in(self.root)
        return names, [name for subject in subjects for name in names if self.image_of(subject.name, name) is not None]

    def modalities_candidates_from_subfolders(self) -> tuple[list[str], list[str]]:
        """As `modalities`, from the folders' names alone."""
        everything = [folder.name for subject in _folders_in(self.root) for folder in _folders_in(subject) if _first_image(folder)]
        return sorted(set(everything)), everything

    def subjects_with_imaging_data_folders(self) -> list[str]:
        """Subjects that have an image of some modality, sorted."""
        return [subject.name for subject in _folders_in(self.root) if any(_first_image(folder) for folder in _folders_in(subject))]

    def is_modalities_existing(self, subject: str, modalities: Sequence[str]) -> list[bool]:
        """Whether a subject has an image of each modality.

        Raises:
            FedbiomedDatasetError: there is no such subject.
        """
        if subject not in [folder.name for folder in _folders_in(self.root)]:
            raise FedbiomedDatasetError(f"the folder holds no subject {subject!r:.80}")
        return [self.image_of(subject, modality) is not None for modality in modalities]

    def complete_subjects(self, subjects: Iterable[str], modalities: Sequence[str]) -> list[str]:
        """Those of these subjects that have an image of every modality."""
        return [subject for subject in subjects if all(self.image_of(subject, modality) for modality in modalities)]

    def available_subjects(
        self, subjects_from_index: "Sequence[str] | pd.Series[str]", subjects_from_folder: Sequence[str] | None = None
    ) -> tuple[list[str], list[str], list[str]]:
        """Compare the subjects of a table with those of the folder.

        Args:
            subjects_from_index: names in the table.
            subjects_from_folder: names in the folder; None: all with images.

        Returns:
            Subjects that are in both; those of the table without a folder; those of the folder that the table does not list. Each sorted.
        """
        listed = {str(subject) for subject in subjects_from_index}
        present = set(self.subjects_with_imaging_data_folders() if subjects_from_folder is None else subjects_from_folder)
        return sorted(listed & present), sorted(listed - present), sorted(present - listed)

    def image_of(self, subject: str, modality: str) -> Path | None:
        """The file of a subject's modality, if it is there.

        Raises:
            FedbiomedLoadingBlockError: the loading plan does not map the modality.
        """
        names = self.apply_dlb([modality], _KEY, modality)
        images = (_first_image(self.root / subject / name) for name in names)
        return next((image for image in images if image is not None), None)

    @staticmethod
    def read_demographics(path: str | Path, index_col: int | str) -> "pd.DataFrame":
        """The table of subjects; see `fedbiomed.common.data.demographics.read_demographics`."""
        return read_demographics(path, index_col)

    @staticmethod
    def demographics_column_names(path: str | Path) -> list[str]:
        """The names in the header of the table of subjects; see `fedbiomed.common.data.demographics.column_names`."""
        return column_names(path)

    def require_complete(self, modalities: Sequence[str], listed: Iterable[str] | None) -> list[str]:
        """Subjects that have all modalities, and are listed, if a list is given.

        Raises:
            FedbiomedDatasetError: there is none: how many there are of what.
        """
        subjects = self.subjects_with_imaging_data_folders()
        complete = self.complete_subjects(subjects, modalities)
        wanted = None if listed is None else set(listed)
        found = complete if wanted is None else [subject for subject in complete if subject in wanted]
        if found:
            return found
        counts = {modality: sum(self.image_of(subject, modality) is not None for subject in subjects) for modality in modalities}
        having = ", ".join(f"{modality}: {count}" for modality, count in counts.items()) or "no modality found"
        table = (
            ""
            if wanted is None
            else f"; {len(wanted & set(complete))} of {len(complete)} complete ones stand in the table of {len(wanted)}"
        )
        raise FedbiomedDatasetError(
            f"no subject can be used: of {len(subjects)} subjects with images, those that have an image of a modality are {having}{table}; "
            "complete the folders, or map modalities to folders with a loading plan"
        )


def _folders_in(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise FedbiomedDatasetError(f"cannot read the folder {folder}: {error.strerror}") from error


def _first_image(folder: Path) -> Path | None:
    try:
        return next(iter(files_in(folder, ENDINGS)), None) if folder.is_dir() else None
    except OSError as error:
        raise FedbiomedDatasetError(f"cannot read the folder {folder}: {error.strerror}") from error
