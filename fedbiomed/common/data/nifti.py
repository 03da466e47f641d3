"""NIfTI images, read with nibabel, which is there with the extra `medical`."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedDatasetError

Array = np.ndarray[Any, Any]
ENDINGS = (".nii", ".nii.gz")


def read_nifti(path: Path) -> Array:
    """The voxels of an image, scaled as its header says, in the file's own order of axes.

    Returns:
        float32, of the image's shape (x, y, z for a volume).

    Raises:
        FedbiomedDatasetError: nibabel is not installed, or the file cannot be read.
    """
    try:
        import nibabel  # late: optional, and only needed where there are such images
    except ImportError as error:
        raise FedbiomedDatasetError("NIfTI images need nibabel, which is not installed: pip install 'fedbiomed[medical]'") from error
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise FedbiomedDatasetError(f"{path} is no NIfTI image but a {type(image).__name__}")
        return image.get_fdata(dtype=np.float32, caching="unchanged")
    except (OSError, ValueError, EOFError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise FedbiomedDatasetError(f"cannot read {path} as NIfTI: {' '.join(str(error).split())}") from error
