"""One meaning of columns for tables that differ from node to node: which columns there are, what they hold, how they become numbers.

`table_statistics` runs on a node and tells what it has; `TabularSchema.union` makes one schema of several such tellings, or of one, where
one node's shall count; `transform` then gives the same columns, in the same order, on every node:

    numeric       (x - minimum) / (maximum - minimum), over all nodes; 0 where the value or the column is missing
                  <column>=missing: 1 there
    categorical   <column>=<category>: 1 for it, one column for each category that some node told
                  <column>=unseen: 1 for any other value, and where value or column are missing
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fedbiomed.common.exceptions import FedbiomedDatasetError

if TYPE_CHECKING:
    from pandas import DataFrame

Array = np.ndarray[Any, Any]
MISSING, UNSEEN = "missing", "unseen"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        name: of it.
        categories: in the order of their columns; None for a numeric one.
        minimum, maximum: of a numeric one.
    """

    name: str
    categories: tuple[str, ...] | None = None
    minimum: float = 0.0
    maximum: float = 0.0

    def titles(self) -> list[str]:
        """Names of the columns that it becomes."""
        if self.categories is None:
            return [self.name, f"{self.name}={MISSING}"]
        return [f"{self.name}={category}" for category in (*self.categories, UNSEEN)]


def table_statistics(table: "DataFrame", least_rows: int = 5, *, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """What a node tells of its table: of numeric columns the range, of others the categories. Nothing else of it leaves the node.

    Args:
        table: columns of numbers, booleans or text.
        least_rows: a category of fewer rows is not told, nor the range of a column with fewer values.
        leave_out: columns of which nothing is told: ids, free text, targets.

    Raises:
        FedbiomedDatasetError: a column to be left out is not there, or one holds something else.
    """
    missing = [name for name in leave_out if name not in table.columns]
    if missing:
        raise FedbiomedDatasetError(f"there is no column {missing[0]!r} to be left out; there are {', '.join(map(str, table.columns))}")
    told: dict[str, Any] = {}
    for name in table.columns:
        values = table[name].dropna()
        if name in leave_out or len(values) < least_rows:
            continue
        if values.dtype.kind in "iuf":
            finite = values[np.isfinite(values.to_numpy(np.float64))]
            told[str(name)] = {"minimum": float(finite.min()), "maximum": float(finite.max())} if len(finite) >= least_rows else None
        elif values.dtype.kind in "bOU" or str(values.dtype) in ("category", "string", "str"):
            counts = values.astype(str).value_counts()
            told[str(name)] = {"categories": sorted(str(category) for category, count in counts.items() if count >= least_rows)}
        else:
            raise FedbiomedDatasetError(f"column {name!r} holds {values.dtype}, neither numbers nor text: leave it out, or convert it")
    return {name: found for name, found in told.items() if found is not None}


@dataclass(frozen=True, slots=True)
class TabularSchema:
    """Columns that all nodes share.

    Args:
        columns: in their order.
    """

    columns: tuple[Column, ...]

    @classmethod
    def union(cls, told: Iterable[Mapping[str, Any]]) -> Self:
        """The schema of all columns, ranges and categories that were told; columns and categories in the order of the alphabet.

        Args:
            told: `table_statistics` of one or more nodes.

        Raises:
            FedbiomedDatasetError: nothing was told, or a column is numeric on one node and not on another.
        """
        parts: dict[str, list[Mapping[str, Any]]] = {}
        for statistics in told:
            for name, found in statistics.items():
                parts.setdefault(name, []).append(found)
        if not parts:
            raise FedbiomedDatasetError("no node told of any column: tables are empty, or smaller than least_rows")
        return cls(tuple(_united(name, parts[name]) for name in sorted(parts)))

    def titles(self) -> list[str]:
        """Names of the columns that `transform` gives."""
        return [title for column in self.columns for title in column.titles()]

    def transform(self, table: "DataFrame") -> Array:
        """A node's table as numbers, float32 `(rows, len(titles()))`; columns that the schema does not know are left out.

        Raises:
            FedbiomedDatasetError: a numeric column holds text.
        """
        return np.hstack([_numbers(column, table) for column in self.columns]).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: it may be given to a plan in `model_args`."""
        told: dict[str, Any] = {}
        for column in self.columns:
            if column.categories is None:
                told[column.name] = {"minimum": column.minimum, "maximum": column.maximum}
            else:
                told[column.name] = {"categories": list(column.categories)}
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """The schema that `to_dict` wrote."""
        return cls.union([told])


def _united(name: str, parts: Sequence[Mapping[str, Any]]) -> Column:
    try:
        if all("categories" in part for part in parts):
            return Column(name, tuple(sorted({str(category) for part in parts for category in part["categories"]})))
        minimum, maximum = min(float(part["minimum"]) for part in parts), max(float(part["maximum"]) for part in parts)
    except (KeyError, TypeError, ValueError) as error:
        raise FedbiomedDatasetError(
            f"column {name!r} holds numbers on one node and text on another, or what was told of it is malformed: {list(parts)!r:.200}"
        ) from error
    if not (np.isfinite(minimum) and np.isfinite(maximum) and minimum <= maximum):
        raise FedbiomedDatasetError(f"the range of column {name!r} is {minimum} to {maximum}")
    return Column(name, None, minimum, maximum)


def _numbers(column: Column, table: "DataFrame") -> Array:
    """`(rows, titles)` of one column."""
    rows = len(table)
    result = np.zeros((rows, len(column.titles())))
    if column.name not in table.columns:
        result[:, -1] = 1
        return result
    values = table[column.name]
    is_missing = values.isna().to_numpy()
    if column.categories is not None:
        places = {category: index for index, category in enumerate(column.categories)}
        words = values.astype(str).to_numpy()
        found = [len(places) if gone else places.get(str(word), len(places)) for word, gone in zip(words, is_missing, strict=True)]
        result[np.arange(rows), found] = 1
        return result
    try:
        numbers = values.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise FedbiomedDatasetError(f"column {column.name!r} is numeric in the schema, this table holds {values.dtype}") from error
    is_missing = ~np.isfinite(numbers)
    width = column.maximum - column.minimum
    result[:, 0] = np.where(is_missing, 0.0, (numbers - column.minimum) / width if width else 0.0)
    result[:, 1] = is_missing
    return result
