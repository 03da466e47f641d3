"""The repository's rules: how much, how long, who, and when a file is whole.

Nothing is synced to disk: what a power cut takes can be sent again, and who fetches checks the SHA-256.
"""

import errno
import logging
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fedbiomed.common.files import INCOMING
from fedbiomed.network.catalogue import Catalogue, Entry
from fedbiomed.network.config import NetworkConfig
from fedbiomed.network.incoming import Incoming
from fedbiomed.network.refusal import Refusal, disk_full
from fedbiomed.network.storage.storage import Storage

logger = logging.getLogger(__name__)
PART_BYTES = 8 << 20
MAX_STREAMS = 6
_CLEAN_EVERY_S = 60.0
_TOUCH_EVERY_S = 3600.0
_ABANDONED_S = 86400.0


class Shelf:
    """Files with their entries, within the limits of the settings.

    Args:
        catalogue: what is known of the files.
        storage: the whole files.
        folder: where files grow until they are whole; it is there.
        limits: sizes, quota, free room and age.
    """

    def __init__(self, catalogue: Catalogue, storage: Storage, folder: Path, limits: NetworkConfig) -> None:
        self._catalogue = catalogue
        self._storage = storage
        self._folder = folder
        self._limits = limits
        self._cleaned_at = -_CLEAN_EVERY_S
        self._lock = threading.Lock()
        self._incoming: dict[str, Incoming] = {}
        self._streams: Counter[str] = Counter()

    def announce(self, *, owner: str, experiment: str, readers: tuple[str, ...], size: int) -> Entry:
        """Take note of a file that will come, if there is room for it.

        Args:
            size: bytes.

        Raises:
            Refusal: 413 too large or over the quota, 507 the disk is full.
        """
        entry = Entry(key=secrets.token_hex(16), owner=owner, experiment=experiment, readers=readers, size=size, used_at=time.time())
        self._clean()
        if size > self._limits.max_file_bytes:
            raise Refusal(413, f"a file of {size} bytes; this repository takes at most {self._limits.max_file_bytes}")
        free = self._storage.free_bytes()
        if free - size < self._limits.min_free_bytes:
            raise Refusal(507, f"the repository's disk has {free} bytes left and keeps {self._limits.min_free_bytes}; make room on it")
        with self._lock:
            used, quota = self._catalogue.bytes_of(owner, experiment), self._limits.quota_bytes
            if used + size > quota:
                raise Refusal(413, f"the experiment has {used} bytes here; with {size} more it would pass its quota of {quota}")
            self._catalogue.add(entry)
        return entry

    def store(self, entry: Entry, sha256: str, chunks: Iterable[bytes]) -> None:
        """Take a file of one request; kept whole or not at all.

        Raises:
            Refusal: 409 the content is not what its hash says; and those of `Incoming.receive`.
        """
        try:
            with self._streaming(entry.owner), _disk():
                found = self._incoming_of(entry).receive(0, None, chunks)
                if found != sha256:
                    raise Refusal(409, "the content is not what its SHA-256 says: it was changed on its way; send it again")
                self._finish(entry, sha256)
        except BaseException:
            self._forget(entry.key)
            raise

    def take(self, entry: Entry, sha256: str, name: str) -> None:
        """Take over a file that a component on the same disk has put into the shared folder; it is not sent, so it is not hashed again.

        Raises:
            Refusal: 409 it is not there, not a plain file or of another size.
        """
        folder = self.shared_folder()
        if folder is None:
            raise Refusal(422, "this repository shares no folder")
        path = folder / INCOMING / name
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                raise Refusal(409, f"no plain file of {entry.size} bytes lies under this name in the shared folder")
            with _disk():
                self._keep(entry, sha256, path)
        except FileNotFoundError as error:
            self._forget(entry.key)
            raise Refusal(409, "the file that was announced is not in the shared folder") from error
        except BaseException:
            self._forget(entry.key)
            raise

    def shared_folder(self) -> Path | None:
        """Where components on the same disk find the files; None where they are to be sent."""
        return self._storage.shared_folder() if self._limits.share_disk else None

    def append(self, entry: Entry, offset: int, sha256: str, chunks: Iterable[bytes]) -> int:
        """Take the next part of a file; the empty part at its end makes it whole.

        Args:
            entry: the file, as it was found for this request.
            offset: where the part begins; must be where the file ends now.
            sha256: of everything before the part.

        Returns:
            How many bytes there are now.

        Raises:
            Refusal: see `Incoming.receive`.
        """
        if entry.is_complete:
            if (offset, sha256) != (entry.size, entry.sha256):
                raise Refusal(409, "this file is whole already and never changes")
            return entry.size
        self._note_use(entry)
        incoming = self._incoming_of(entry)
        with self._streaming(entry.owner), _disk():
            incoming.receive(offset, sha256, chunks)
            if offset < entry.size:
                return incoming.length()
            self._finish(entry, sha256)
        return entry.size

    def length(self, entry: Entry) -> int:
        """How many bytes of a file are here."""
        return entry.size if entry.is_complete else self._incoming_of(entry).length()

    def find(self, key: str) -> Entry | None:
        """The file under a key, if there is one and it has not aged out."""
        entry = self._catalogue.find(key)
        if entry is None or entry.used_at < time.time() - self._limits.max_age_s:
            return None
        return entry

    def open(self, entry: Entry, begin: int) -> BinaryIO:
        """Read a whole file from an offset on.

        Raises:
            Refusal: 404 it has gone meanwhile.
        """
        self._note_use(entry)
        try:
            return self._storage.open(entry.key, begin)
        except FileNotFoundError as error:
            raise Refusal(404, f"the file {entry.key} has gone: its experiment has ended") from error

    def discard(self, owner: str, experiment: str) -> int:
        """Forget what a component stored for an experiment; returns how many files."""
        keys = self._catalogue.keys_of(owner, experiment)
        for key in keys:
            self._forget(key)
        return len(keys)

    def _note_use(self, entry: Entry) -> None:
        now = time.time()
        if now > entry.used_at + _TOUCH_EVERY_S:
            self._catalogue.touch(entry.key, now)

    def _incoming_of(self, entry: Entry) -> Incoming:
        with self._lock:
            return self._incoming.setdefault(entry.key, Incoming(self._folder / entry.key, entry.size))

    def _finish(self, entry: Entry, sha256: str) -> None:
        with self._lock:
            if self._incoming.pop(entry.key, None) is None:
                raise Refusal(409, "another request ends this upload; ask how far it is")
        self._keep(entry, sha256, self._folder / entry.key)

    def _keep(self, entry: Entry, sha256: str, path: Path) -> None:
        self._storage.keep(entry.key, path)
        if not self._catalogue.complete(entry.key, sha256):
            self._storage.remove(entry.key)
            raise Refusal(404, f"the file {entry.key} has gone: its experiment has ended")

    def _forget(self, key: str) -> None:
        """Files first, then the entry: what is cut in between is found again by its entry."""
        with self._lock:
            self._incoming.pop(key, None)
        (self._folder / key).unlink(missing_ok=True)
        self._storage.remove(key)
        self._catalogue.remove(key)

    @contextmanager
    def _streaming(self, owner: str) -> Iterator[None]:
        """Count what a component sends at one time, so that slow lines of one leave room for the others."""
        with self._lock:
            if self._streams[owner] >= MAX_STREAMS:
                raise Refusal(429, f"{owner} sends {MAX_STREAMS} files already; wait for one to end")
            self._streams[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[owner] -= 1
                if not self._streams[owner]:
                    del self._streams[owner]

    def _clean(self) -> None:
        """Remove what has aged out, and uploads that nobody went on with for a day; at most once a minute."""
        with self._lock:
            if time.monotonic() < self._cleaned_at + _CLEAN_EVERY_S:
                return
            self._cleaned_at = time.monotonic()
        now = time.time()
        for key in self._catalogue.keys_before(now - self._limits.max_age_s, incomplete_before=now - _ABANDONED_S):
            logger.info("file %s has aged out", key)
            self._forget(key)
        self._clean_shared(now - _ABANDONED_S)

    def _clean_shared(self, moment: float) -> None:
        """Remove what was put into the shared folder and never handed over."""
        folder = self._storage.shared_folder()
        for path in (folder / INCOMING).iterdir() if folder is not None else ():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < moment:
                    path.unlink()


@contextmanager
def _disk() -> Iterator[None]:
    """Say that the disk is full where it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full() from error
        raise
