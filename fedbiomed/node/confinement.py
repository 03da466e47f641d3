"""What is taken from a process before it runs a training plan.

The plan's source was approved, but approval is by people: memory, the network and the way to more rights are taken from the process as far
as the operating system allows. It still runs as the daemon's user, so it can read what that user can read; who needs a wall there gives
the node a user or a container of its own.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def clean_environment(gpu: str) -> dict[str, str]:
    """The environment of the training processes: a short list of what libraries need, and where this package lies.

    Threads of a training that wait for each other sleep, unless the node's environment says otherwise: by default they spin, and where
    nodes share a machine's cores a round of a small model then takes several times as long.

    Args:
        gpu: the node's setting; `none` hides all devices.
    """
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}}
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    if gpu == "none":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def confine(memory_mb: int) -> list[str]:
    """Take from this process what a plan does not need.

    Args:
        memory_mb: what it may allocate beyond what it holds now; 0: three quarters of the machine's memory.

    Returns:
        What the operating system would not take, as short phrases.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    missing = [] if _limit_memory(memory_limit_mb(memory_mb)) else ["a memory limit"]
    if not _leave_network():
        missing.append("a wall to the network")
    if not _control(_PR_SET_NO_NEW_PRIVS, 1):
        missing.append("a ban on more rights")
    return missing


def memory_limit_mb(setting_mb: int) -> int:
    """The limit that a node's setting means: 0 stands for three quarters of the machine's memory."""
    if setting_mb:
        return setting_mb
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // (4 << 20)


def end_with_parent(*, is_wanted: bool = True) -> None:
    """Let the operating system end this process when the thread that made it ends, or (False) no longer."""
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL if is_wanted else 0)


def adopt_orphans() -> None:
    """Become the parent of all processes that descend from this one and lose theirs."""
    _control(_PR_SET_CHILD_SUBREAPER, 1)


def _limit_memory(limit_mb: int) -> bool:
    limit = _data_bytes() + (limit_mb << 20)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (OSError, ValueError):
        return False
    return sys.platform == "linux"


def _data_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    return 0


def _leave_network() -> bool:
    """Move to a network namespace that has no device that is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return False
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    return True


def _control(option: int, value: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return hasattr(libc, "prctl") and libc.prctl(option, value, 0, 0, 0) == 0
