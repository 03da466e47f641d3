"""The contract of a storage: whole files under keys, never changed."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO


class Storage(ABC):
    """Keeps files under keys of 32 hex digits.

    Args:
        folder: where it may keep what it needs on this machine; it is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def keep(self, key: str, path: Path) -> None:
        """Take over a whole local file, on the same disk as the folder; it is not at its path any more afterwards.

        Raises:
            OSError: disk full, for instance; nothing lies under the key then.
        """

    @abstractmethod
    def open(self, key: str, begin: int) -> BinaryIO:
        """Read a file from an offset on.

        Raises:
            FileNotFoundError: no such key.
        """

    @abstractmethod
    def remove(self, key: str) -> None:
        """Forget a file; one that is not there is no error."""

    def shared_folder(self) -> Path | None:
        """Where components on the same disk find the files, as `path_in(folder, key)` says; None where there is no such place."""
        return None

    @abstractmethod
    def free_bytes(self) -> int:
        """Room that is left."""
