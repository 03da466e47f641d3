"""A folder of files: the MNIST digits in their original format, or anything that the training plan knows how to read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.idx import find_images, read_mnist
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedDatasetError


class DefaultDataset(DatasetType):
    """A folder, read by the training plan itself."""

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `[images, 1, rows, columns]` for MNIST's IDX files, else `[files]`; see `DatasetType.describe`.

        The IDX files may be plain or gzip, at the top of the folder or where torchvision puts them.
        """
        if not path.is_dir():
            raise FedbiomedDatasetError(f"{path} is {'a file' if path.exists() else 'not there'}; a dataset of this type is a folder")
        if find_images(path) is not None:
            count, rows, columns = read_mnist(path)[0].shape
            return Description(shape=(count, 1, rows, columns))
        try:
            files = sum(len(names) for _, _, names in os.walk(path, onerror=_raise))
        except OSError as error:
            raise FedbiomedDatasetError(f"cannot read {path}: {error}") from error
        if not files:
            raise FedbiomedDatasetError(f"{path} holds no file; put the data there first")
        return Description(shape=(files,))


def _raise(error: OSError) -> None:
    raise error
