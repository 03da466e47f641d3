"""`FileStore` inside one process: for tests and simulations, with the same rules as the repository."""

import hashlib
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedbiomed.common.exceptions import FileStoreError
from fedbiomed.common.files import FileRef, write_whole
from fedbiomed.common.transport.transport import EVERYONE


@dataclass(frozen=True, slots=True)
class _Entry:
    content: bytes
    owner: str
    experiment: str
    readers: frozenset[str]


class MemoryFiles:
    """What several stores of one process share."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def add(self, entry: _Entry) -> str:
        """Keep a file; returns its key."""
        key = secrets.token_hex(16)
        with self._lock:
            self._entries[key] = entry
        return key

    def find(self, key: str) -> _Entry | None:
        """The file under a key, if there is one."""
        with self._lock:
            return self._entries.get(key)

    def discard(self, owner: str, experiment: str) -> None:
        """Forget what a component stored for an experiment."""
        with self._lock:
            self._entries = {k: e for k, e in self._entries.items() if (e.owner, e.experiment) != (owner, experiment)}


class MemoryFileStore:
    """One component's view of shared files.

    Args:
        shared: the files.
        component_id: who stores and fetches.
    """

    def __init__(self, shared: MemoryFiles, component_id: str) -> None:
        self._shared = shared
        self._component_id = component_id

    def put(self, path: Path, *, experiment: str = "", readers: Sequence[str] = EVERYONE) -> FileRef:
        """See `FileStore.put`."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FileStoreError(f"FB200: cannot read {path}: {error.strerror}") from error
        key = self._shared.add(_Entry(content, self._component_id, experiment, frozenset(readers)))
        return FileRef(key=key, sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    def get(self, ref: FileRef, path: Path) -> None:
        """See `FileStore.get`."""
        entry = self._shared.find(ref.key)
        if entry is None:
            raise FileStoreError(f"FB202: the repository has no file {ref.key}: it has aged out, or its experiment has ended")
        if self._component_id != entry.owner and not {"*", self._component_id} & entry.readers:
            raise FileStoreError(f"FB203: {self._component_id} may not read the file {ref.key}")
        if len(entry.content) != ref.size or hashlib.sha256(entry.content).hexdigest() != ref.sha256:
            raise FileStoreError(f"FB203: the file {ref.key} is not the one that was announced: its size or SHA-256 differs")
        try:
            write_whole(path, entry.content)
        except OSError as error:
            raise FileStoreError(f"FB200: cannot write {path}: {error.strerror or error}") from error

    def url(self, ref: FileRef) -> str:
        """See `FileStore.url`."""
        return f"http://memory.invalid/files/{ref.key}"

    def discard(self, experiment: str) -> None:
        """See `FileStore.discard`."""
        self._shared.discard(self._component_id, experiment)

    def close(self) -> None:
        """See `FileStore.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
