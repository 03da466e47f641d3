"""A table in a text file: one row per sample, named columns."""

import csv
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedDatasetError

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 200
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "-"})


class CsvDataset(DatasetType):
    """A csv file in UTF-8 with a header; delimiter (`,` `;` tab `|`) and header are found by looking.

    A file without a header is refused: the first patient would be taken for the columns' names, on every node another one.
    """

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `[rows, columns]` and the columns' types; see `DatasetType.describe`."""
        delimiter = checked_delimiter(path)
        import pandas as pd  # late: heavy, and only needed when a dataset is registered

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(path, sep=delimiter, low_memory=False)
        except (ValueError, OSError, pd.errors.ParserWarning) as error:
            raise FedbiomedDatasetError(f"cannot read {path} as csv: {_one_line(error)}") from error
        if frame.empty:
            raise FedbiomedDatasetError(f"{path} has a header but no rows")
        return Description(shape=tuple(frame.shape), dtypes=tuple(str(dtype) for dtype in frame.dtypes))


def checked_delimiter(path: Path) -> str:
    """The delimiter of a csv file with a header.

    Raises:
        FedbiomedDatasetError: it is not there, not UTF-8, has no header, or rows longer than that.
    """
    if not path.is_file():
        raise FedbiomedDatasetError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; a csv dataset is one file")
    try:
        tables = {delimiter: _first_rows(path, delimiter) for delimiter in _DELIMITERS}
    except UnicodeDecodeError as error:
        raise FedbiomedDatasetError(f"{path} is not UTF-8 text: {_one_line(error)}; save it as csv in UTF-8") from error
    except (csv.Error, OSError) as error:
        raise FedbiomedDatasetError(f"cannot read {path} as csv: {_one_line(error)}") from error
    delimiter = max(_DELIMITERS, key=lambda candidate: _agreement(tables[candidate]))
    rows = tables[delimiter]
    if not rows:
        raise FedbiomedDatasetError(f"{path} is empty; a csv dataset has a header and rows")
    longer = next((number for number, row in enumerate(rows) if len(row) > len(rows[0])), None)
    if longer is not None:
        raise FedbiomedDatasetError(
            f"{path}: row {longer} has {len(rows[longer])} fields, the header {len(rows[0])} (delimiter {delimiter!r}); repair the file"
        )
    if not _has_header(rows):
        raise FedbiomedDatasetError(
            f"{path} has no header: its first row is {delimiter.join(rows[0])!r:.120}; add a first row with the columns' names"
        )
    return delimiter


def _first_rows(path: Path, delimiter: str) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = itertools.islice(csv.reader(file, delimiter=delimiter), _SAMPLE_ROWS)
        return [[cell.strip() for cell in row] for row in rows if row]


def _agreement(rows: Sequence[Sequence[str]]) -> tuple[bool, int]:
    """How well a delimiter explains the rows: all of one width > 1 first, then the widest."""
    widths = {len(row) for row in rows}
    return len(widths) == 1 and widths != {1}, len(rows[0]) if rows else 0


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns.

    It does when some column of numbers begins with a word, or when nothing speaks against it: no number above a column of numbers
    (years or gene numbers may be names beside words), but for the count from 0 that tools write when columns have no name.
    """
    first, body = rows[0], rows[1:]
    if [cell for cell in first if cell] == [str(number) for number in range(len([cell for cell in first if cell]))]:
        return len(first) > 1
    columns = [[row[index] for row in body if index < len(row)] for index in range(len(first))]
    pairs = [(name, cells) for name, cells in zip(first, columns, strict=True) if _is_numeric(cells)]
    if any(_is_word(name) for name, _ in pairs):
        return True
    return not any(_is_number(name) for name, _ in pairs) and any(_is_word(name) for name in first)


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(_is_number(cell) or cell.lower() in _MISSING for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return cell.lower() not in _MISSING


def _is_word(cell: str) -> bool:
    return not _is_number(cell) and cell.lower() not in _MISSING and any(letter.isalpha() for letter in cell)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
