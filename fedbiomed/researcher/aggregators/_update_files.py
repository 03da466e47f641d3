"""The updates of a round on disk, worked on in blocks: memory for a few models whatever the number of nodes."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Kind, Params, as_kind, checked_arrays, kind_of

Array = np.ndarray[Any, Any]
# Numbers that are worked on at a time, of all nodes together: 4 MiB of float64.
_AT_ONCE = 1 << 19
_ALIGNMENT = 16


class UpdateFiles:
    """One temporary file per node, read through a memory map; the folder goes with this object."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fedbiomed-updates-"))
        self.close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._kinds: dict[str, Kind] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._maps: dict[str, dict[str, Array]] = {}

    @property
    def nodes(self) -> list[str]:
        """Whose updates are here, in the order in which they came."""
        return list(self._maps)

    def put(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Write an update.

        Raises:
            AggregationError: its names or shapes differ from the first one's, a value is not finite or not real, or it cannot be written.
        """
        first = next(iter(self._maps), "")
        arrays = checked_arrays(params, node_id, self._shapes if first else None, first)
        strange = [name for name, array in arrays.items() if array.dtype.kind == "c"]
        if strange:
            raise AggregationError(f"parameter {strange[0]!r} of {node_id} holds complex numbers, which have no order")
        try:
            self._maps[node_id] = _mapped(self._folder / f"{len(self._maps)}.raw", arrays)
        except OSError as error:
            raise AggregationError(f"the update of {node_id} cannot be kept in {self._folder}: {error}") from error
        if not first:
            self._kinds = {name: kind_of(params[name], array) for name, array in arrays.items()}
            self._shapes = {name: array.shape for name, array in arrays.items()}

    def arrays(self, node_id: str) -> dict[str, Array]:
        """A node's update, flat arrays on the memory map."""
        return self._maps[node_id]

    def blocks(self, names: Iterable[str]) -> Iterator[Array]:
        """The values of these parameters, block by block: float64, one row per node."""
        for name in names:
            for _, block in self._blocks(name):
                yield block

    def by_coordinate(self, function: Callable[[Array], Array]) -> Params:
        """Parameters, of which each number is a function of the nodes' numbers.

        Args:
            function: of float64 numbers, one row per node, to one row.
        """
        params = {}
        for name, shape in self._shapes.items():
            total = np.empty(int(np.prod(shape, dtype=np.int64)))
            for start, block in self._blocks(name):
                total[start : start + block.shape[1]] = function(block)
            params[name] = as_kind(total.reshape(shape), 1.0, self._kinds[name])
        return params

    def _blocks(self, name: str) -> Iterator[tuple[int, Array]]:
        flats = [arrays[name] for arrays in self._maps.values()]
        width = max(1, _AT_ONCE // len(flats))
        for start in range(0, flats[0].size, width):
            yield start, np.stack([flat[start : start + width] for flat in flats]).astype(np.float64)


def _mapped(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    places = {}
    with path.open("wb") as file:
        for name, array in arrays.items():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            places[name] = file.tell()
            array.tofile(file)
        file.write(b"\0")  # an empty file cannot be mapped
    raw = np.memmap(path, np.uint8, "r")
    return {
        name: np.frombuffer(raw, arrays[name].dtype, arrays[name].size, place) if arrays[name].size else np.empty(0, arrays[name].dtype)
        for name, place in places.items()
    }
