"""UCI Heart Disease: four real hospitals (Janosi, Steinbrunn, Pfisterer, Detrano 1988, https://doi.org/10.24432/C52P4X).

Prepared as for Fed-Heart-Disease of FLamby: 13 inputs, label "a vessel is narrowed", 66/34 for training and test.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_ROOT = Path(__file__).resolve().parents[2]
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
        return _scaled(self.inputs, self.inputs), self.labels


def heart_disease() -> dict[str, Hospital]:
    """The hospitals by name; skips where the files are not at hand."""
    folder = _folder()
    return {name: _hospital(folder / f"processed.{name}.data") for name in HOSPITALS}


def pooled_test(hospitals: dict[str, Hospital]) -> tuple[Rows, Rows]:
    """Test inputs of all, in the standard deviations of all training inputs, and labels."""
    training = np.concatenate([hospital.inputs for hospital in hospitals.values()])
    inputs = np.concatenate([hospital.test_inputs for hospital in hospitals.values()])
    return _scaled(inputs, training), np.concatenate([hospital.test_labels for hospital in hospitals.values()])


def _folder() -> Path:
    """`FEDBIOMED_TEST_DATA`, or `shared/data` beside the repository or beside the folder that it lies in."""
    given = os.environ.get("FEDBIOMED_TEST_DATA")
    places = [Path(given)] if given else [parent / "shared" / "data" for parent in (_ROOT.parent, _ROOT.parent.parent)]
    for place in places:
        if (place / "heart-disease").is_dir():
            return place / "heart-disease"
    pytest.skip(f"no heart-disease data in {', '.join(map(str, places))}; FEDBIOMED_TEST_DATA names the folder that holds it")


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


def _scaled(inputs: Rows, by: Rows) -> Rows:
    scaled: Rows = ((inputs - by.mean(axis=0)) / (by.std(axis=0, ddof=1) + 1e-9)).astype(np.float32)
    return scaled
