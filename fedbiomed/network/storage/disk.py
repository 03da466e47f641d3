"""Files on this machine's disk, in 256 folders by the first two digits of the key."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from fedbiomed.common.files import path_in
from fedbiomed.network.storage.storage import Storage


class DiskStorage(Storage):
    """Files below a folder."""

    def keep(self, key: str, path: Path) -> None:
        """See `Storage.keep`."""
        target = self._path(key)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)

    def open(self, key: str, begin: int) -> BinaryIO:
        """See `Storage.open`."""
        file = self._path(key).open("rb", buffering=0)
        file.seek(begin)
        return file

    def remove(self, key: str) -> None:
        """See `Storage.remove`."""
        self._path(key).unlink(missing_ok=True)

    def shared_folder(self) -> Path | None:
        """See `Storage.shared_folder`."""
        return self._folder

    def free_bytes(self) -> int:
        """See `Storage.free_bytes`."""
        return shutil.disk_usage(self._folder).free

    def _path(self, key: str) -> Path:
        return path_in(self._folder, key)


STORAGE = DiskStorage
