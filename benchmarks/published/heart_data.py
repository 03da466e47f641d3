"""UCI Heart Disease: four real hospitals (Janosi, Steinbrunn, Pfisterer, Detrano 1988, https://doi.org/10.24432/C52P4X).

Prepared as for Fed-Heart-Disease of FLamby (du Terrail et al., NeurIPS 2022): 13 inputs, label "a vessel is narrowed", 66/34 for
training and test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
LABEL = "ill"
_CHEST_PAIN, _RESTING_ECG = 2, 6
Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Hospital:
    """Inputs `(n, 13)` and labels `(n, 1)`, as they were measured."""

    inputs: Rows
    labels: Rows
    test_inputs: Rows
    test_labels: Rows

    def normalised(self) -> tuple[Rows, Rows]:
        """What the node trains on: inputs in its own standard deviations, and labels."""
        return scaled(self.inputs, self.inputs), self.labels

    def normalised_test(self) -> tuple[Rows, Rows]:
        """What the hospital tests on: inputs in the standard deviations of its training inputs, and labels."""
        return scaled(self.test_inputs, self.inputs), self.test_labels


def read_hospitals(folder: Path) -> dict[str, Hospital]:
    """The hospitals by name.

    Args:
        folder: of the files `processed.<name>.data`.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    return {name: _hospital(folder / f"processed.{name}.data") for name in HOSPITALS}


def pooled_training(hospitals: Mapping[str, Hospital]) -> tuple[Rows, Rows]:
    """Training inputs of all, as measured, and labels."""
    return (
        np.concatenate([hospital.inputs for hospital in hospitals.values()]),
        np.concatenate([hospital.labels for hospital in hospitals.values()]),
    )


def pooled_test(hospitals: Mapping[str, Hospital]) -> tuple[Rows, Rows]:
    """Test inputs of all, in the standard deviations of all training inputs, and labels."""
    inputs = np.concatenate([hospital.test_inputs for hospital in hospitals.values()])
    labels = np.concatenate([hospital.test_labels for hospital in hospitals.values()])
    return scaled(inputs, pooled_training(hospitals)[0]), labels


def write_rows(path: Path, inputs: Rows, labels: Rows) -> None:
    """A csv that a node can offer: columns `x0`, `x1` ..., and the label."""
    table = pd.DataFrame(inputs, columns=[f"x{index}" for index in range(inputs.shape[1])])
    table[LABEL] = labels
    table.to_csv(path, index=False)


def scaled(inputs: Rows, by: Rows) -> Rows:
    """Inputs in the mean and unbiased standard deviations of others."""
    result: Rows = ((inputs - by.mean(axis=0)) / (by.std(axis=0, ddof=1) + 1e-9)).astype(np.float32)
    return result


def _hospital(path: Path) -> Hospital:
    table = pd.read_csv(path, header=None, na_values="?").drop(columns=[10, 11, 12]).dropna()
    labels = (table.pop(13) > 0).to_numpy(np.float32).reshape(-1, 1)
    levels = {_CHEST_PAIN: [1, 2, 3, 4], _RESTING_ECG: [0, 1, 2]}
    for column, values in levels.items():
        table[column] = pd.Categorical(table[column], categories=values)
    inputs = pd.get_dummies(table, columns=list(levels), drop_first=True).to_numpy(np.float32)
    stratify = labels if min(np.bincount(labels.ravel().astype(int), minlength=2)) > 2 else None
    a, b, c, d = train_test_split(inputs, labels, test_size=0.34, random_state=43, stratify=stratify)
    return Hospital(inputs=a, test_inputs=b, labels=c, test_labels=d)
