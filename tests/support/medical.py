"""Small data sets in files: NIfTI images, pictures, MNIST's format."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_nifti(path: Path, shape: tuple[int, ...] = (4, 5, 3), seed: int = 0) -> np.ndarray:
    """An image of random voxels, float32; returns them."""
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return voxels


def write_subjects(root: Path, subjects: list[str], modalities: tuple[str, ...] = ("T1", "label"), ending: str = ".nii.gz") -> Path:
    """A medical folder; subject number i's modality number j has the seed 10 i + j."""
    for i, subject in enumerate(subjects):
        for j, modality in enumerate(modalities):
            write_nifti(root / subject / modality / f"{subject}_{modality}{ending}", seed=10 * i + j)
    return root


def write_picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), seed: int = 0) -> np.ndarray:
    """A picture of (width, height); returns its pixels, (rows, columns[, channels])."""
    channels = {"RGB": (3,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size[1], size[0], *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_digits(folder: Path, ending: str = "", rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, brought to 28 x 28, as MNIST's four files; returns the images for training and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    bundled = load_digits()
    images = np.zeros((rows, 28, 28), dtype=np.uint8)
    images[:, 2:26, 2:26] = np.kron(bundled.images[:rows] * 15, np.ones((3, 3))).astype(np.uint8)
    labels = bundled.target[:rows].astype(np.uint8)
    for prefix, count in (("train", rows), ("t10k", rows // 2)):
        _write(folder / f"{prefix}-images-idx3-ubyte{ending}", struct.pack(">4I", 2051, count, 28, 28) + images[:count].tobytes())
        _write(folder / f"{prefix}-labels-idx1-ubyte{ending}", struct.pack(">2I", 2049, count) + labels[:count].tobytes())
    return images, labels


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
