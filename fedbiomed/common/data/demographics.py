"""Tables of subjects: one row each, one column with the name of the subject's folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbiomed.common.data.datasets.csv import checked_delimiter
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)
_ENDINGS = (".csv", ".tsv")


def read_demographics(path: str | Path, index_col: int | str) -> "pd.DataFrame":
    """Read a table of subjects.

    Args:
        path: a csv or tsv file in UTF-8 with a header.
        index_col: name or position (from 0) of the column that holds the names of the subjects' folders.

    Returns:
        The other columns; the index holds the names as text, as they are spelled in the file (`007` stays `007`). Of a subject that stands
        there twice the first row counts; rows without a name are left out.

    Raises:
        FedbiomedDatasetError: it cannot be read as such a table, or has no row.
        FedbiomedDatasetValueError: there is no such column.
    """
    path = Path(path)
    delimiter, names = _header(path)
    name = _column(index_col, names, path)
    import pandas as pd  # late: heavy, and only needed where there is such a table

    try:
        table = pd.read_csv(path, sep=delimiter, encoding="utf-8-sig", dtype={name: str}, low_memory=False)
    except (OSError, ValueError) as error:
        raise FedbiomedDatasetError(f"cannot read {path} as a table: {' '.join(str(error).split())}") from error
    table = table[table[name].notna()]
    table.index = pd.Index(table[name].str.strip(), name=name)
    kept = table[~table.index.duplicated()].drop(columns=name)
    if not len(kept):
        raise FedbiomedDatasetError(f"{path} has no row with a value in column {name!r}")
    if len(kept) < len(table):
        logger.warning("%d rows of %s repeat a subject and are left out", len(table) - len(kept), path.name)
    return kept


def column_names(path: str | Path) -> list[str]:
    """The names in the header of a table of subjects.

    Raises:
        FedbiomedDatasetError: it is no csv or tsv file, or cannot be read.
    """
    return _header(Path(path))[1]


def _header(path: Path) -> tuple[str, list[str]]:
    if path.suffix.lower() not in _ENDINGS:
        raise FedbiomedDatasetError(f"{path} does not end in .csv or .tsv; save the table of subjects as one of them")
    delimiter = checked_delimiter(path)
    import pandas as pd  # as above

    try:
        header = pd.read_csv(path, sep=delimiter, encoding="utf-8-sig", nrows=0)
    except (OSError, ValueError) as error:
        raise FedbiomedDatasetError(f"cannot read {path} as a table: {' '.join(str(error).split())}") from error
    return delimiter, [str(name) for name in header.columns]


def table_of(parameters: Mapping[str, Any]) -> tuple[str | Path | None, int | str]:
    """The table and its column of subjects that `dataset_parameters` name.

    Raises:
        FedbiomedDatasetValueError: only one of them is given, or it is no path or no column.
    """
    table, index_col = parameters.get("tabular_file"), parameters.get("index_col")
    if table is None and index_col is None:
        return None, 0
    if not isinstance(table, str | Path) or not isinstance(index_col, str | int) or not is_index_col(index_col):
        raise FedbiomedDatasetValueError(
            "a medical folder's table needs both tabular_file (a path) and index_col (name or position of the column of subjects); "
            f"found {table!r:.120} and {index_col!r:.80}"
        )
    return table, index_col


def is_index_col(value: object) -> bool:
    """Whether it could name a column: a text, or a position from 0."""
    return isinstance(value, str) or (type(value) is int and value >= 0)


def _column(index_col: int | str, names: list[str], path: Path) -> str:
    if not is_index_col(index_col):
        raise FedbiomedDatasetValueError(f"index_col must be a column's name or its position from 0, not {index_col!r:.80}")
    if isinstance(index_col, int) and index_col < len(names):
        return names[index_col]
    if isinstance(index_col, int) or index_col not in names:
        raise FedbiomedDatasetValueError(f"{path} has no column {index_col!r:.80}; it has {len(names)}: {', '.join(names)[:300]}")
    return index_col
