"""Pictures in files, read with Pillow."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedbiomed.common.exceptions import FedbiomedDatasetError

Array = np.ndarray[Any, Any]
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MODES = {"RGB": 3, "L": 1}


def read_image(path: Path, mode: str = "RGB") -> Array:
    """One picture.

    Args:
        path: the file.
        mode: `RGB` for three channels, `L` for one of grey; every picture is brought to it.

    Returns:
        `(channels, rows, columns)` uint8.

    Raises:
        FedbiomedDatasetError: it cannot be read as a picture.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise FedbiomedDatasetError(f"cannot read {path} as a picture: {error}") from error
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[np.newaxis]
