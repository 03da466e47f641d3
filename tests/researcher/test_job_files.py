"""Files of a job: which are kept, shared and thrown away."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedJobError, FileStoreError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.researcher.job_files import JobFiles
from tests.support.orders import nowhere


@pytest.fixture
def shared() -> MemoryFiles:
    return MemoryFiles()


@pytest.fixture
def files(shared: MemoryFiles, tmp_path: Path) -> JobFiles:
    return JobFiles(MemoryFileStore(shared, "researcher_1"), "job_1", tmp_path / "job", ["node_a"], shelf_bytes=1000)


def params(files: JobFiles, count: int) -> str:
    """Store parameters of some 8 bytes each."""
    return files.upload_params(files.dump("aggregated_params", {"w": np.zeros(count)}))


def is_there(files: JobFiles, url: str) -> bool:
    try:
        files.fetch(files.ref(url), "copy")
    except (KeyError, FileStoreError):
        return False
    return True


def test_a_folder_that_is_gone_is_said(files: JobFiles) -> None:
    ref = files.ref(params(files, 1))
    shutil.rmtree(files.folder)
    with pytest.raises(FedbiomedJobError, match="is the disk full or the folder gone"):
        files.dump("aggregated_params", {"w": np.zeros(1)})
    with pytest.raises(FileStoreError, match="cannot write"):
        files.fetch(ref, "copy")


def test_the_current_and_the_last_parameters_stay_and_older_ones_go(files: JobFiles) -> None:
    plan = files.upload(files.dump("plan", 1))
    urls = [params(files, 200) for _ in range(4)]
    assert [is_there(files, url) for url in urls] == [True] * 4  # nobody has said yet which are in use
    files.drop_before(urls[2])
    assert [is_there(files, url) for url in urls] == [False, False, True, True]
    files.drop_before(urls[2])
    assert [is_there(files, url) for url in urls] == [False, False, True, True]
    assert is_there(files, plan)


def test_small_parameters_share_a_shelf(files: JobFiles) -> None:
    urls = [params(files, 10) for _ in range(5)]
    files.drop_before(urls[-1])
    assert all(is_there(files, url) for url in urls)


def test_an_argument_that_was_dropped_is_stored_again(files: JobFiles) -> None:
    params(files, 10)
    first = files.upload_argument("correction", {"w": np.ones(200)})
    assert files.upload_argument("other", {"w": np.ones(200)}) == {**first, "arg_name": "other"}
    files.drop_before(params(files, 10))
    again = files.upload_argument("correction", {"w": np.ones(200)})
    assert again["url"] != first["url"]
    assert is_there(files, again["url"])
    small, large = files.split_arguments({"mu": 0.1, "correction": again, "fake": {"arg_name": "fake", "url": "http://elsewhere/x"}})
    assert small == {"mu": 0.1, "fake": {"arg_name": "fake", "url": "http://elsewhere/x"}}
    assert large == {"correction": files.ref(again["url"])}


def test_a_file_that_cannot_be_fetched_leaves_nothing(files: JobFiles) -> None:
    with pytest.raises(FileStoreError):
        files.fetch(nowhere(), "node_params")
    assert list(files.folder.iterdir()) == []


def test_abandoned_files_are_gone_everywhere(files: JobFiles, shared: MemoryFiles) -> None:
    foreign = files.folder / "of_the_user.txt"
    foreign.write_text("stays")
    params(files, 200)
    params(files, 200)
    files.upload(files.dump("plan", 1))
    files.abandon()
    assert shared._entries == {}
    assert list(files.folder.iterdir()) == [foreign]


def test_a_temporary_folder_goes_with_what_is_abandoned(shared: MemoryFiles) -> None:
    files = JobFiles(MemoryFileStore(shared, "researcher_1"), "job_1", None, [])
    path = files.dump("aggregated_params", {"w": 1})
    assert Serializer.load(path) == {"w": 1}
    files.abandon()
    assert not files.folder.exists()
