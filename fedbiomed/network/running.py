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
        FedbiomedNetworkError: another network runs in this folder, or it cannot be written.
    """
    try:
        config.var.mkdir(parents=True, exist_ok=True)
        lock = (config.var / _LOCK_FILE).open("a+", encoding="ascii")
    except OSError as error:
        raise _unusable(config, error) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FedbiomedNetworkError(f"a network runs in {config.root} already: `fedbiomed network stop`, or another --dir") from error
        try:
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        except OSError as error:
            raise _unusable(config, error) from error
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
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _none(root) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            process = _number_in(file.read(), root)
        else:
            raise _none(root)
        _end(process, root)
        waiting = threading.Thread(target=fcntl.flock, args=(file.fileno(), fcntl.LOCK_SH), name="network-stop", daemon=True)
        waiting.start()
        waiting.join(timeout_s)
        if waiting.is_alive():
            raise FedbiomedNetworkError(f"the network in {root} (process {process}) did not end within {timeout_s:.0f} s")
    return process


def _number_in(text: str, root: Path) -> int:
    if not text.isdecimal():
        raise FedbiomedNetworkError(f"a network is just starting in {root}: try again")
    return int(text)


def _end(process: int, root: Path) -> None:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:  # it has ended meanwhile
        return
    except PermissionError as error:
        raise FedbiomedNetworkError(f"the network in {root} (process {process}) is another user's; ask that user to stop it") from error


def _unusable(config: NetworkConfig, error: OSError) -> FedbiomedNetworkError:
    return FedbiomedNetworkError(f"cannot write the folder {config.root}: {error.strerror}; mend it, or name another with --dir")


def _none(root: Path) -> FedbiomedNetworkError:
    return FedbiomedNetworkError(f"no network runs in {root}; name its folder with --dir")
