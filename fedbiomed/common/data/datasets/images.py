"""A folder of pictures, one folder per class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.data.class_folders import ClassFolders, class_folders
from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.images import ENDINGS, read_image
from fedbiomed.common.data.loading_plan import DataLoadingPlan


class ImagesDataset(DatasetType):
    """`<path>/<class>/<picture>`."""

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `[pictures, 3, rows, columns]`; see `DatasetType.describe`."""
        return Description(shape=pictures_shape(class_folders(path, ENDINGS)))


def pictures_shape(found: ClassFolders) -> tuple[int, ...]:
    """Number of pictures and the shape of the first one in colours; the first one of each class is read.

    Raises:
        FedbiomedDatasetError: one of them cannot be read.
    """
    firsts = [found.targets.index(label) for label in range(len(found.labels))]
    shapes = [read_image(found.files[first]).shape for first in firsts]
    return (len(found.files), *shapes[0])
