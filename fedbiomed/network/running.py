"""Whether a network runs in a folder, and how to end it: a file that the process holds locked, with its number in it."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from fedbiomed.common.exceptions import FedbiomedNetworkError
from fedbiomed.network.config import NetworkConfig

_LOCK_FILE = "network.lock"


@contextlib.contextmanager
def held(config: NetworkConfig) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with it, however it ends.

    Raises:
        FedbiomedNetworkError: another network runs in this folder.
    """
    config.var.mkdir(parents=True, exist_ok=True)
    with (config.var / _LOCK_FILE).open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FedbiomedNetworkError(f"a network runs in {config.root} already: `fedbiomed network stop`, or another --dir") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def stop(root: Path, timeout_s: float) -> int:
    """End the network that runs in a folder, and wait for its end.

    Returns:
        The number of its process.

    Raises:
        FedbiomedNetworkError: none runs there, or it does not end in time.
    """
    try:
        file = (root / "var" / _LOCK_FILE).open(encoding="ascii")
    except FileNotFoundError as error:
        raise _none(root) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            process = int(file.read())
        else:
            raise _none(root)
        os.kill(process, signal.SIGTERM)
        waiting = threading.Thread(target=fcntl.flock, args=(file.fileno(), fcntl.LOCK_SH), name="network-stop", daemon=True)
        waiting.start()
        waiting.join(timeout_s)
        if waiting.is_alive():
            raise FedbiomedNetworkError(f"the network in {root} (process {process}) did not end within {timeout_s:.0f} s")
    return process


def _none(root: Path) -> FedbiomedNetworkError:
    return FedbiomedNetworkError(f"no network runs in {root}; name its folder with --dir")
