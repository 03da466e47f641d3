"""A folder of files: the MNIST digits in their original format, or anything that the training plan knows how to read."""

import gzip
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.exceptions import FedbiomedDatasetError

_IMAGES, _LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_FOLDERS = (Path(), Path("raw"), Path("MNIST", "raw"))
_HEADER = struct.Struct(">4I")  # magic number, images, rows, columns: http://yann.lecun.com/exdb/mnist/
_MAGIC = 2051


class DefaultDataset(DatasetType):
    """A folder, read by the training plan itself."""

    def describe(self, path: Path, parameters: Mapping[str, Any]) -> Description:
        """Shape `[images, 1, rows, columns]` for MNIST's IDX files, else `[files]`; see `DatasetType.describe`.

        The IDX files may be plain or gzip, at the top of the folder or where torchvision puts them.
        """
        if not path.is_dir():
            raise FedbiomedDatasetError(f"{path} is {'a file' if path.exists() else 'not there'}; a dataset of this type is a folder")
        try:
            images = _find(path, _IMAGES)
            if images is not None:
                return _mnist(path, images)
            files = sum(len(names) for _, _, names in os.walk(path, onerror=_raise))
        except (OSError, EOFError, zlib.error) as error:
            raise FedbiomedDatasetError(f"cannot read {path}: {error}") from error
        if not files:
            raise FedbiomedDatasetError(f"{path} holds no file; put the data there first")
        return Description(shape=(files,))


def _find(folder: Path, name: str) -> Path | None:
    places = (folder / below / f"{name}{ending}" for below in _FOLDERS for ending in ("", ".gz"))
    return next((place for place in places if place.is_file()), None)


def _mnist(folder: Path, images: Path) -> Description:
    if _find(folder, _LABELS) is None:
        raise FedbiomedDatasetError(f"{folder} has {images.name} but not {_LABELS} (or .gz)")
    with gzip.open(images) if images.suffix == ".gz" else images.open("rb") as file:
        header = file.read(_HEADER.size)
    if len(header) != _HEADER.size or _HEADER.unpack(header)[0] != _MAGIC:
        raise FedbiomedDatasetError(f"{images} is not a file of IDX images: its header is {header.hex()!r}")
    _, count, rows, columns = _HEADER.unpack(header)
    return Description(shape=(count, 1, rows, columns))


def _raise(error: OSError) -> None:
    raise error
