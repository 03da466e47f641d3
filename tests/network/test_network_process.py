"""`fedbiomed network start` as a process: what it says, that it ends, and that files survive it."""

import re
import signal
import subprocess

import pytest
import requests

from fedbiomed.common.transport.http import HttpFileStore
from fedbiomed.demo.processes import fedbiomed


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
