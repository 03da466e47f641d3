"""Start the network and the nodes as separate processes, as an operator would, and end all of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fedbiomed.common.config import VARIABLES, broker_address
from fedbiomed.common.exceptions import FedbiomedNetworkError
from fedbiomed.demo.hospitals import TAGS, Hospital
from fedbiomed.demo.more_data import Table

_READY_S = 60.0
_END_S = 10.0
_ADDRESS = re.compile(r"ready (mqtt=(?P<broker>\S+) )?http=(?P<repository>\S+)")


class Background:
    """A `fedbiomed` command that runs until it is told to end; everything it writes goes to a log file.

    Args:
        command: arguments after `fedbiomed`.
        log: the file.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = command
        self._log_path = log
        self._log: IO[str] = log.open("a", encoding="utf-8")
        self._said_ready = threading.Event()
        self.ready_line = ""
        self._process = subprocess.Popen(
            fedbiomed(*command), stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL, text=True, env=_environment()
        )
        self._reader = threading.Thread(target=self._read, name=f"read {log.stem}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def wait_until_ready(self) -> str:
        """Wait for the line that begins with `ready`, and return it.

        Raises:
            FedbiomedNetworkError: the process ended or stayed silent: the end of its log.
        """
        if not self._said_ready.wait(_READY_S) or not self.ready_line:
            lines = self._log_path.read_text(encoding="utf-8").strip().splitlines()
            raise FedbiomedNetworkError(f"`fedbiomed {' '.join(self._command)}` did not start: {lines[-1] if lines else 'it said nothing'}")
        return self.ready_line

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._log.write(line)
            self._log.flush()
            if line.startswith("ready"):
                self.ready_line = line.strip()
                self._said_ready.set()
        self._said_ready.set()

    def ask_to_end(self) -> None:
        """Send the signal that every command ends on; a process that has ended already is left alone."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """End the process, by force when it does not obey."""
        self.ask_to_end()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_S)
        self._reader.join(_END_S)
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A hospital's node: its folder."""

    hospital: Hospital
    folder: Path


class Federation:
    """A network and one node per hospital, each a process of its own; ended together by leaving the `with` block.

    Args:
        out: folder for the components' folders and logs.
        hospitals: whom to start a node for.
        broker: `HOST:PORT` of a broker that runs already; None starts the embedded one.
        mqtt_port, http_port: where to listen; 0 for a free port.
        node_options: more arguments for `fedbiomed node create`.
        more: further files of each hospital, by its name.
    """

    def __init__(
        self,
        out: Path,
        hospitals: Sequence[Hospital],
        *,
        broker: str | None = None,
        mqtt_port: int = 0,
        http_port: int = 0,
        node_options: Sequence[str] = (),
        more: Mapping[str, Sequence[Table]] | None = None,
    ) -> None:
        self._out, self._asked_broker = out, broker
        self._ports = (mqtt_port, http_port)
        self._node_options = node_options
        self._more = more or {}
        self.sites = [Site(hospital=hospital, folder=out / "nodes" / hospital.name) for hospital in hospitals]
        self.nodes: dict[str, Background] = {}
        self.broker = self.repository = ""
        self._running: list[Background] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def register(self, plan: Path, name: str) -> None:
        """Approve a plan on every node, as its operator would."""
        each_at_once([["node", "plan", "register", str(plan), "--dir", str(site.folder), "--name", name] for site in self.sites])

    def start_node(self, site: Site) -> Background:
        """Start a hospital's node, or start it again after its end; its log goes on."""
        node = self.nodes[site.hospital.name] = self._background(["node", "start", "--dir", str(site.folder)], site.hospital.name)
        return node

    def _start(self) -> None:
        (self._out / "logs").mkdir(parents=True, exist_ok=True)
        self._start_network()
        address = ["--broker", self.broker, "--repository", self.repository, *self._node_options]
        each_at_once([["node", "create", "--dir", str(s.folder), "--name", s.hospital.name, *address] for s in self.sites])
        each_at_once([command for site in self.sites for command in self._registrations(site)])
        for site in self.sites:
            self.start_node(site)
        for node in self.nodes.values():
            node.wait_until_ready()

    def _registrations(self, site: Site) -> list[list[str]]:
        hospital = site.hospital
        patients = Table(name="breast cancer", tags=TAGS, path=hospital.path, description=f"patients of {hospital.name}")
        return [_registration(site.folder, table) for table in (patients, *self._more.get(hospital.name, ()))]

    def _start_network(self) -> None:
        mqtt_port, http_port = self._ports
        command = ["network", "start", "--dir", str(self._out / "network"), "--http-port", str(http_port)]
        command += ["--no-broker"] if self._asked_broker else ["--mqtt-port", str(mqtt_port)]
        found = _ADDRESS.match(self._background(command, "network").wait_until_ready())
        if found is None:
            raise FedbiomedNetworkError("the network did not say where it listens")
        self.broker, self.repository = self._asked_broker or found["broker"] or "", found["repository"]
        broker_address(self.broker)

    def _background(self, command: Sequence[str], name: str) -> Background:
        with _undisturbed():
            process = Background(command, self._out / "logs" / f"{name}.log")
            self._running.append(process)
        return process

    def _end(self) -> None:
        for process in reversed(self._running):
            process.ask_to_end()
        for process in reversed(self._running):
            process.end()


def _registration(folder: Path, table: Table) -> list[str]:
    return [
        *("node", "dataset", "add", "--dir", str(folder), "--type", "csv", "--path", str(table.path)),
        *("--name", table.name, "--tags", ",".join(table.tags), "--description", table.description),
    ]


def fedbiomed(*arguments: str) -> list[str]:
    """Command line that runs `fedbiomed` with this interpreter."""
    return [sys.executable, "-m", "fedbiomed", *arguments]


def each_at_once(commands: Sequence[Sequence[str]]) -> None:
    """Run commands side by side.

    Raises:
        FedbiomedNetworkError: one of them failed: which, and what it said.
    """
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="command") as pool:
        list(pool.map(_run, commands))


def _run(command: Sequence[str]) -> None:
    answer = subprocess.run(fedbiomed(*command), capture_output=True, text=True, timeout=_READY_S, check=False, env=_environment())
    if answer.returncode:
        raise FedbiomedNetworkError(f"`fedbiomed {' '.join(command)}` failed: {answer.stderr.strip()[-400:]}")


def _environment() -> dict[str, str]:
    """Ours without what would send a command elsewhere; one thread per training, for all hospitals share this machine's cores."""
    return {"OMP_NUM_THREADS": "1", **{name: value for name, value in os.environ.items() if name not in VARIABLES}}


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block: a process that was started in it is known to whoever ends all of them."""
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in heeded:
        signal.signal(number, lambda received, _frame: heard.append(received))
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
        for received in heard[:1]:
            signal.raise_signal(received)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what was started is ended."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
