"""The process from which training processes are forked: it has imported torch once, and never runs a plan itself.

Why not `multiprocessing`'s forkserver: it starts with the daemon's whole environment (secrets stay readable in `/proc/self/environ`
whatever a child deletes), is one per process and not per node, and leaves behind what a plan forks. This one is started with a clean
environment, ends with its daemon whatever ends that, and adopts and ends every process that descends from a plan.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
from pathlib import Path
from types import FrameType

from fedbiomed.common.exceptions import FedbiomedDPControllerError
from fedbiomed.common.privacy_cost import imported_quietly
from fedbiomed.node.confinement import adopt_orphans, end_with_parent

_CHILD = "fedbiomed.node.worker_child"
_PRELOADED = (
    _CHILD,
    "torch",
    "sklearn.linear_model",
    "pandas",
    "fedbiomed.common.training_plans.torch_plan",
    "fedbiomed.common.training_plans.sklearn_plan",
    "fedbiomed.common.optimizers.declearn_optimizer",
)
_PRIVACY = ("opacus", "opacus.validators", "dp_accounting.rdp")
_MAX_COMMAND_BYTES = 16
FORK, FORK_PRIVATE = b"fork", b"fork private"


def main(descriptor: int) -> None:
    """Import what plans need, then fork training processes until the daemon is gone.

    Args:
        descriptor: this process's end of the line to the daemon, a socket of type SEQPACKET. It hears `fork` or, for a plan with
            differential privacy, `fork private` (with the end of another line, for the child) and `end`; it says `{"started": pid}` and
            `{"ended": pid, "status": what os.waitstatus_to_exitcode says}`.
    """
    with socket.socket(fileno=descriptor) as line:
        end_with_parent()
        if _is_closed(line):
            return
        _import_libraries()
        end_with_parent(is_wanted=False)  # from here on the closed line tells, and descendants are ended, too
        gc.collect()
        gc.freeze()
        adopt_orphans()
        Host(line).serve()
        os._exit(0)  # nothing is left to close, and tidying up after torch takes its time and may complain on stderr


def _is_closed(line: socket.socket) -> bool:
    """Whether the daemon ended before it could end this process, too."""
    try:
        return not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _import_libraries() -> None:
    """Import what takes seconds; not at the head of this module, so that the daemon's end ends this process even meanwhile."""
    for name in _PRELOADED:
        importlib.import_module(name)
    torch = importlib.import_module("torch")
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)  # the first optimizer imports another 800 modules: seconds, but once


def _import_privacy() -> None:
    """Import what differential privacy needs, once, for all plans that come; where it is not installed, the round says so."""
    for name in _PRIVACY:
        with contextlib.suppress(FedbiomedDPControllerError):
            imported_quietly(name)


class Host:
    """Forks one training process at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._child: int | None = None
        self._ended: dict[str, int] | None = None  # to be said when all that it left behind has ended, too
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)

    def serve(self) -> None:
        """Obey until the daemon's end of the line is closed."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._waker.fileno())
        try:
            while self._obey():
                pass
        finally:
            self._end_all()

    def _obey(self) -> bool:
        ready, _, _ = select.select([self._line, self._awake], [], [])
        if self._awake in ready:
            self._awake.recv(4096)
            self._bury()
        if self._line not in ready:
            return True
        command, descriptors, _, _ = socket.recv_fds(self._line, _MAX_COMMAND_BYTES, 1)
        if command in (FORK, FORK_PRIVATE):
            if command == FORK_PRIVATE:
                _import_privacy()
            self._end_all()
            self._fork(descriptors[0])
        elif command == b"end":
            self._end_all()
        return bool(command)

    def _fork(self, descriptor: int) -> None:
        child = os.fork()
        if child == 0:
            self._become_child(descriptor)
        os.close(descriptor)
        self._child = child
        self._say({"started": child})

    def _become_child(self, descriptor: int) -> None:
        """Run a plan in a session of its own; never returns."""
        status = 1
        try:
            end_with_parent()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            for ours in (self._line, self._awake, self._waker):
                ours.close()
            importlib.import_module(_CHILD).main(descriptor)
            status = 0
        finally:
            os._exit(status)

    def _bury(self) -> None:
        """Note which processes have ended; what the training process leaves behind ends with it."""
        had_child = self._child is not None
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    break
                self._note(process, status)
        if had_child and self._child is None:
            self._end_all()

    def _end_all(self) -> None:
        """End the training process and everything that descends from it: the descendants become ours as their parents end."""
        while processes := _children() or ([self._child] if self._child else []):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for process in processes:
                with contextlib.suppress(ChildProcessError):
                    self._note(*os.waitpid(process, 0))
        if self._ended is not None:
            self._say(self._ended)
            self._ended = None

    def _note(self, process: int, status: int) -> None:
        if process == self._child:
            self._child = None
            self._ended = {"ended": process, "status": os.waitstatus_to_exitcode(status)}

    def _say(self, event: dict[str, int]) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone: the next command is the end of the line
            self._line.send(json.dumps(event).encode())


def _children() -> list[int]:
    own = os.getpid()
    try:
        return [int(process) for process in Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _nothing(_signal: int, _frame: FrameType | None) -> None:
    """Have the signal wake `select`."""
