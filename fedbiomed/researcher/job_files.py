"""The files of a job: where they lie on this machine, and under which reference in the repository."""

import atexit
import contextlib
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedJobError, FedbiomedRepositoryError
from fedbiomed.common.files import FileRef, sha256_of_file
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.transport import EVERYONE, FileStore

logger = logging.getLogger(__name__)


class JobFiles:
    """Writes, uploads and fetches; every name it gives is new.

    Args:
        store: the repository.
        job_id: whose files they are.
        folder: where they lie on this machine; None: a temporary folder that goes with the process.
        readers: ids of the nodes that may fetch them; none: everyone in the federation.
        shelf_bytes: files of past rounds are taken out of the repository together, once they are this much.

    Raises:
        FedbiomedJobError: there is no such folder, and it cannot be made.
    """

    def __init__(
        self, store: FileStore, job_id: str, folder: str | Path | None, readers: Sequence[str], *, shelf_bytes: int = 64 << 20
    ) -> None:
        self.store = store
        self._job_id, self._readers = job_id, tuple(readers) or EVERYONE
        self._is_temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="fedbiomed-job-")) if folder is None else _folder(folder)
        if self._is_temporary:
            atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self._refs: dict[str, FileRef] = {}
        self._arguments: dict[str, dict[str, str]] = {}
        self._made: list[Path] = []
        self._shelf_count, self._shelf_bytes, self._shelf_limit = 0, 0, shelf_bytes
        self._shelves: dict[str, set[str]] = {self._shelf_name(): set()}
        self._own_shelves: dict[str, set[str]] = {}

    def new_path(self, prefix: str, suffix: str = ".mpk") -> Path:
        """A name in the folder that nobody has: `<prefix>_<uuid4><suffix>`."""
        path = self.folder / f"{prefix}_{uuid.uuid4()}{suffix}"
        self._made.append(path)
        return path

    def dump(self, prefix: str, content: object) -> Path:
        """Write something with the Serializer under a new name.

        Raises:
            FedbiomedJobError: the disk refuses it.
        """
        path = self.new_path(prefix)
        try:
            Serializer.dump(content, path)
        except OSError as error:
            raise FedbiomedJobError(
                f"{ErrorNumbers.FB411.value}: cannot write {path}: {error.strerror}; is the disk full or the folder gone?"
            ) from error
        return path

    def upload(self, path: Path) -> str:
        """Store a file for as long as the job lives; returns its URL, which `ref` understands.

        Raises:
            FedbiomedRepositoryError: not reachable, or it refused.
        """
        return self._put(path, self._job_id)

    def upload_argument(self, name: str, value: object) -> dict[str, str]:
        """Write and store a large argument; a content that was stored before is used again.

        Returns:
            `{"arg_name", "filename", "url"}`.
        """
        path = self.dump(name, value)
        digest = sha256_of_file(path)
        if digest not in self._arguments:
            self._arguments[digest] = {"arg_name": name, "filename": str(path), "url": self.upload_for_round(path)}
        else:
            path.unlink()
        return {**self._arguments[digest], "arg_name": name}

    def split_arguments(self, args: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, FileRef]]:
        """Small arguments as they are, and the references of those that `upload_argument` stored, both by name."""
        large = {
            name: self._refs[value["url"]]
            for name, value in args.items()
            if isinstance(value, Mapping) and value.get("arg_name") == name and value.get("url") in self._refs
        }
        return {name: value for name, value in args.items() if name not in large}, large

    def upload_params(self, path: Path) -> str:
        """Store the parameters of a round; they go when later ones have taken their place, see `drop_before`."""
        if self._shelf_bytes >= self._shelf_limit:
            self._shelf_count, self._shelf_bytes = self._shelf_count + 1, 0
            self._shelves[self._shelf_name()] = set()
        return self.upload_for_round(path)

    def upload_for_round(self, path: Path, readers: Sequence[str] = ()) -> str:
        """Store a file beside the parameters of the round, with which it goes; for these readers only, if any are named."""
        url = self._put(path, self._shelf_name(), readers)
        self._shelf_bytes += path.stat().st_size
        self._shelves[self._shelf_name()].add(url)
        return url

    def upload_own(self, path: Path, node_id: str, shelf: str) -> str:
        """Store a file for one node, which alone may fetch it, on a shelf with a name; it goes with `discard_own`."""
        name = f"{self._job_id}.{shelf}"
        self._own_shelves.setdefault(name, set())
        url = self._put(path, name, (node_id,))
        self._own_shelves[name].add(url)
        return url

    def discard_own(self, kind: str, needed: Iterable[str]) -> None:
        """Take those shelves of `upload_own` whose names begin so out of the repository, but for those with a URL that is needed."""
        kept, beginning = set(needed), f"{self._job_id}.{kind}"
        for name in [name for name, urls in self._own_shelves.items() if name.startswith(beginning) and not urls & kept]:
            for gone in self._own_shelves.pop(name):
                del self._refs[gone]
            self._discard(name)

    def drop_before(self, url: str) -> None:
        """Take out of the repository what was stored for rounds before these parameters, shelf by shelf."""
        for name in list(self._shelves):
            if url in self._shelves[name]:
                return
            for gone in self._shelves.pop(name):
                del self._refs[gone]
            self._arguments.clear()
            self._discard(name)

    def ref(self, url: str) -> FileRef:
        """The reference behind a URL that this object gave."""
        return self._refs[url]

    def fetch(self, ref: FileRef, prefix: str) -> Path:
        """Fetch a file that a node stored, whole and checked, under a new name.

        Raises:
            FedbiomedRepositoryError: not reachable, not there, or not what was announced.
        """
        path = self.new_path(prefix)
        self.store.get(ref, path)
        return path

    def discard(self) -> None:
        """Take all of the job's files out of the repository; what cannot be reached is left to age out."""
        for name in [self._job_id, *self._shelves, *self._own_shelves]:
            self._discard(name)

    def abandon(self) -> None:
        """Undo everything: nothing is left here nor in the repository."""
        self.discard()
        for path in self._made:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _put(self, path: Path, shelf: str, readers: Sequence[str] = ()) -> str:
        ref = self.store.put(path, experiment=shelf, readers=tuple(readers) or self._readers)
        url = self.store.url(ref)
        self._refs[url] = ref
        return url

    def _shelf_name(self) -> str:
        return f"{self._job_id}.{self._shelf_count}"

    def _discard(self, name: str) -> None:
        try:
            self.store.discard(name)
        except FedbiomedRepositoryError as error:
            logger.warning("files of %s stay in the repository until they age out: %s", name, error)


def _folder(given: str | Path) -> Path:
    try:
        folder = Path(given).absolute()
        folder.mkdir(parents=True, exist_ok=True)
    except (TypeError, OSError) as error:
        raise FedbiomedJobError(f"{ErrorNumbers.FB411.value}: keep_files_dir {given!r:.200} is no folder to write into: {error}") from error
    return folder
