"""The MedNIST pictures, which the operator has put on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.data.class_folders import class_folders
from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.datasets.images import pictures_shape
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedDatasetError

_NAME = "MedNIST"
_ENDINGS = (".jpeg", ".jpg")


class MednistDataset(DatasetType):
    """`<path>/MedNIST/<class>/<picture>.jpeg`; the path may also be the folder `MedNIST` itself."""

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `[pictures, 3, rows, columns]`; the path becomes that of the folder `MedNIST`. See `DatasetType.describe`."""
        folder = path / _NAME if (path / _NAME).is_dir() else path
        try:
            found = class_folders(folder, _ENDINGS)
        except FedbiomedDatasetError as error:
            raise FedbiomedDatasetError(
                f"{error}: nothing is downloaded here; unpack MedNIST so that its class folders (AbdomenCT, BreastMRI, ...) of jpeg files "
                f"lie in {path / _NAME if path.name != _NAME else path}"
            ) from error
        return Description(shape=pictures_shape(found), path=folder)
