"""NIfTI images in one folder per class, as a torch dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.class_folders import class_folders
from fedbiomed.common.data.loading_plan import DataLoadingPlanMixin
from fedbiomed.common.data.nifti import ENDINGS, read_nifti
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError


class NIFTIFolderDataset(Dataset[tuple[Any, Any]], DataLoadingPlanMixin):
    """Pairs of an image, float32 of the file's shape, and the number of its class.

    Args:
        root: the folder `<root>/<class>/<image>.nii[.gz]`.
        transform, target_transform: callables for the image and for the class.

    Raises:
        FedbiomedDatasetError: it is no such folder.
        FedbiomedDatasetValueError: a transform is not callable.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        DataLoadingPlanMixin.__init__(self)
        if not isinstance(root, str | Path):
            raise FedbiomedDatasetValueError(f"{ErrorNumbers.FB613.value}: root is a path, not a {type(root).__name__}")
        for name, value in (("transform", transform), ("target_transform", target_transform)):
            if value is not None and not callable(value):
                raise FedbiomedDatasetValueError(f"{ErrorNumbers.FB613.value}: {name} must be a callable, not {value!r:.80}")
        self._found = class_folders(Path(root).expanduser().resolve(), ENDINGS)
        self._transform, self._target_transform = transform, target_transform

    def labels(self) -> list[str]:
        """Names of the classes; a class's number is its position here."""
        return list(self._found.labels)

    def files(self) -> list[Path]:
        """The images' files, in the order of the samples."""
        return list(self._found.files)

    def __len__(self) -> int:
        return len(self._found.files)

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        path = self._found.files[item]
        try:
            image: Any = torch.from_numpy(np.array(read_nifti(path), dtype=np.float32))
        except FedbiomedDatasetError as error:
            raise FedbiomedDatasetError(
                f"{ErrorNumbers.FB613.value}: the image of sample {item} cannot be read; the log on its machine names the file"
            ) from error
        target: Any = self._found.targets[item]
        return (
            image if self._transform is None else self._transform(image),
            target if self._target_transform is None else self._target_transform(target),
        )
