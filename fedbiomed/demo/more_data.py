"""More bundled data for the hospitals that stay running: handwritten digits and diabetes patients, for the notebooks.

Digits: 1797 images of 8 x 8 pixels (E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998). Diabetes: 442 patients, ten baseline variables, disease progression after one year (B. Efron, T. Hastie, I. Johnstone,
R. Tibshirani: Least Angle Regression, Annals of Statistics, 2004). scikit-learn bundles both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split

DIGITS_TAGS = ("digits",)
DIGITS_BY_LABEL_TAGS = ("digits-by-label",)
DIABETES_TAGS = ("diabetes",)
DIGITS_TARGET = "digit"
DIABETES_TARGET = "progression"
_HELD_OUT = 0.2
_SEED = 0
_SKEW = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One csv file of one hospital, as its operator registers it."""

    name: str
    tags: tuple[str, ...]
    path: Path
    description: str


def digits() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images for the hospitals, and those held out: columns `pixel_0` to `pixel_63` (0 to 1), then `digit`."""
    bundled = load_digits()
    table = pd.DataFrame(bundled.data / 16, columns=[f"pixel_{i}" for i in range(64)])
    table[DIGITS_TARGET] = bundled.target
    return _split(table, table[DIGITS_TARGET])


def diabetes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All patients for the hospitals, and those held out: ten baseline variables as bundled (mean 0), then `progression` (25 to 346)."""
    bundled = load_diabetes()
    table = pd.DataFrame(bundled.data, columns=bundled.feature_names)
    table[DIABETES_TARGET] = bundled.target
    return _split(table, None)


def write_more(folder: Path, hospitals: Sequence[str]) -> dict[str, list[Table]]:
    """Write both sets below a folder, unevenly spread: each hospital sees some digits more often, and patients of another age.

    The digits are there a second time, sorted by label and cut in equal parts: of three hospitals none sees more than five digits.
    """
    tables: dict[str, list[Table]] = {name: [] for name in hospitals}
    draw = np.random.default_rng(_SEED)
    images, _ = digits()
    shares = draw.dirichlet([_SKEW] * len(hospitals), size=10)
    chosen = np.array([draw.choice(len(hospitals), p=shares[digit]) for digit in images[DIGITS_TARGET]])
    by_label = np.array_split(np.argsort(images[DIGITS_TARGET].to_numpy(), kind="stable"), len(hospitals))
    patients, _ = diabetes()
    order = np.argsort(patients["age"].to_numpy() / patients["age"].std() + draw.normal(size=len(patients)))
    for index, (name, rows) in enumerate(zip(hospitals, np.array_split(order, len(hospitals)), strict=True)):
        kinds = (
            ("digits", DIGITS_TAGS, images[chosen == index]),
            ("digits by label", DIGITS_BY_LABEL_TAGS, images.iloc[by_label[index]]),
            ("diabetes", DIABETES_TAGS, patients.iloc[rows]),
        )
        for kind, tags, part in kinds:
            path = folder / name / f"{kind.replace(' ', '-')}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            part.to_csv(path, index=False)
            tables[name].append(Table(name=kind, tags=tags, path=path, description=f"{kind} of {name}"))
    return tables


def _split(table: pd.DataFrame, stratify: "pd.Series[int] | None") -> tuple[pd.DataFrame, pd.DataFrame]:
    rest, held_out = train_test_split(table, test_size=_HELD_OUT, stratify=stratify, random_state=_SEED)
    return rest, held_out
