"""The daemon's side of training: a warm process per job and plan, watched, and ended whatever it does.

    Worker.run -> _child_for (the warm one, or a fresh one) -> send the task -> _follow (progress, result, death, deadline, stop)

A plan never meets another one: the process serves one job and one source, the next plan gets a fresh one (a fork of a process that has
imported torch already: some 20 ms). After a failure, too. The child gets the very bytes that were approved, over the line.

The lines are sockets that keep the bounds of frames (SEQPACKET, as Linux has them): nothing that a plan writes there can make the daemon
wait for the rest of a frame.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from types import TracebackType
from typing import Any, Self

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import FedbiomedRoundError, WorkerError, WorkerInterrupted
from fedbiomed.node.confinement import clean_environment
from fedbiomed.node.task import MAX_FRAME_BYTES, SOURCE_PIECE_BYTES, RoundReport, RoundResult, RoundTask, from_bytes, task_to_bytes
from fedbiomed.node.worker_host import FORK, FORK_PRIVATE

logger = logging.getLogger(__name__)
_START_S = 300.0  # a first import of torch from a slow disk
_END_S = 10.0
_EXIT_S = 2.0
_MAX_LOG_BYTES = 8 << 20
_COMMAND = "from fedbiomed.node.worker_host import main; main({})"


class StopSignal:
    """Tells a running round to end; may be set by any thread, before the round starts or later."""

    def __init__(self) -> None:
        self._reader, self._writer = Pipe(duplex=False)

    def set(self) -> None:
        """End the round."""
        self._writer.close()

    def fileno(self) -> int:
        """Becomes readable when set."""
        return self._reader.fileno()

    def close(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()


@dataclass(frozen=True, slots=True)
class _Child:
    """A training process: what it serves, its id and the line to it."""

    serves: tuple[str, str]
    process: int
    line: socket.socket


class _Host:
    """The process that forks training processes; see `worker_host`."""

    def __init__(self, config: NodeConfig) -> None:
        folder = config.var / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config.log.mkdir(parents=True, exist_ok=True)
        self._log = (config.log / "training.log").open("ab")
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND.format(theirs.fileno())],
                env=clean_environment(config.gpu),
                cwd=folder,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )

    def fork(self, deadline: float, command: bytes = FORK) -> tuple[int, socket.socket]:
        """Make a training process; returns its id and the line to it.

        Raises:
            WorkerError: the host died or did not answer in time.
        """
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG_BYTES:
            self._log.truncate(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_END_S)
        try:
            with theirs:
                socket.send_fds(self.line, [command], [theirs.fileno()])
            return self.event("started", deadline)["started"], ours
        except OSError as error:
            ours.close()
            raise WorkerError(self._describe_end()) from error
        except WorkerError:
            ours.close()
            raise

    def end_child(self) -> None:
        """End the training process and all that it made."""
        with contextlib.suppress(OSError):
            self.line.send(b"end")

    def event(self, name: str, deadline: float) -> dict[str, int]:
        """Wait until the host says this; what it said before of former children is passed over.

        Raises:
            WorkerError: it died or did not say it in time.
        """
        while True:
            self.line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                words = self.line.recv(1024)
            except TimeoutError as error:
                raise WorkerError("FB300: the node could not start a training process in time") from error
            except OSError as error:
                raise WorkerError(self._describe_end()) from error
            if not words:
                raise WorkerError(self._describe_end())
            event: dict[str, int] = json.loads(words)
            if name in event:
                return event

    def close(self) -> None:
        """End the host, and with it its child."""
        self.line.close()
        self._process.terminate()  # heard only while it still imports; later the closed line ends it
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_S)
        self._log.close()

    def _describe_end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            logger.error("the process that starts training processes ended with status %s, see training.log", self._process.wait(_END_S))
        return "FB300: the node could not start a training process, see the log of this node"


class Worker:
    """Runs rounds, one at a time, in a process apart.

    Args:
        config: gives the limits, and the folders for what a plan prints (`log/training.log`) and for its working directory
            (`var/work`, emptied at each start).
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._host: _Host | None = None
        self._child: _Child | None = None
        self._is_closed = False

    def start(self) -> None:
        """Begin to import what plans need, in the process apart; returns at once."""
        with self._lock:
            self._running_host()

    def run(
        self, task: RoundTask, source: bytes, *, stop: StopSignal, limit_s: float, on_progress: Callable[[RoundReport], None]
    ) -> RoundResult:
        """Train for one round.

        Args:
            task: the round; its `result` is written by the training process.
            source: the plan; these bytes are what runs.
            stop: ends the round from outside.
            limit_s: how long it may take.
            on_progress: called on this thread with what the training process reports.

        Raises:
            WorkerInterrupted: `stop` was set.
            WorkerError: the process died, ran out of time or could not be started.
            FedbiomedRoundError: the round failed; the message is for the researcher.
        """
        with self._lock:
            try:
                child = self._child_for(task.job_id, source, is_private=bool(task.privacy))
                deadline = time.monotonic() + limit_s
                with contextlib.suppress(OSError):  # it died: `_follow` says how
                    child.line.send(task_to_bytes(task))
                return self._follow(child, deadline, limit_s, stop, on_progress)
            except BaseException:
                self._discard_child()
                raise

    def close(self) -> None:
        """End all processes; a round that runs must have been stopped before. A second call does nothing."""
        with self._lock:
            self._is_closed = True
            self._drop_host()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(
        self, child: _Child, deadline: float, limit_s: float, stop: StopSignal, on_progress: Callable[[RoundReport], None]
    ) -> RoundResult:
        host = self._running_host()
        lines: list[Any] = [child.line, host.line, stop]
        while True:
            ready: list[Any] = wait(lines, max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerError(f"FB314: the round took longer than {limit_s:.0f} s, which is the limit of this node or of the order")
            if stop in ready:
                raise WorkerInterrupted("the round was stopped")
            if child.line in ready:
                answer = self._hear(child)
                if isinstance(answer, RoundResult):
                    return answer
                if isinstance(answer, RoundReport):
                    on_progress(answer)
                    continue
            raise self._death_of(child)

    def _hear(self, child: _Child) -> RoundReport | RoundResult | None:
        """What the training process says; None when it is dead."""
        try:
            frame = child.line.recv(MAX_FRAME_BYTES)
        except OSError:
            return None
        answer = from_bytes(frame) if frame else None
        if isinstance(answer, str):
            raise FedbiomedRoundError(answer)
        return answer

    def _death_of(self, child: _Child) -> WorkerError:
        host = self._running_host()
        lives_on = not wait([host.line], _EXIT_S)  # it closed its line; one that ends does so a moment before
        host.end_child()
        try:
            status = host.event("ended", time.monotonic() + _END_S)["status"]
        except WorkerError:
            self._drop_host()
            return WorkerError("FB314: the training process was lost together with the one that started it, see the log of this node")
        self._forget_child()
        if lives_on and status == -signal.SIGKILL:
            return WorkerError("FB314: the plan closed the line from the training process to the node: remove what closes files of others")
        if status >= 0:
            return WorkerError(f"FB314: the training process ended by itself with exit code {status}: remove what ends it from the plan")
        name = signal.Signals(-status).name
        why = "somebody killed it, or the machine ran out of memory" if status == -signal.SIGKILL else "a library crashed"
        logger.warning("training process %d was ended by signal %d (%s)", child.process, -status, name)
        return WorkerError(f"FB314: the training process was ended by signal {-status} ({name}): {why}; ask the node's operator")

    def _child_for(self, job_id: str, source: bytes, *, is_private: bool) -> _Child:
        serves = (job_id, hashlib.sha256(source).hexdigest())
        if self._child is not None and self._child.serves == serves and not self._is_dead(self._child):
            return self._child
        self._discard_child()
        process, line = self._fork(FORK_PRIVATE if is_private else FORK)
        self._child = _Child(serves, process, line)
        with contextlib.suppress(OSError):  # it died: `_follow` says how
            line.send(json.dumps({"memory_mb": self._config.worker_memory_mb, "source_bytes": len(source)}).encode())
            for start in range(0, len(source), SOURCE_PIECE_BYTES):
                line.send(source[start : start + SOURCE_PIECE_BYTES])
        return self._child

    def _is_dead(self, child: _Child) -> bool:
        """Whether the warm process ended, or spoke unasked, since its last round."""
        return bool(wait([child.line, self._running_host().line], 0))

    def _fork(self, command: bytes) -> tuple[int, socket.socket]:
        """A fresh process; a host that was killed while it had nothing to do is started again, once."""
        try:
            return self._running_host().fork(time.monotonic() + _START_S, command)
        except WorkerError:
            self._drop_host()
            return self._running_host().fork(time.monotonic() + _START_S, command)

    def _running_host(self) -> _Host:
        if self._is_closed:
            raise WorkerInterrupted("the node stops")
        if self._host is None:
            self._host = _Host(self._config)
        return self._host

    def _discard_child(self) -> None:
        if self._child is None or self._host is None:
            return
        child = self._child
        self._forget_child()
        self._host.end_child()
        try:
            while self._host.event("ended", time.monotonic() + _END_S)["ended"] != child.process:
                pass
        except WorkerError:
            self._drop_host()

    def _forget_child(self) -> None:
        if self._child is not None:
            self._child.line.close()
        self._child = None

    def _drop_host(self) -> None:
        self._forget_child()
        if self._host is not None:
            self._host.close()
        self._host = None
