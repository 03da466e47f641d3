"""MNIST's digits as a torch dataset that needs no torchvision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from fedbiomed.common.data.idx import read_mnist


class MnistDataset(Dataset[tuple[Any, Any]]):
    """Pairs of an image, float32 `(1, rows, columns)` from 0 to 1, and its digit; nothing is downloaded.

    Args:
        root: folder of the four IDX files, plain or gzip; they may also lie in `raw` or `MNIST/raw` below it.
        train: the images for training, else those for tests.
        transform: takes the image's tensor.
        target_transform: takes the digit.

    Attributes:
        data: grey levels from 0 to 255, uint8 `(n, rows, columns)`.
        targets: digits, int64 `(n,)`.

    Raises:
        FedbiomedDatasetError: the files are not there, or damaged.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        pixels, digits = read_mnist(Path(root).expanduser(), train=train)
        self.data = torch.from_numpy(pixels.copy())
        self.targets = torch.from_numpy(digits.astype("int64"))
        self._transform, self._target_transform = transform, target_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        image: Any = self.data[item].unsqueeze(0).to(torch.float32) / 255
        digit: Any = int(self.targets[item])
        return (
            image if self._transform is None else self._transform(image),
            digit if self._target_transform is None else self._target_transform(digit),
        )
