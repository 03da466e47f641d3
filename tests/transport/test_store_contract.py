"""What every `FileStore` does: in memory, and over HTTP against a real repository."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from fedbiomed.common.exceptions import FedbiomedRepositoryError, FileStoreError
from fedbiomed.common.files import FileRef
from fedbiomed.common.transport.http import PART_BYTES, HttpFileStore
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.network.serve import RepositoryServer
from tests.conftest import network_config


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """Repositories that send files, and that hand them over on the disk."""
    with (
        RepositoryServer(network_config(tmp_path_factory.mktemp("sends"), share_disk=False)) as sends,
        RepositoryServer(network_config(tmp_path_factory.mktemp("shares"))) as shares,
    ):
        yield {"http": sends.url, "shared disk": shares.url}


@pytest.fixture(params=["memory", "http", "shared disk"])
def store_of(request, urls):
    """Makes the store of a component; all of them share the files."""
    shared, made = MemoryFiles(), []

    def make(component: str):
        store = MemoryFileStore(shared, component) if request.param == "memory" else HttpFileStore(urls[request.param], component)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, 40_000, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 12_345])
def test_a_file_comes_back_as_it_was(store_of, tmp_path, size):
    content = os.urandom(size)
    ref = store_of("researcher_a").put(written(tmp_path / "a", content), experiment="job_1")
    assert ref.size == size
    assert ref.sha256 == hashlib.sha256(content).hexdigest()
    store_of("node_a").get(ref, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_place_that_cannot_be_written_is_told(store_of, tmp_path):
    store = store_of("researcher_a")
    ref = store.put(written(tmp_path / "a", b"one"))
    with pytest.raises(FileStoreError, match=r"FB200: cannot write .*/nowhere/b: No such file"):
        store.get(ref, tmp_path / "nowhere" / "b")


def test_keys_are_drawn_anew_and_files_never_change(store_of, tmp_path):
    store = store_of("researcher_a")
    first, second = (store.put(written(tmp_path / "a", content)) for content in (b"one", b"two"))
    assert first.key != second.key
    store.get(first, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"one"


def test_only_owner_and_readers_may_read(store_of, tmp_path, request):
    if "shared disk" in request.node.name:
        pytest.skip("on a shared disk in development mode a key is all that is asked for")
    ref = store_of("node_a").put(written(tmp_path / "a", b"mine"), readers=["researcher_a"])
    for component in ("node_a", "researcher_a"):
        store_of(component).get(ref, tmp_path / "b")
    with pytest.raises(FileStoreError, match="node_b may not read"):
        store_of("node_b").get(ref, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_what_is_not_what_was_announced_is_not_kept(store_of, tmp_path):
    store = store_of("node_a")
    ref = store.put(written(tmp_path / "a", b"right"))
    wrong = [FileRef(key=ref.key, sha256="0" * 64, size=5), FileRef(key=ref.key, sha256=ref.sha256, size=4)]
    for lie in wrong:
        with pytest.raises(FileStoreError, match="not the one that was announced"):
            store.get(lie, tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_an_unknown_key_is_said(store_of, tmp_path):
    with pytest.raises(FileStoreError, match="FB202"):
        store_of("node_a").get(FileRef(key="0" * 32, sha256="0" * 64, size=1), tmp_path / "b")


def test_an_experiment_takes_its_files_along(store_of, tmp_path):
    store, other = store_of("researcher_a"), store_of("node_a")
    kept = other.put(written(tmp_path / "a", b"x"), experiment="job_1")
    elsewhere = store.put(tmp_path / "a", experiment="job_2")
    gone = store.put(tmp_path / "a", experiment="job_1")
    store.discard("job_1")
    with pytest.raises(FileStoreError, match="FB202"):
        store.get(gone, tmp_path / "b")
    store.get(kept, tmp_path / "b")
    store.get(elsewhere, tmp_path / "b")


def test_a_missing_local_file_is_said(store_of, tmp_path):
    with pytest.raises(FileStoreError, match="cannot read"):
        store_of("node_a").put(tmp_path / "nothing")


def test_a_place_that_cannot_be_written_is_said(store_of, tmp_path):
    store = store_of("node_a")
    ref = store.put(written(tmp_path / "a", b"x"))
    with pytest.raises(FileStoreError, match="cannot write"):
        store.get(ref, tmp_path / "nowhere" / "b")


def test_a_url_names_the_key(store_of, tmp_path):
    store = store_of("node_a")
    ref = store.put(written(tmp_path / "a", b"x"))
    assert store.url(ref).startswith("http://")
    assert store.url(ref).endswith(ref.key)


def test_threads_share_a_store(store_of, tmp_path):
    store, faults = store_of("node_a"), []

    def work(index: int) -> None:
        content = bytes([index]) * 10_000
        try:
            ref = store.put(written(tmp_path / f"a{index}", content))
            store.get(ref, tmp_path / f"b{index}")
            if (tmp_path / f"b{index}").read_bytes() != content:
                faults.append(index)
        except FedbiomedRepositoryError as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert faults == []
