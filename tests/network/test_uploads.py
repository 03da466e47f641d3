"""Large files, part by part: what a cut, a silent line, a lie or a killed repository leave, and how it goes on."""

import hashlib
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests

from fedbiomed.common.exceptions import FileStoreError
from fedbiomed.common.files import path_in
from fedbiomed.common.transport.http import PART_BYTES, HttpFileStore
from fedbiomed.demo.processes import fedbiomed
from fedbiomed.network.catalogue import Catalogue, Entry
from fedbiomed.network.config import NetworkConfig, save_network
from fedbiomed.network.refusal import Refusal
from fedbiomed.network.serve import RepositoryServer
from fedbiomed.network.shelf import MAX_STREAMS, Shelf
from fedbiomed.network.storage.disk import DiskStorage
from tests.conftest import network_config
from tests.support.brokers import free_port
from tests.support.lines import FaultyLine

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RepositoryServer(network_config(tmp_path_factory.mktemp("uploads"), share_disk=False)) as running:
        yield running


@pytest.fixture
def ask(server):
    """Requests with a token of `node_a`."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token(server.url)}"
        yield lambda method, path, **more: session.request(method, server.url + path, timeout=5, **more)


def token(url: str) -> str:
    return requests.post(f"{url}/v1/tokens", json={"component": "node_a"}, timeout=5).json()["token"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def part_headers(content: bytes, offset: int) -> dict[str, str]:
    return {"X-Offset": str(offset), "X-Sha256": sha256(content[:offset])}


@pytest.fixture
def upload(ask):
    """An announced upload of 300 bytes: its content, its key, and a function that sends a part."""
    content = os.urandom(300)
    key = ask("POST", "/v1/uploads", headers={"X-File-Size": "300"}).json()["key"]

    def send(offset: int, part: bytes, **more: str):
        return ask("PATCH", f"/v1/uploads/{key}", headers={**part_headers(content, offset), **more}, data=part)

    return content, key, send


def test_parts_follow_each_other(ask, upload):
    content, key, send = upload
    assert send(100, content[100:200]).status_code == 409
    assert send(0, content[:100]).json() == {"offset": 100}
    assert send(0, content[:100]).status_code == 409
    assert ask("GET", f"/v1/uploads/{key}").json() == {"offset": 100}
    assert ask("GET", f"/v1/files/{key}").status_code == 409
    assert send(100, content[100:] + b"more").status_code == 413
    assert send(100, content[100:]).json() == {"offset": 300}
    assert ask("GET", f"/v1/files/{key}").status_code == 409
    assert send(300, b"").json() == {"offset": 300}
    assert ask("GET", f"/v1/files/{key}").content == content


def test_a_whole_file_never_changes(ask, upload):
    content, key, send = upload
    assert send(0, content).ok
    assert send(300, b"").ok
    assert send(300, b"").json() == {"offset": 300}
    assert ask("GET", f"/v1/uploads/{key}").json() == {"offset": 300}
    for answer in (send(0, b"other"), send(300, b"", **{"X-Sha256": "0" * 64})):
        assert answer.status_code == 409
        assert "never changes" in answer.json()["error"]


def test_what_was_changed_on_its_way_is_dropped_and_sent_again(ask, upload):
    content, key, send = upload
    assert send(0, content[:100]).ok
    assert send(100, b"x" * 100).json() == {"offset": 200}
    answer = send(200, content[200:])
    assert answer.status_code == 409
    assert "go on from 100" in answer.json()["error"]
    assert send(100, content[100:]).ok
    assert send(300, b"").ok
    assert ask("GET", f"/v1/files/{key}").content == content


def test_a_first_part_that_follows_something_else_is_refused(upload):
    content, _, send = upload
    answer = send(0, content, **{"X-Sha256": "0" * 64})
    assert answer.status_code == 409
    assert "go on from 0" in answer.json()["error"]
    assert send(0, content).json() == {"offset": 300}


@pytest.mark.parametrize("header", ["X-Offset", "X-Sha256"])
@pytest.mark.parametrize("value", ["", "-1", "1e3", "x" * 64, "9" * 30])
def test_a_part_with_a_wrong_header_is_refused(upload, header, value):
    _, _, send = upload
    assert send(0, b"abc", **{header: value}).status_code == 422


def test_a_later_request_takes_over_from_one_that_hangs(server, ask, upload):
    content, key, send = upload
    address = urlsplit(server.url)
    hanging = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    try:
        hanging.putrequest("PATCH", f"/v1/uploads/{key}")
        about = {"Authorization": f"Bearer {token(server.url)}", "Content-Length": "300", **part_headers(content, 0)}
        for name, value in about.items():
            hanging.putheader(name, value)
        hanging.endheaders()
        hanging.send(content[:100])
        answer = send(0, content).json()
        while answer == {"error": "another request goes on with this file"}:  # the hanging one was taken up after ours
            answer = send(0, content).json()
        assert answer == {"offset": 300}
        assert send(300, b"").ok
        hanging.send(b"y" * 200)
        assert hanging.getresponse().status == 409
    finally:
        hanging.close()
    assert ask("GET", f"/v1/files/{key}").content == content


@pytest.mark.parametrize("size", [3 * MEGABYTE, PART_BYTES + 3 * MEGABYTE])
@pytest.mark.parametrize("is_silent", [False, True])
def test_an_upload_goes_on_after_a_cut(server, tmp_path, size, is_silent):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    with FaultyLine(server.url, "up", size - 2 * MEGABYTE, is_silent=is_silent) as line:
        with HttpFileStore(line.url, "node_a", timeout_s=0.5) as store:
            ref = store.put(tmp_path / "a")
        assert line.failed.is_set()
        assert line.passed["up"] < size + PART_BYTES * 11 // 10
    with HttpFileStore(server.url, "node_b") as store:
        store.get(ref, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_download_goes_on_after_a_cut(server, tmp_path):
    content = os.urandom(3 * MEGABYTE)
    (tmp_path / "a").write_bytes(content)
    with HttpFileStore(server.url, "node_a") as store:
        ref = store.put(tmp_path / "a")
    with FaultyLine(server.url, "down", MEGABYTE) as line:
        with HttpFileStore(line.url, "node_a") as store:
            store.get(ref, tmp_path / "b")
        assert b"Range: bytes=" in line.sent
        assert line.passed["down"] < len(content) + MEGABYTE
    assert (tmp_path / "b").read_bytes() == content


def test_a_file_that_changes_while_it_is_sent_is_not_kept(server, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(PART_BYTES + 3 * MEGABYTE))

    def cut_short() -> None:
        os.truncate(path, PART_BYTES)

    with (
        FaultyLine(server.url, "up", MEGABYTE, on_fault=cut_short) as line,
        HttpFileStore(line.url, "node_a") as store,
        pytest.raises(FileStoreError, match="became shorter"),
    ):
        store.put(path)


class Started:
    """A repository process in a folder."""

    def __init__(self, folder, port: int) -> None:
        save_network(NetworkConfig(root=folder, share_disk=False))
        command = fedbiomed("network", "start", "--dir", str(folder), "--no-broker", "--http-port", str(port))
        with (folder / "stderr.txt").open("w+", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            said = self.process.stdout.readline()
            assert "http=" in said, (self.process.wait(20), (folder / "stderr.txt").read_text(encoding="utf-8"))
        self.url = said.split("http=")[1].strip()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=20)


def test_a_line_fails_once_however_much_passes_while_it_fails(server):
    """A client that connects again at once must not have the repository killed a second time."""
    calls, again = [], threading.Event()

    def on_fault() -> None:
        calls.append(1)
        assert requests.get(f"{line.url}/v1/health", timeout=5).ok
        again.set()

    with FaultyLine(server.url, "up", 10, on_fault=on_fault) as line:
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{line.url}/v1/health", timeout=5)
        assert again.wait(5)
    assert len(calls) == 1


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_survives_a_killed_repository(tmp_path, direction):
    size = 2 * PART_BYTES + 5 * MEGABYTE
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    port = free_port()
    processes = [Started(tmp_path / "n", port)]

    def restart() -> None:
        processes[0].end(signal.SIGKILL)
        processes.append(Started(tmp_path / "n", port))

    try:
        with FaultyLine(processes[0].url, direction, PART_BYTES + MEGABYTE, on_fault=restart) as line:
            with HttpFileStore(line.url, "node_a") as store:
                ref = store.put(tmp_path / "a")
                store.get(ref, tmp_path / "b")
            assert line.failed.is_set()
            assert line.passed[direction] < size + PART_BYTES * 11 // 10
    finally:
        processes[-1].end(signal.SIGTERM)
    assert (tmp_path / "b").read_bytes() == content
    assert list((tmp_path / "n" / "var" / "growing").iterdir()) == []


@pytest.fixture(scope="module")
def sharing(tmp_path_factory):
    with RepositoryServer(network_config(tmp_path_factory.mktemp("sharing"), max_file_bytes=100)) as running:
        yield running


@pytest.mark.parametrize(("name", "status"), [("../../x", 422), ("f" * 32, 409), ("folder", 409), ("link", 409), ("short", 409)])
def test_only_a_plain_file_of_the_shared_folder_is_taken_over(sharing, tmp_path, name, status):
    incoming = sharing._config.var / "files" / "incoming"
    made = {"folder": "a" * 32, "link": "b" * 32, "short": "c" * 32}.get(name, name)
    if name == "folder":
        (incoming / made).mkdir()
    elif name == "link":
        (tmp_path / "x").write_bytes(b"abc")
        (incoming / made).symlink_to(tmp_path / "x")
    elif name == "short":
        (incoming / made).write_bytes(b"ab")
    about = {"Authorization": f"Bearer {token(sharing.url)}", "X-Incoming": made, "X-File-Size": "3", "X-File-Sha256": sha256(b"abc")}
    assert requests.post(f"{sharing.url}/v1/files", headers=about, timeout=5).status_code == status


def test_a_refused_file_leaves_nothing_in_the_shared_folder(sharing, tmp_path):
    (tmp_path / "a").write_bytes(bytes(101))
    incoming = sharing._config.var / "files" / "incoming"
    with HttpFileStore(sharing.url, "node_a") as store:
        store.discard("nothing")
        before = sorted(incoming.iterdir())
        with pytest.raises(FileStoreError, match="at most 100"):
            store.put(tmp_path / "a")
        assert sorted(incoming.iterdir()) == before


def test_what_was_changed_in_the_shared_folder_is_not_fetched(sharing, tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with HttpFileStore(sharing.url, "node_a") as store:
        ref = store.put(tmp_path / "a")
        path_in(sharing._config.var / "files", ref.key).write_bytes(b"abd")
        with pytest.raises(FileStoreError, match="SHA-256 differs"):
            store.get(ref, tmp_path / "b")
    assert not (tmp_path / "b").exists()


class FullStorage(DiskStorage):
    """A disk on which the last byte finds no room."""

    def keep(self, key, path):
        raise OSError(28, "No space left on device")


def shelf_of(folder, catalogue, storage=DiskStorage, **limits) -> Shelf:
    for name in ("files/incoming", "growing"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Shelf(catalogue, storage(folder / "files"), folder / "growing", network_config(folder, **limits))


def test_a_disk_that_becomes_full_keeps_no_half_file(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue, FullStorage)
        entry = shelf.announce(owner="node_a", experiment="", readers=(), size=3)
        with pytest.raises(Refusal, match="disk is full") as refused:
            shelf.store(entry, sha256(b"abc"), iter([b"abc"]))
        assert refused.value.status == 507
        assert catalogue.find(entry.key) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file() and re.fullmatch("[0-9a-f]{32}", path.name)] == []


def test_an_upload_that_nobody_goes_on_with_is_forgotten(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue)
        old = Entry(key="0" * 32, owner="node_a", experiment="", readers=(), size=3, used_at=time.time() - 90_000)
        kept = Entry(key="1" * 32, owner="node_a", experiment="", readers=(), size=3, sha256=sha256(b"abc"), used_at=time.time() - 90_000)
        for entry in (old, kept):
            catalogue.add(entry)
            (tmp_path / "growing" / entry.key).write_bytes(b"ab")
        shelf.announce(owner="node_b", experiment="", readers=(), size=3)
        assert (catalogue.find(old.key), catalogue.find(kept.key)) == (None, kept)
    assert not (tmp_path / "growing" / old.key).exists()


def test_an_upload_that_goes_on_for_long_is_not_forgotten(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue)
        catalogue.add(Entry(key="0" * 32, owner="node_a", experiment="", readers=(), size=3, used_at=time.time() - 90_000))
        assert shelf.append(catalogue.find("0" * 32), 0, sha256(b""), iter([b"ab"])) == 2
        shelf.announce(owner="node_b", experiment="", readers=(), size=3)
        assert shelf.append(catalogue.find("0" * 32), 2, sha256(b"ab"), iter([b"c"])) == 3


def test_a_disk_without_room_for_the_catalogue_is_said(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue)
        catalogue._run("PRAGMA max_page_count = 1")  # as many as there are now
        with pytest.raises(Refusal, match="disk is full") as refused:
            shelf.announce(owner="node_a", experiment="", readers=("x" * 100,) * 10_000, size=3)
        assert refused.value.status == 507


def test_a_file_in_use_does_not_age(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue)
        entry = shelf.announce(owner="node_a", experiment="", readers=(), size=3)
        shelf.store(entry, sha256(b"abc"), iter([b"abc"]))
        catalogue.touch(entry.key, 0.9 * time.time())
        assert shelf.find(entry.key) is None
        catalogue.touch(entry.key, time.time() - 5000)
        shelf.open(catalogue.find(entry.key), 0).close()
        assert catalogue.find(entry.key).used_at == pytest.approx(time.time(), abs=60)


def test_a_component_sends_few_files_at_a_time(tmp_path):
    going, release = threading.Semaphore(0), threading.Event()

    def slow():
        going.release()
        assert release.wait(10)
        yield b"abc"

    with Catalogue(tmp_path / "c.sqlite") as catalogue:
        shelf = shelf_of(tmp_path, catalogue)

        def store(owner, chunks):
            shelf.store(shelf.announce(owner=owner, experiment="", readers=(), size=3), sha256(b"abc"), chunks)

        threads = [threading.Thread(target=store, args=("node_a", slow())) for _ in range(MAX_STREAMS)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert going.acquire(timeout=10)
        with pytest.raises(Refusal, match="node_a sends 6 files already") as refused:
            store("node_a", iter([b"abc"]))
        assert refused.value.status == 429
        store("node_b", iter([b"abc"]))
        release.set()
        for thread in threads:
            thread.join(10)
        store("node_a", iter([b"abc"]))
        assert len(catalogue.keys_of("node_a", "")) == MAX_STREAMS + 1
