"""Folders of samples, one folder per class: `<root>/<class>/<file>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbiomed.common.exceptions import FedbiomedDatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """What was found.

    Args:
        labels: names of the folders that hold samples, sorted; a class is its position here.
        files: of all classes, sorted by class and name.
        targets: the class of each file.
    """

    labels: tuple[str, ...]
    files: tuple[Path, ...]
    targets: tuple[int, ...]


def class_folders(root: Path, endings: Sequence[str]) -> ClassFolders:
    """Look through a folder; what begins with a dot, and files with other endings, are left out.

    Args:
        root: the folder.
        endings: of the files, in lower case with their dot.

    Raises:
        FedbiomedDatasetError: it is no folder, cannot be read, or has no folder with such a file.
    """
    if not root.is_dir():
        raise FedbiomedDatasetError(
            f"{root} is {'a file' if root.exists() else 'not there'}; this type needs a folder that holds one folder per class"
        )
    try:
        folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
        found = {folder.name: files for folder in folders if (files := files_in(folder, endings))}
    except OSError as error:
        raise FedbiomedDatasetError(f"cannot read the folder {root}: {error.strerror}") from error
    if not found:
        raise FedbiomedDatasetError(f"{root} holds no folder with a file that ends in {', '.join(endings)}; put one folder per class there")
    return ClassFolders(
        labels=tuple(found),
        files=tuple(file for files in found.values() for file in files),
        targets=tuple(index for index, files in enumerate(found.values()) for _ in files),
    )


def files_in(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Files directly in a folder that end so, sorted by name; hidden ones are left out.

    Raises:
        OSError: it cannot be read.
    """
    return sorted(
        path for path in folder.iterdir() if path.name.lower().endswith(tuple(endings)) and not path.name.startswith(".") and path.is_file()
    )
