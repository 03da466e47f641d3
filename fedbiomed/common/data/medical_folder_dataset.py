"""Medical images and demographics as a torch dataset."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.demographics import column_names, is_index_col, table_of
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.data.medical_folder_base import MedicalFolderBase
from fedbiomed.common.data.nifti import read_nifti
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError

if TYPE_CHECKING:
    import pandas as pd

Transform = Callable[[Any], Any]
Images = dict[str, torch.Tensor]
Item = tuple[tuple[Images, torch.Tensor], Images]
_PARAMETERS = ("tabular_file", "index_col")


class MedicalFolderDataset(Dataset[Item], MedicalFolderBase):
    """Images of subjects who have all modalities, and who stand in the table of demographics, if there is one.

    An item is `((images by data modality, demographics), images by target modality)`. Images are float32 tensors, of the file's shape
    unless a transform gives another one. Demographics are a tensor: what `demographics_transform` makes of the subject's row, else the
    row's numbers (and True/False) in the order of the columns, without the columns of text; empty where there is no table.

    Args:
        root: the folder `<root>/<subject>/<modality>/<image>.nii[.gz]`.
        data_modalities, target_modalities: a name or names of modalities.
        transform, target_transform: one callable (for a single modality), or one per modality by name.
        demographics_transform: takes a dict of the subject's row, gives a tensor.
        tabular_file: csv or tsv file; a node sets it from what its operator registered.
        index_col: name or position (from 0) of the column that holds the names of the subjects' folders.

    Raises:
        FedbiomedDatasetError: the folder or the table is not there or not of that form.
        FedbiomedDatasetValueError: an argument is wrong.
    """

    def __init__(  # noqa: PLR0917  the names and order that users know
        self,
        root: str | Path,
        data_modalities: str | Sequence[str] = "T1",
        transform: Transform | Mapping[str, Transform] | None = None,
        target_modalities: str | Sequence[str] = "label",
        target_transform: Transform | Mapping[str, Transform] | None = None,
        demographics_transform: Transform | None = None,
        tabular_file: str | Path | None = None,
        index_col: int | str | None = None,
    ) -> None:
        MedicalFolderBase.__init__(self, root)
        self._data_modalities = _modalities("data_modalities", data_modalities)
        self._target_modalities = _modalities("target_modalities", target_modalities)
        self._transform = _transforms("transform", transform, self._data_modalities)
        self._target_transform = _transforms("target_transform", target_transform, self._target_modalities)
        if demographics_transform is not None and not callable(demographics_transform):
            raise _wrong(f"demographics_transform must be a callable, not {demographics_transform!r:.80}")
        self._demographics_transform = demographics_transform
        self._tabular_file: Path | None = None
        self._index_col: int | str | None = None
        self._table: pd.DataFrame | None = None
        self._subjects: list[str] | None = None
        self.set_dataset_parameters({"tabular_file": tabular_file, "index_col": index_col})

    def __len__(self) -> int:
        return len(self._complete())

    def __getitem__(self, item: int) -> Item:
        (data, demographics), targets = self.get_nontransformed_item(item)
        return (
            (_transformed(data, self._transform, "transform"), self._as_tensor(demographics)),
            _transformed(targets, self._target_transform, "target_transform"),
        )

    def get_nontransformed_item(self, item: int) -> tuple[tuple[Images, dict[str, Any]], Images]:
        """As an item, but without transforms: demographics are a dict of the subject's row, empty where there is no table.

        Raises:
            FedbiomedDatasetError: an image cannot be read. The text names the position of the sample only, for it may go to a researcher.
        """
        folder = self.subject_folders()[item]
        try:
            data, targets = self.load_images(folder, self._data_modalities), self.load_images(folder, self._target_modalities)
        except FedbiomedDatasetError as error:
            raise FedbiomedDatasetError(
                f"{ErrorNumbers.FB613.value}: an image of sample {item} cannot be read; the log on its machine names the file"
            ) from error
        return (data, self._row(folder.name)), targets

    def load_images(self, subject_folder: Path, modalities: Sequence[str]) -> Images:
        """A subject's images by modality, as float32 tensors.

        Raises:
            FedbiomedDatasetError: one is not there or cannot be read.
        """
        images = {}
        for modality in modalities:
            path = self.image_of(subject_folder.name, modality)
            if path is None:
                raise FedbiomedDatasetError(f"{ErrorNumbers.FB613.value}: {subject_folder} has no image of {modality!r}")
            images[modality] = torch.from_numpy(np.array(read_nifti(path), dtype=np.float32))
        return images

    def subject_folders(self) -> list[Path]:
        """Folders of the subjects that the dataset has, in the order of the samples."""
        return [self.root / subject for subject in self._complete()]

    def shape(self) -> dict[str, Any]:
        """Shape of the first sample's images by modality, `demographics` (rows and columns of the table, or None), `num_modalities`."""
        (data, _), targets = self.get_nontransformed_item(0)
        found: dict[str, Any] = {modality: list(image.shape) for modality, image in {**data, **targets}.items()}
        count = len(found)
        found["demographics"] = None if self.demographics is None else list(self.demographics.shape)
        found["num_modalities"] = count
        return found

    def set_dlp(self, dlp: DataLoadingPlan) -> None:
        """Attach a loading plan; see `DataLoadingPlanMixin`."""
        super().set_dlp(dlp)
        self._subjects = None

    def clear_dlp(self) -> None:
        """Detach the loading plan."""
        super().clear_dlp()
        self._subjects = None

    def set_dataset_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Take what the node's operator registered beside the folder: `tabular_file` and `index_col`.

        Raises:
            FedbiomedDatasetValueError: another parameter, or only one of the two.
            FedbiomedDatasetError: the table is not there, or no csv or tsv file.
        """
        if not isinstance(parameters, Mapping) or not parameters.keys() <= set(_PARAMETERS):
            raise _wrong(f"a medical folder takes the parameters {' and '.join(_PARAMETERS)}, not {parameters!r:.120}")
        table, index_col = table_of({"tabular_file": self._tabular_file, "index_col": self._index_col, **parameters})
        if table is not None:
            column_names(table)
        self._tabular_file = None if table is None else Path(table)
        self._index_col = None if table is None else index_col
        self._table = self._subjects = None

    @property
    def tabular_file(self) -> Path | None:
        """The table of demographics."""
        return self._tabular_file

    @tabular_file.setter
    def tabular_file(self, path: str | Path) -> None:
        if not isinstance(path, str | Path):
            raise _wrong(f"tabular_file is a path, not a {type(path).__name__}")
        column_names(path)
        self._tabular_file, self._table, self._subjects = Path(path), None, None

    @property
    def index_col(self) -> int | str | None:
        """Name or position of the column that holds the names of the subjects' folders."""
        return self._index_col

    @index_col.setter
    def index_col(self, value: int | str) -> None:
        if not is_index_col(value):
            raise _wrong(f"index_col is a column's name or its position from 0, not {value!r:.80}")
        self._index_col, self._table, self._subjects = value, None, None

    @property
    def demographics(self) -> "pd.DataFrame | None":
        """The table of demographics by subject, without repeated subjects; None if there is none.

        Raises:
            FedbiomedDatasetError: it cannot be read.
            FedbiomedDatasetValueError: it has no column `index_col`, or none was named.
        """
        if self._table is None:
            path, index_col = table_of({"tabular_file": self._tabular_file, "index_col": self._index_col})
            self._table = None if path is None else self.read_demographics(path, index_col)
        return self._table

    def _complete(self) -> list[str]:
        if self._subjects is None:
            listed = None if self.demographics is None else self.demographics.index
            self._subjects = self.require_complete([*self._data_modalities, *self._target_modalities], listed)
        return self._subjects

    def _row(self, subject: str) -> dict[str, Any]:
        table = self.demographics
        if table is None:
            return {}
        values = {str(column): table.at[subject, column] for column in table.columns}
        return {column: value.item() if isinstance(value, np.generic) else value for column, value in values.items()}

    def _as_tensor(self, row: dict[str, Any]) -> torch.Tensor:
        if self._demographics_transform is None:
            return self._numbers(row)
        made = self._demographics_transform(row)
        if not isinstance(made, torch.Tensor):
            raise _wrong(f"demographics_transform must give a tensor, not a {type(made).__name__}; `torch.empty(0)` stands for nothing")
        return made

    def _numbers(self, row: dict[str, Any]) -> torch.Tensor:
        table = self.demographics
        columns = [] if table is None else [str(column) for column in table.select_dtypes(include=["number", "bool"]).columns]
        return torch.tensor([float(row[column]) for column in columns], dtype=torch.float32)


def _modalities(what: str, value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise _wrong(f"{what} must be a modality's name or a list of names, not {value!r:.80}")
    return list(dict.fromkeys(names))


def _transforms(what: str, value: Transform | Mapping[str, Transform] | None, modalities: Sequence[str]) -> dict[str, Transform]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        if not value.keys() <= set(modalities) or not all(map(callable, value.values())):
            raise _wrong(f"{what} must give callables for some of {', '.join(modalities)}; found {dict(value)!r:.120}")
        return dict(value)
    if not callable(value):
        raise _wrong(f"{what} must be a callable or a dict of callables by modality, not {value!r:.80}")
    if len(modalities) > 1:
        raise _wrong(f"{what} must be a dict of callables by modality, since there are several: {', '.join(modalities)}")
    return {modalities[0]: value}


def _transformed(images: Images, transforms: Mapping[str, Transform], what: str) -> Images:
    made = {name: transforms[name](image) if name in transforms else image for name, image in images.items()}
    for name, image in made.items():
        if not isinstance(image, torch.Tensor | np.ndarray):
            raise _wrong(f"{what} of {name!r} must give a tensor, not a {type(image).__name__}")
    return {name: torch.as_tensor(image) for name, image in made.items()}


def _wrong(reason: str) -> FedbiomedDatasetValueError:
    return FedbiomedDatasetValueError(f"{ErrorNumbers.FB613.value}: {reason}")
