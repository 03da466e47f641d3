"""The demo's data: 569 real patients of the breast-cancer set that scikit-learn bundles, split over hospitals.

Measurements are of cell nuclei in a fine needle aspirate (W. H. Wolberg, W. N. Street, O. L. Mangasarian: Breast Cancer Wisconsin
(Diagnostic), UCI Machine Learning Repository, 1995).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

TARGET = "malignant"
TAGS = ("breast-cancer",)
_MEASURED = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points", "symmetry", "fractal_dimension",
)  # fmt: skip
COLUMNS = tuple(f"{kind}_{name}" for kind in ("mean", "error", "worst") for name in _MEASURED)

# Least and greatest value of each column as published with the data set: every site can scale alike without looking at the others.
LOWEST = (
    6.981, 9.71, 43.79, 143.5, 0.053, 0.019, 0.0, 0.0, 0.106, 0.05,
    0.112, 0.36, 0.757, 6.802, 0.002, 0.002, 0.0, 0.0, 0.008, 0.001,
    7.93, 12.02, 50.41, 185.2, 0.071, 0.027, 0.0, 0.0, 0.156, 0.055,
)  # fmt: skip
HIGHEST = (
    28.11, 39.28, 188.5, 2501.0, 0.163, 0.345, 0.427, 0.201, 0.304, 0.097,
    2.873, 4.885, 21.98, 542.2, 0.031, 0.135, 0.396, 0.053, 0.079, 0.03,
    36.04, 49.54, 251.2, 4254.0, 0.223, 1.058, 1.252, 0.291, 0.664, 0.208,
)  # fmt: skip

_HELD_OUT = 0.2
_SPLIT_SEED = 0
_SITES_SEED = 0
_REFERRAL_NOISE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """One site: its name, its patients' file, how many they are and how many of them are ill."""

    name: str
    path: Path
    patients: int
    malignant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """All data of the demo: the hospitals' files, one file of all their patients, and the patients held out."""

    hospitals: tuple[Hospital, ...]
    pooled: Path
    held_out: pd.DataFrame


def preprocessing() -> dict[str, Any]:
    """What a plan must know of the columns, as model arguments."""
    return {"columns": list(COLUMNS), "lowest": list(LOWEST), "highest": list(HIGHEST), "target": TARGET}


def all_patients() -> pd.DataFrame:
    """569 patients, one row each: 30 measurements and whether the tumour is malignant (1) or benign (0)."""
    bundled = load_breast_cancer()
    table = pd.DataFrame(bundled.data, columns=list(COLUMNS))
    table[TARGET] = 1 - bundled.target
    return table


def held_out_and_rest() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split off a fifth of the patients, stratified by diagnosis, which no node ever gets."""
    table = all_patients()
    rest, held_out = train_test_split(table, test_size=_HELD_OUT, stratify=table[TARGET], random_state=_SPLIT_SEED)
    return held_out, rest


def uneven_sites(patients: pd.DataFrame, sites: int) -> list[pd.DataFrame]:
    """Split patients over sites that differ in size (n : n-1 : ... : 1) and in kind.

    Small tumours tend to be seen at the first site, a screening centre; large ones at the last, a referral centre. A patient's place
    in that order is the mean radius in standard deviations plus normal noise of sd 0.7, so each site has its own rate of malignant tumours.
    """
    radius = patients["mean_radius"].to_numpy()
    noise = np.random.default_rng(_SITES_SEED).normal(size=len(patients))
    order = np.argsort((radius - radius.mean()) / radius.std() + _REFERRAL_NOISE * noise)
    shares = np.arange(sites, 0, -1) / (sites * (sites + 1) / 2)
    cuts = np.round(np.cumsum(shares)[:-1] * len(patients)).astype(int)
    return [patients.iloc[part] for part in np.split(order, cuts)]


def write_sites(folder: Path, sites: int) -> Sites:
    """Split the patients and write one csv per site, and one of all sites, below a folder."""
    held_out, rest = held_out_and_rest()
    hospitals = []
    for index, part in enumerate(uneven_sites(rest, sites)):
        name = f"hospital-{chr(ord('a') + index)}"
        path = folder / name / "patients.csv"
        path.parent.mkdir(parents=True)
        part.to_csv(path, index=False)
        hospitals.append(Hospital(name=name, path=path, patients=len(part), malignant=int(part[TARGET].sum())))
    pooled = folder / "pooled.csv"
    rest.to_csv(pooled, index=False)
    return Sites(hospitals=tuple(hospitals), pooled=pooled, held_out=held_out)


def diagnoses(patients: pd.DataFrame) -> npt.NDArray[np.int64]:
    """1 for malignant, 0 for benign, one per patient."""
    return patients[TARGET].to_numpy().astype(np.int64)


def described(hospitals: Sequence[Hospital]) -> list[dict[str, Any]]:
    """Name, number of patients and share of malignant tumours of each site."""
    return [{"hospital": h.name, "patients": h.patients, "malignant": round(h.malignant / h.patients, 3)} for h in hospitals]
