"""Pictures in one folder per class, as a torch dataset that needs no torchvision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.class_folders import class_folders
from fedbiomed.common.data.images import ENDINGS, MODES, read_image
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError


class ImageFolderDataset(Dataset[tuple[Any, Any]]):
    """Pairs of a picture, float32 `(channels, rows, columns)` from 0 to 1, and the number of its class.

    Args:
        root: the folder `<root>/<class>/<picture>`.
        transform: takes the picture's tensor.
        target_transform: takes the class's number.
        mode: `RGB` (three channels, the default) or `L` (one of grey); every picture is brought to it.

    Attributes:
        classes: names of the classes; a class's number is its position here.
        class_to_idx: the number of each class.
        samples: pairs of file and class.
        targets: the class of each sample.

    Raises:
        FedbiomedDatasetError: it is no such folder.
        FedbiomedDatasetValueError: an argument is wrong.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        mode: str = "RGB",
    ) -> None:
        if mode not in MODES:
            raise FedbiomedDatasetValueError(f"{ErrorNumbers.FB613.value}: mode must be {' or '.join(MODES)}, not {mode!r:.80}")
        found = class_folders(Path(root).expanduser().resolve(), ENDINGS)
        self.classes = list(found.labels)
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.targets = list(found.targets)
        self.samples = list(zip(found.files, found.targets, strict=True))
        self._transform, self._target_transform, self._mode = transform, target_transform, mode

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        path, target = self.samples[item]
        try:
            picture: Any = torch.from_numpy(read_image(path, self._mode).copy()).to(torch.float32) / 255
        except FedbiomedDatasetError as error:
            raise FedbiomedDatasetError(
                f"{ErrorNumbers.FB613.value}: the picture of sample {item} cannot be read; the log on its machine names the file"
            ) from error
        return (
            picture if self._transform is None else self._transform(picture),
            target if self._target_transform is None else self._target_transform(target),
        )
