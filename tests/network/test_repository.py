"""The repository's rules, asked over a real line: tokens, limits, ranges, and that nothing lands outside its folder."""

import hashlib
import http.client
import http.server
import random
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedRepositoryError, FileStoreError
from fedbiomed.common.files import FileRef
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.network.config import NetworkConfig, load_network, save_network
from fedbiomed.network.serve import RepositoryServer
from tests.conftest import network_config

LIMIT, QUOTA = 20 << 20, 30 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    config = network_config(tmp_path_factory.mktemp("strict"), max_file_bytes=LIMIT, quota_bytes=QUOTA, share_disk=False)
    with RepositoryServer(config) as running:
        yield running


@pytest.fixture
def ask(server):
    """Requests with a token of `node_a`."""
    with requests.Session() as session:
        token = session.post(f"{server.url}/v1/tokens", json={"component": "node_a"}, timeout=5).json()["token"]
        session.headers["Authorization"] = f"Bearer {token}"
        yield lambda method, path, **more: session.request(method, server.url + path, timeout=5, **more)


def headers(content: bytes, **more: str) -> dict[str, str]:
    return {"X-File-Sha256": hashlib.sha256(content).hexdigest(), "X-Experiment": "job_1", "X-Readers": "*", **more}


def test_without_a_token_nothing_is_served(server):
    for method, path in (("GET", "/v1/files/" + "0" * 32), ("POST", "/v1/files"), ("DELETE", "/v1/experiments/x")):
        for wrong in ({}, {"Authorization": "Bearer abc"}, {"Authorization": "Basic abc"}):
            answer = requests.request(method, server.url + path, headers=wrong, timeout=5)
            assert answer.status_code == 401
            assert "token" in answer.json()["error"]
    assert requests.get(server.url + "/v1/health", timeout=5).json()["status"] == "ok"


@pytest.mark.parametrize("component", [None, "", "../x", "a b", 3, ["a"], "x" * 200])
def test_a_token_is_for_an_id(server, component):
    assert requests.post(f"{server.url}/v1/tokens", json={"component": component}, timeout=5).status_code == 422


@pytest.mark.parametrize("content", [b"", b"[1]", b'"x"', b"1e999", b"[" * 100_000, b'{"component":' * 50_000, b"\xff"])
def test_a_question_for_a_token_that_is_no_object_is_refused(server, content):
    answer = requests.post(f"{server.url}/v1/tokens", data=content, headers={"Content-Type": "application/json"}, timeout=5)
    assert answer.status_code == 422
    assert "not the id of a component" in answer.json()["error"]


@pytest.mark.parametrize("key", ["..%2f..%2fetc%2fpasswd", "0" * 31, "0" * 33, "G" * 32, "%00" * 16, "0" * 32])
def test_a_key_that_is_none_is_not_found(ask, key):
    answer = ask("GET", f"/v1/files/{key}")
    assert answer.status_code == 404
    assert "error" in answer.json()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"X-File-Sha256": "abc"}, 422),
        ({"X-File-Sha256": ""}, 422),
        ({"X-File-Sha256": "0" * 64}, 409),
        ({"X-Experiment": "../x"}, 422),
        ({"X-Readers": "a/b"}, 422),
    ],
)
def test_a_wrong_header_is_refused_and_nothing_kept(ask, server, change, status):
    folder = server._config.var / "files"
    before = sum(1 for path in folder.rglob("*") if path.is_file())
    answer = ask("POST", "/v1/files", headers=headers(b"abc", **change), data=b"abc")
    assert answer.status_code == status, answer.text
    assert sum(1 for path in folder.rglob("*") if path.is_file()) == before


def test_a_file_above_the_limit_is_refused_before_it_comes(ask):
    answer = ask("POST", "/v1/uploads", headers=headers(b"", **{"X-File-Size": str(LIMIT + 1)}))
    assert answer.status_code == 413
    assert str(LIMIT) in answer.json()["error"]


def test_an_experiment_has_a_quota(server, tmp_path):
    (tmp_path / "a").write_bytes(bytes(16 << 20))
    with HttpFileStore(server.url, "node_q") as store:
        store.put(tmp_path / "a", experiment="job_q")
        with pytest.raises(FileStoreError, match="would pass"):
            store.put(tmp_path / "a", experiment="job_q")
        store.put(tmp_path / "a", experiment="job_r")
        store.discard("job_q")
        store.put(tmp_path / "a", experiment="job_q")


def test_a_full_disk_is_said(tmp_path):
    with RepositoryServer(network_config(tmp_path / "n", min_free_bytes=1 << 60)) as full, HttpFileStore(full.url, "node_a") as store:
        (tmp_path / "a").write_bytes(b"x")
        with pytest.raises(FileStoreError, match="disk has"):
            store.put(tmp_path / "a")


def test_files_age(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    for _ in range(2):
        with (
            RepositoryServer(NetworkConfig(root=tmp_path / "n", mqtt_port=0, http_port=0, max_age_s=1e-6, share_disk=False)) as server,
            HttpFileStore(server.url, "node_a") as store,
        ):
            ref = store.put(tmp_path / "a")
            with pytest.raises(FileStoreError, match="aged out"):
                store.get(ref, tmp_path / "b")
    assert sum(1 for path in (tmp_path / "n" / "var" / "files").rglob("*") if path.is_file()) == 1


def test_nobody_else_goes_on_with_an_upload(ask, server):
    key = ask("POST", "/v1/uploads", headers=headers(b"abcd", **{"X-File-Size": "4"})).json()["key"]
    token = requests.post(f"{server.url}/v1/tokens", json={"component": "node_b"}, timeout=5).json()["token"]
    answer = requests.get(f"{server.url}/v1/uploads/{key}", headers={"Authorization": f"Bearer {token}"}, timeout=5)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [("bytes=2-", 206, b"cd"), ("bytes=0-", 200, b"abcd"), ("bytes=4-", 416, None), ("bytes=-2", 416, None), ("bytes=0-1,3-", 416, None)],
)
def test_a_download_goes_on_from_where_it_was_cut(ask, wanted, status, content):
    key = ask("POST", "/v1/files", headers=headers(b"abcd"), data=b"abcd").json()["key"]
    answer = ask("GET", f"/v1/files/{key}", headers={"Range": wanted})
    assert answer.status_code == status
    assert content is None or answer.content == content


def raw(server: RepositoryServer, text: bytes) -> bytes:
    """What the server answers to these bytes, after which we hang up."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := line.recv(65536):
            answer += chunk
    return answer


def test_lengths_that_lie_are_refused(server, ask):
    token = requests.post(f"{server.url}/v1/tokens", json={"component": "node_a"}, timeout=5).json()["token"]
    lines = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-File-Sha256: {'0' * 64}\r\n".encode()
    assert b" 400 " in raw(server, lines + b"Content-Length: 100\r\n\r\nshort").splitlines()[0]
    assert b" 411 " in raw(server, lines + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n").splitlines()[0]
    assert b" 413 " in raw(server, lines + b"Content-Length: 2147483649\r\n\r\n").splitlines()[0]
    assert b" 4" in raw(server, lines + b"Content-Length: -5\r\n\r\n").splitlines()[0]
    assert ask("GET", "/v1/health").ok


def test_methods_and_paths_that_do_not_exist_are_4xx(ask):
    for method, path in (("PUT", "/v1/files"), ("GET", "/"), ("GET", "/v1/files"), ("PATCH", "/v1/files/x"), ("POST", "/../etc")):
        assert 400 <= ask(method, path).status_code < 500


def test_endless_headers_are_refused(server, ask):
    with suppress(OSError):  # it hangs up on what it has not read, and its answer may be lost with that
        assert b" 413 " in raw(server, b"GET /v1/health HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000).splitlines()[0]
    assert ask("GET", "/v1/health").ok


def test_nothing_that_is_asked_breaks_the_repository(server, ask, tmp_path_factory):
    """Random requests, by a fixed seed: each is answered, none with 5xx, and nothing lies outside the repository's folder."""
    chance = random.Random(7)
    address = urlsplit(server.url)
    token = requests.post(f"{server.url}/v1/tokens", json={"component": "node_f"}, timeout=5).json()["token"]
    key = ask("POST", "/v1/files", headers=headers(b"abcd"), data=b"abcd").json()["key"]
    ends = ["", "", "/", f"/{key}", "/" + "0" * 32, "/../../x", "/%2e%2e%2fx", "/" + "a" * 300]
    texts = ["", "0", "4", "-1", "9" * 20, "0" * 64, hashlib.sha256(b"abcd").hexdigest(), "bytes=1-", "bytes=x", "\xff", "*,a"]
    names = ["X-File-Sha256", "X-File-Size", "X-Offset", "X-Sha256", "X-Experiment", "X-Readers", "Range", "Content-Type", "Host"]
    outside = sorted(server._config.root.parent.iterdir())
    answers = set()
    line = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    for _ in range(400):
        about = {name: chance.choice(texts) for name in chance.sample(names, 2)} | {"Authorization": f"Bearer {token}"}
        place = chance.choice(["files", "files", "uploads", "uploads", "experiments", "tokens", "health", ".."])
        method = chance.choice(["GET", "GET", "POST", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS", "FETCH"])
        line.request(method, f"/v1/{place}{chance.choice(ends)}", chance.choice([b"", b"abcd", chance.randbytes(1000)]), about)
        answer = line.getresponse()
        answer.read()
        answers.add(answer.status)
    line.close()
    assert {200, 201, 400, 404, 405, 409, 422} <= answers <= {*range(200, 210), *range(400, 430)}
    assert sorted(server._config.root.parent.iterdir()) == outside


def test_an_unreachable_repository_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = f"FB201: no repository at http://127.0.0.1:{port}: Connection refused"
    with HttpFileStore(f"http://127.0.0.1:{port}", "node_a", timeout_s=0.5) as store, pytest.raises(FedbiomedRepositoryError, match=said):
        store.get(FileRef(key="0" * 32, sha256="0" * 64, size=1), tmp_path / "b")


class Lying(http.server.BaseHTTPRequestHandler):
    """A repository that says 3 bytes and sends a million, in a chunk that the length does not count."""

    def do_POST(self) -> None:
        self.answer({"Content-Length": "14"}, b'{"token": "x"}')

    def do_GET(self) -> None:
        self.answer({"Content-Length": "3", "Transfer-Encoding": "chunked"}, b"f4240\r\n" + bytes(1_000_000) + b"\r\n0\r\n\r\n")

    def answer(self, headers: dict[str, str], body: bytes) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the client had enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_repository_that_sends_more_than_it_says_is_not_listened_to(tmp_path: Path):
    ref = FileRef(key="0" * 32, sha256="0" * 64, size=3)
    with http.server.HTTPServer(("127.0.0.1", 0), Lying) as lying:
        serving = threading.Thread(target=lying.serve_forever)
        serving.start()
        try:
            with (
                HttpFileStore(f"http://127.0.0.1:{lying.server_port}", "node_a") as store,
                pytest.raises(FileStoreError, match="more than"),
            ):
                store.get(ref, tmp_path / "b")
        finally:
            lying.shutdown()
            serving.join(5)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_kept_and_checked(tmp_path: Path):
    config = NetworkConfig(root=tmp_path.absolute(), mqtt_port=1999, max_age_s=5.0)
    save_network(config)
    assert load_network(tmp_path) == config
    assert load_network(tmp_path, mqtt_port=0, host=None).mqtt_port == 0
    for line, part in (
        ("colour = 1", "unknown setting 'colour'"),
        ("quota_bytes = 'x'", "quota_bytes"),
        ("http_port = 70000", "70000"),
        ("max_age_s = nan", "max_age_s = nan must be"),
        ("token_age_s = inf", "token_age_s = inf must be"),
        ("min_free_bytes = -1", "0 or more"),
        ("x", "read"),
    ):
        (tmp_path / "etc" / "config.toml").write_text(line, encoding="utf-8")
        with pytest.raises(FedbiomedConfigError, match=part):
            load_network(tmp_path)
