"""Files that are written whole or not at all, and the reference by which they travel."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KEY_PATTERN = re.compile(r"[0-9a-f]{32}")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
INCOMING = "incoming"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file in the repository: where it lies and what it must be.

    Args:
        key: 32 lower-case hex digits, drawn by the repository.
        sha256: 64 lower-case hex digits of the content.
        size: bytes.

    Raises:
        ValueError: a field is not of that form.
    """

    key: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not KEY_PATTERN.fullmatch(self.key):
            raise ValueError(f"a file key has 32 hex digits, not {self.key!r:.80}")
        if not isinstance(self.sha256, str) or not SHA256_PATTERN.fullmatch(self.sha256):
            raise ValueError(f"a SHA-256 has 64 hex digits, not {self.sha256!r:.80}")
        if type(self.size) is not int or self.size < 0:
            raise ValueError(f"a file has a size of 0 bytes or more, not {self.size!r:.80}")


def path_in(folder: Path, key: str) -> Path:
    """Where a repository's folder keeps a file."""
    return folder / key[:2] / key


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written_whole(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a file beside its place and rename it there when the block ends well.

    A reader sees the old file or the new one, never a part. When the block raises, nothing is left behind.

    Args:
        path: where the file shall lie; its folder must exist.
        sync: also wait until the disk holds it (some milliseconds): for what cannot be made again.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
        if sync:
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write bytes to a file, whole or not at all; see `written_whole`."""
    with written_whole(path, sync=sync) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Wait until the disk holds the names in a folder (a rename is lost by a power cut before that)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link where the disk has them, else a copy."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as reader, written_whole(target) as writer:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
