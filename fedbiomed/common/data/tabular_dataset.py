"""Arrays as a torch dataset."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.data.arrays import as_numbers
from fedbiomed.common.exceptions import FedbiomedDatasetError


class TabularDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of input and target, both float32.

    Args:
        inputs: numpy array, DataFrame or Series, `(n, ...)`.
        target: the same, of the same length.

    Raises:
        FedbiomedDatasetError: the lengths differ.
        FedbiomedDataManagerError: they are no tables of numbers.
    """

    def __init__(self, inputs: Any, target: Any) -> None:
        self.inputs = _tensor(inputs, "dataset")
        self.target = _tensor(target, "target")
        if len(self.inputs) != len(self.target):
            raise FedbiomedDatasetError(f"{ErrorNumbers.FB632.value}: dataset has {len(self.inputs)} samples, target {len(self.target)}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[item], self.target[item]


def _tensor(values: Any, what: str) -> torch.Tensor:
    return torch.from_numpy(np.array(as_numbers(values, what), dtype=np.float32))
