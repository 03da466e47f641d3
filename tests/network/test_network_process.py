"""`fedbiomed network start` as a process: what it says, that it ends, and that files survive it."""

import re
import signal
import subprocess

import pytest
import requests

from fedbiomed.common.exceptions import FedbiomedNetworkError
from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.demo.processes import fedbiomed
from fedbiomed.network.running import held, stop
from fedbiomed.network.serve import RepositoryServer
from tests.conftest import network_config


class Started:
    """A network process in a folder."""

    def __init__(self, folder) -> None:
        command = fedbiomed("network", "start", "--dir", str(folder), "--mqtt-port", "0", "--http-port", "0")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.url = self.line.split("http=")[1].strip()

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_when_told(tmp_path, number):
    started = Started(tmp_path / "n")
    assert re.fullmatch(r"ready mqtt=127\.0\.0\.1:\d+ http=http://127\.0\.0\.1:\d+\n", started.line)
    code, errors = started.end(number)
    assert code == 0
    assert errors.strip().splitlines() == ["development mode: lets in every component of this machine that names itself by its id"]


def test_files_and_tokens_survive_a_kill(tmp_path):
    (tmp_path / "small").write_bytes(b"small")
    started = Started(tmp_path / "n")
    with HttpFileStore(started.url, "node_a") as store:
        small = store.put(tmp_path / "small", experiment="job_1")
    token = requests.post(f"{started.url}/v1/tokens", json={"component": "node_a"}, timeout=5).json()["token"]
    assert started.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again = Started(tmp_path / "n")
    try:
        with HttpFileStore(again.url, "node_b") as store:
            store.get(small, tmp_path / "back")
        mine = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{again.url}/v1/files/{small.key}", headers=mine, timeout=5).content == b"small"
    finally:
        again.end(signal.SIGTERM)
    assert (tmp_path / "back").read_bytes() == b"small"


def test_it_does_not_listen_to_the_world(tmp_path):
    answer = subprocess.run(
        fedbiomed("network", "start", "--dir", str(tmp_path / "n"), "--host", "0.0.0.0", "--mqtt-port", "0", "--http-port", "0"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode == 1
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "loopback" in answer.stderr or "127.0.0.1" in answer.stderr


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FedbiomedNetworkError, match="cannot write the folder"), held(network_config(tmp_path / "file")):
        pass
    with pytest.raises(FedbiomedNetworkError, match="no network runs in"):
        stop(tmp_path / "file", 1)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "catalogue.sqlite").write_text("nonsense")
    with pytest.raises(FedbiomedNetworkError, match="file is not a database"), RepositoryServer(network_config(tmp_path)):
        pass
    (tmp_path / "n" / "var").mkdir(parents=True)
    (tmp_path / "n" / "var" / "files").touch()
    with pytest.raises(FedbiomedNetworkError, match="Not a directory"), RepositoryServer(network_config(tmp_path / "n")):
        pass


def test_the_secret_of_the_tokens_is_its_user_s(tmp_path):
    with RepositoryServer(network_config(tmp_path)):
        assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "var").glob("catalogue.sqlite*")} == {"0o600"}


def test_what_is_no_storage_is_told(tmp_path):
    with pytest.raises(FedbiomedNetworkError, match="no kind of storage"), RepositoryServer(network_config(tmp_path, storage="storage")):
        pass


def test_a_network_that_is_just_starting_is_not_stopped(tmp_path):
    with held(network_config(tmp_path)):
        (tmp_path / "var" / "network.lock").write_text("")
        with pytest.raises(FedbiomedNetworkError, match="is just starting"):
            stop(tmp_path, 1)
