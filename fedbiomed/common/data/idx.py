"""MNIST's files: IDX format, plain or gzip (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedDatasetError

Array = np.ndarray[Any, Any]
# Where the files may lie below a folder: at its top, or where torchvision puts them.
_FOLDERS = (Path(), Path("raw"), Path("MNIST", "raw"))
_PREFIXES = {True: "train", False: "t10k"}
_IMAGES, _LABELS = 2051, 2049


def find_images(folder: Path, *, train: bool = True) -> Path | None:
    """The file of images, if it is there."""
    return _find(folder, f"{_PREFIXES[train]}-images-idx3-ubyte")


def read_mnist(folder: Path, *, train: bool = True) -> tuple[Array, Array]:
    """Images and labels of a folder.

    Args:
        folder: that holds the files, or `raw`, or `MNIST/raw`.
        train: the 60000 images for training, else the 10000 for tests.

    Returns:
        Grey levels from 0 to 255, `(n, rows, columns)` uint8; labels, `(n,)` uint8.

    Raises:
        FedbiomedDatasetError: a file is missing, cannot be read or is not of that format, or the numbers of images and labels differ.
    """
    if not folder.is_dir():
        raise FedbiomedDatasetError(f"{folder} is {'a file' if folder.exists() else 'not there'}; MNIST is a folder of its four IDX files")
    prefix = _PREFIXES[train]
    images, labels = find_images(folder, train=train), _find(folder, f"{prefix}-labels-idx1-ubyte")
    if images is None:
        raise FedbiomedDatasetError(f"{folder} has no {prefix}-images-idx3-ubyte (or .gz), nor have raw and MNIST/raw below it")
    if labels is None:
        raise FedbiomedDatasetError(f"{folder} has {images.name} but not {prefix}-labels-idx1-ubyte (or .gz)")
    pixels, classes = _read(images, _IMAGES, 3), _read(labels, _LABELS, 1)
    if len(pixels) != len(classes):
        raise FedbiomedDatasetError(f"{images.name} has {len(pixels)} images, {labels.name} {len(classes)} labels")
    return pixels, classes


def _find(folder: Path, name: str) -> Path | None:
    places = (folder / below / f"{name}{ending}" for below in _FOLDERS for ending in ("", ".gz"))
    return next((place for place in places if place.is_file()), None)


def _read(path: Path, magic: int, dimensions: int) -> Array:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FedbiomedDatasetError(f"cannot read {path}: {error}") from error
    header = struct.Struct(f">{1 + dimensions}I")
    if len(content) < header.size or header.unpack_from(content)[0] != magic:
        kind = "images" if magic == _IMAGES else "labels"
        raise FedbiomedDatasetError(f"{path} is not a file of IDX {kind}: its header is {content[: header.size].hex()!r}")
    shape = header.unpack_from(content)[1:]
    values = np.frombuffer(content, dtype=np.uint8, offset=header.size)
    if values.size != int(np.prod(shape, dtype=object)):
        raise FedbiomedDatasetError(f"{path} is cut or too long: its header says {shape}, {values.size} values follow")
    return values.reshape(shape)
