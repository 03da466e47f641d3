"""`FileStore` over HTTP: raw streams with a declared length, in parts that go on after a cut, checked at both ends.

A file of up to 8 MiB is one request. A larger one, or one whose request was cut, goes in parts: each names its offset and the SHA-256 of
everything before it. So every byte is hashed once at either end, while it travels, and what came before a cut stands, even half a
part; after a cut the repository says how far it came. A hash for each part by itself was refused: the whole would have to be hashed
again. A download that was cut goes on with `Range`. No redirect is followed, and the address is the configured one, never one from a
message.

Where component and repository see the same disk, files are handed over by a copy on it; only the component hashes then, once, as it
copies: there is no line on which the content could change, and who fetches hashes again.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from urllib3.exceptions import HTTPError

from fedbiomed.common.exceptions import FileStoreError
from fedbiomed.common.files import INCOMING, FileRef, path_in, written_whole
from fedbiomed.common.transport.http_line import ConflictError, Cut, Line, cause_of, text_of
from fedbiomed.common.transport.transport import EVERYONE

PART_BYTES = 8 << 20
_PIECE_BYTES = 128 << 10
_MAX_CONFLICTS = 3


class HttpFileStore:
    """A component's access to the repository; may be used by several threads.

    Args:
        base_url: of the repository, `http://localhost:8844` for instance.
        component_id: who stores and fetches.
        timeout_s: how long to try to reach it, and how long one answer may take.
        secret: what the component was given at its enrolment; None in development mode.
    """

    def __init__(self, base_url: str, component_id: str, *, timeout_s: float = 10.0, secret: str | None = None) -> None:
        self._line = Line(base_url, component_id, timeout_s=timeout_s, secret=secret)

    def put(self, path: Path, *, experiment: str = "", readers: Sequence[str] = EVERYONE) -> FileRef:
        """See `FileStore.put`."""
        about = {"X-Experiment": experiment, "X-Readers": ",".join(readers)}
        try:
            with path.open("rb", buffering=0) as file:
                size = path.stat().st_size
                if (folder := self._line.shared_folder()) is not None:
                    return self._hand_over(_HashedFile(file), folder, size, about)
                if size <= PART_BYTES:
                    try:
                        return self._put_at_once(file.read(), about)
                    except Cut:  # a line that does not carry it in one piece may carry it in parts
                        file.seek(0)
                return self._put_in_parts(_HashedFile(file), size, about)
        except OSError as error:
            raise FileStoreError(f"FB200: cannot read {path}: {error.strerror or error}") from error

    def get(self, ref: FileRef, path: Path) -> None:
        """See `FileStore.get`."""
        digest = hashlib.sha256()
        try:
            with written_whole(path) as file:
                if not self._take_over(ref, file, digest):
                    self._line.retried(lambda: self._receive(ref, file, digest), progress=file.tell)
                if digest.hexdigest() != ref.sha256:
                    raise _other_file(ref, "its SHA-256 differs: it was changed in the repository or on its way")
        except OSError as error:
            raise FileStoreError(f"FB200: cannot write {path}: {error.strerror or error}") from error

    def url(self, ref: FileRef) -> str:
        """See `FileStore.url`."""
        return f"{self._line.base_url}/v1/files/{ref.key}"

    def discard(self, experiment: str) -> None:
        """See `FileStore.discard`."""
        self._line.retried(lambda: self._line.ask("DELETE", f"/v1/experiments/{experiment}"))

    def close(self) -> None:
        """See `FileStore.close`."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_over(self, source: "_HashedFile", folder: Path, size: int, about: dict[str, str]) -> FileRef:
        """Store by a copy on the disk, not a link: the repository's files never change, whatever becomes of ours."""
        incoming = folder / INCOMING / secrets.token_hex(16)
        try:
            try:
                with incoming.open("xb") as file:
                    file.writelines(source.pieces(size))
            except OSError as error:
                raise FileStoreError(f"FB200: cannot copy into the repository's folder {folder}: {error.strerror or error}") from error
            sha256 = source.sha256
            headers = {**about, "X-File-Sha256": sha256, "X-Incoming": incoming.name, "X-File-Size": str(size)}
            answer = self._line.retried(lambda: self._line.ask("POST", "/v1/files", headers=headers))
        finally:
            incoming.unlink(missing_ok=True)
        return FileRef(key=text_of(answer, "key"), sha256=sha256, size=size)

    def _take_over(self, ref: FileRef, file: BinaryIO, digest: Any) -> bool:
        """Fetch by a copy on the disk, where the file is to be had there; if not, the repository will say why."""
        folder = self._line.shared_folder()
        try:
            source = None if folder is None else path_in(folder, ref.key).open("rb", buffering=0)
        except OSError:
            return False
        if source is None:
            return False
        with source:
            size = os.fstat(source.fileno()).st_size
            if size != ref.size:
                raise _other_file(ref, f"it has {size} bytes instead of {ref.size}")
            while piece := source.read(_PIECE_BYTES):
                digest.update(piece)
                file.write(piece)
        return True

    def _put_at_once(self, content: bytes, about: dict[str, str]) -> FileRef:
        sha256 = hashlib.sha256(content).hexdigest()
        body = iter((content,)) if len(content) <= _PIECE_BYTES else _pieces(content)
        headers = {**about, "X-File-Sha256": sha256, "Content-Length": str(len(content))}
        answer = self._line.ask("POST", "/v1/files", headers=headers, body=body)
        return FileRef(key=text_of(answer, "key"), sha256=sha256, size=len(content))

    def _put_in_parts(self, source: "_HashedFile", size: int, about: dict[str, str]) -> FileRef:
        headers = {**about, "X-File-Size": str(size)}
        key = text_of(self._line.retried(lambda: self._line.ask("POST", "/v1/uploads", headers=headers)), "key")
        upload = _Upload(self._line, key, size, source)
        self._line.retried(upload.go_on, progress=lambda: source.furthest)
        return FileRef(key=key, sha256=source.sha256, size=size)

    def _receive(self, ref: FileRef, file: BinaryIO, digest: Any) -> None:
        """Append what is still missing; what came before a cut is kept."""
        begin = file.tell()
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        answer = self._line.ask("GET", f"/v1/files/{ref.key}", headers=headers, is_streamed=True)
        try:
            if begin and answer.status != 206:
                raise FileStoreError(f"FB203: {self.url(ref)} does not go on after a cut: is it a repository of this release?")
            length = answer.headers.get("Content-Length")
            if length != str(ref.size - begin):
                raise _other_file(ref, f"{length} bytes came instead of {ref.size - begin}")
            for piece in answer.stream(_PIECE_BYTES):
                if file.tell() + len(piece) > ref.size:  # in chunks as much may come as likes
                    raise _other_file(ref, f"more than {ref.size} bytes came")
                digest.update(piece)
                file.write(piece)
        except HTTPError as error:
            raise Cut(cause_of(error)) from error
        finally:
            answer.close()
            answer.release_conn()


class _Upload:
    """A file that goes to the repository in parts."""

    def __init__(self, line: Line, key: str, size: int, source: "_HashedFile") -> None:
        self.offset = 0
        self._line = line
        self._path = f"/v1/uploads/{key}"
        self._size = size
        self._source = source
        self._is_offset_known = True
        self._conflicts = 0

    def go_on(self) -> None:
        """Send what is still missing; the empty part at the end confirms the whole.

        Raises:
            Cut: the line was cut; call again.
            FileStoreError: refused.
        """
        if not self._is_offset_known:
            self.offset = self._number(self._line.ask("GET", self._path))
        while not self._send_part():
            pass

    def _send_part(self) -> bool:
        self._source.seek(self.offset)
        count = min(PART_BYTES, self._size - self.offset)
        headers = {"X-Offset": str(self.offset), "X-Sha256": self._source.sha256, "Content-Length": str(count)}
        self._is_offset_known = False
        try:
            answer = self._line.ask("PATCH", self._path, headers=headers, body=self._source.pieces(count))
        except ConflictError as error:  # it has another offset, or what it has is not what was sent
            self._conflicts += 1
            if self._conflicts > _MAX_CONFLICTS:
                raise
            raise Cut(str(error)) from error
        self.offset, self._is_offset_known = self._number(answer), True
        return not count

    def _number(self, answer: Any) -> int:
        text = text_of(answer, "offset")
        if not text.isdecimal() or int(text) > self._size:
            raise FileStoreError(f"FB203: the repository has {text!r:.40} bytes of a file of {self._size}: is it of this release?")
        return int(text)


class _HashedFile:
    """A file that is read from front to back, with the SHA-256 of what was read so far.

    Attributes:
        furthest: bytes that have been read at least once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.furthest = 0
        self._file = file
        self._offset = 0
        self._digest = hashlib.sha256()
        self._mark = (0, self._digest.copy())

    @property
    def sha256(self) -> str:
        """Of everything before the place where it stands."""
        return self._digest.hexdigest()

    def seek(self, offset: int) -> None:
        """Stand at an offset; what lies before it is read again where that is needed."""
        if offset != self._offset:
            self._offset, digest = self._mark if self._mark[0] <= offset else (0, hashlib.sha256())
            self._digest = digest.copy()
            self._file.seek(self._offset)
            for _ in self.pieces(offset - self._offset):
                pass
        self._mark = (offset, self._digest.copy())

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next bytes.

        Raises:
            FileStoreError: the file ends before.
        """
        while count:
            piece = self._file.read(min(count, _PIECE_BYTES))
            if not piece:
                raise FileStoreError("FB200: the file became shorter while it was stored; nothing may change it meanwhile")
            self._digest.update(piece)
            self._offset += len(piece)
            self.furthest = max(self.furthest, self._offset)
            count -= len(piece)
            yield piece


def _pieces(content: bytes) -> Iterator[bytes]:
    """In pieces, because the whole of what is handed to a socket must be on its way before the timeout."""
    return (content[begin : begin + _PIECE_BYTES] for begin in range(0, len(content), _PIECE_BYTES))


def _other_file(ref: FileRef, difference: str) -> FileStoreError:
    return FileStoreError(f"FB203: the file {ref.key} is not the one that was announced: {difference}")
