"""The one way in which parameters and what belongs to them are written to files, between machines and in breakpoints.

MessagePack with tagged values: the table stands at the head of `serializer_types`. No pickle: a file can hold values, never code.
"""

import mmap
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedValueError
from fedbiomed.common.files import written_whole
from fedbiomed.common.serializer_read import Reader
from fedbiomed.common.serializer_write import Writer


class Serializer:
    """Turns values into bytes or files, and back.

    None, bool, int of any size, float, str, bytes, list, tuple, dict with scalar keys, numpy arrays and scalars, torch tensors (from any
    device; they come back on the CPU) and declearn Vectors, at most 16 containers deep. Arrays come back equal in dtype and shape,
    contiguous, writable and with memory of their own; big-endian ones come back in the byte order of the machine.

    >>> Serializer.loads(Serializer.dumps({"round": 3, "betas": (0.9, 0.999), 7: None}))
    {'round': 3, 'betas': (0.9, 0.999), 7: None}
    >>> import numpy as np
    >>> Serializer.loads(Serializer.dumps(np.arange(3)))
    array([0, 1, 2])
    """

    @staticmethod
    def dumps(obj: object) -> bytes:
        """Write a value to bytes.

        Raises:
            FedbiomedTypeError: it holds something that is not carried.
            FedbiomedValueError: it is nested too deep or holds too many values.
        """
        pieces: list[bytes | memoryview] = []
        Writer(pieces.append).write(obj)
        return b"".join(pieces)

    @staticmethod
    def dump(obj: object, path: str | Path) -> None:
        """Write a value to a file, whole or not at all, array by array and without a copy of the whole.

        Raises:
            FedbiomedTypeError, FedbiomedValueError: as `dumps`.
            OSError: the file cannot be written.
        """
        with written_whole(Path(path)) as file:
            Writer(file.write).write(obj)

    @staticmethod
    def loads(data: bytes | bytearray | memoryview) -> Any:
        """Read a value from bytes that may come from anywhere.

        A map with an unknown tag is given as it is, with a warning in the log.

        Raises:
            FedbiomedValueError: they are not what `dumps` writes: where and why. Nothing is built of an array before its dtype, shape
                and bytes were found to fit.
        """
        try:
            return Reader(memoryview(data).cast("B")).read()
        except FedbiomedValueError as error:
            raise FedbiomedValueError(f"cannot read {len(data)} bytes of parameters: {error}") from error

    @staticmethod
    def load(path: str | Path) -> Any:
        """Read a value from a file, through a memory map, that may come from anywhere; see `loads`.

        The file must not be cut while it is read (ours are written whole and never changed).

        Raises:
            FedbiomedValueError: the file is not what `dump` writes.
            OSError: the file cannot be opened.
        """
        try:
            return Reader(_mapped(Path(path))).read()
        except FedbiomedValueError as error:
            raise FedbiomedValueError(f"cannot read {path}: {error}") from error


def _mapped(path: Path) -> memoryview:
    """The content of a file as memory; the map goes when the last view of it does."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise FedbiomedValueError("the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
