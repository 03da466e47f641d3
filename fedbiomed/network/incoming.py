"""A file that is coming: it grows in a file of its own until it is whole, and every byte is hashed once, as it comes.

What came before a cut stands, and so does what came before the repository was ended: the file's length says how far it is. A sender
proves with each part that what lies here is what was sent, by the SHA-256 of everything before the part.
"""

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from fedbiomed.network.refusal import Refusal

_READ_BYTES = 1 << 20


class Incoming:
    """One file on its way; requests for it may overlap, the latest one wins.

    A line that was cut without a word keeps its request waiting for a while; the sender must not wait for that one's end.

    Args:
        path: where it grows; what lies there already is taken over.
        size: bytes that it will have.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._lock = threading.Lock()
        self._turn = 0
        self._length = 0
        self._digest = hashlib.sha256()
        self._sure = (0, self._digest.copy())
        self._is_read = False

    def length(self) -> int:
        """Bytes that are here."""
        with self._lock:
            self._read()
            return self._length

    def receive(self, offset: int, sha256: str | None, chunks: Iterable[bytes]) -> str:
        """Append.

        Args:
            offset: where the chunks begin; must be where the file ends now.
            sha256: of everything before; None where nothing is before.
            chunks: what comes; what came before an error stands.

        Returns:
            The SHA-256 of what is here now.

        Raises:
            Refusal: 409 another offset, other content than the hash says (what is not sure is dropped), or a later request has taken
                over; 413 more than announced.
            OSError: the disk is full, for instance.
        """
        with self._lock:
            self._begin(offset, sha256)
            turn = self._turn
        with self._path.open("ab", buffering=0) as file:
            for chunk in chunks:
                self._take(turn, chunk, file.fileno())
        with self._lock:
            return self._digest.hexdigest()

    def _begin(self, offset: int, sha256: str | None) -> None:
        self._read()
        if offset != self._length:
            raise Refusal(409, f"the next part must begin at {self._length}, not at {offset}")
        if sha256 is not None and sha256 != self._digest.hexdigest():
            self._length, digest = self._sure
            self._digest = digest.copy()
            if self._path.exists():  # not before the first part has come
                os.truncate(self._path, self._length)
            raise Refusal(409, f"what came is not what its SHA-256 says: it was changed on its way; go on from {self._length}")
        self._sure = (self._length, self._digest.copy())
        self._turn += 1

    def _take(self, turn: int, chunk: bytes, file: int) -> None:
        with self._lock:
            if turn != self._turn:
                raise Refusal(409, "another request goes on with this file")
            if self._length + len(chunk) > self._size:
                raise Refusal(413, f"the file was announced with {self._size} bytes, more came")
            view = memoryview(chunk)
            while view:  # a disk that becomes full takes a part of it
                count = os.write(file, view)
                self._digest.update(view[:count])
                self._length += count
                view = view[count:]

    def _read(self) -> None:
        """Hash, once, what an earlier run of the repository has left."""
        if self._is_read:
            return
        self._is_read = True
        try:
            with self._path.open("rb", buffering=0) as file:
                while chunk := file.read(_READ_BYTES):
                    self._digest.update(chunk)
                    self._length += len(chunk)
        except FileNotFoundError:
            return
