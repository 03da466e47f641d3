"""The hops between a component and its federation, each looked at for itself; the doctors of all components ask here.

Each function says what it found as a sentence, and raises a `FedbiomedError` or `OSError` when the hop fails.
"""

import contextlib
import email.utils
import importlib.util
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from fedbiomed.common.config import ComponentConfig

REMEDIES = {
    "libraries": "install fedbiomed anew: `pip install --force-reinstall fedbiomed`",
    "torch": "install torch anew in the version of envs/constraints.txt; a device: `nvidia-smi` tells whether the driver sees it",
    "disk": "make room on this disk: models and datasets need it",
    "broker": "start it (`fedbiomed network start` on its machine), or mend broker and broker_port in etc/config.toml, or the firewall",
    "login": "check the component's id and rights at the broker; end another process that uses this id",
    "repository": "start it (`fedbiomed network start` on its machine), or mend repository in etc/config.toml, or the firewall",
    "clock": "set this machine's clock (`timedatectl set-ntp true`): orders expire by it",
}
_ANSWER_S = 5.0
_CLOCK_SKEW_S = 600.0
_FREE_BYTES = 1 << 30


def libraries(names: Sequence[str]) -> str:
    """Whether they are installed; none is imported."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise OSError(f"not installed: {', '.join(missing)}")
    return f"installed: {', '.join(names)}"


def torch_works(gpu: str = "auto") -> str:
    """Whether torch loads and computes.

    Args:
        gpu: the node's setting; the number of a device must be that of one that is there.
    """
    try:
        import torch  # late: heavy

        total = float(torch.ones(2, 2).matmul(torch.ones(2, 2)).sum())
        devices = torch.cuda.device_count() if gpu != "none" else 0
    except (ImportError, RuntimeError) as error:
        raise OSError(f"torch does not work: {' '.join(str(error).split())}") from error
    if total != 8.0:
        raise OSError(f"torch computes wrongly: 2 x 2 ones give {total}, not 8")
    if gpu.isdecimal() and int(gpu) >= devices:
        raise OSError(f"the node is to use GPU {gpu}, torch {torch.__version__} sees {devices}; set gpu to another one, auto or none")
    return f"torch {torch.__version__} computes; GPUs to use: {devices or 'none'}"


def disk(folder: Path) -> str:
    """Whether a disk has room."""
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise OSError(f"{free >> 20} MiB are free on the disk of {folder}")
    return f"{free >> 30} GiB are free"


def broker(config: ComponentConfig) -> str:
    """Whether something listens where the broker is said to be."""
    where = f"{config.broker}:{config.broker_port}"
    try:
        with contextlib.closing(socket.create_connection((config.broker, config.broker_port), timeout=_ANSWER_S)):
            return f"{where} takes connections"
    except OSError as error:
        raise OSError(f"{where} cannot be reached: {error}") from error


def login(config: ComponentConfig) -> str:
    """Whether the broker lets this component in; beside a process of it that runs, which is left alone."""
    from fedbiomed.common.transport.mqtt import MqttBus  # late: no other check needs it

    broker(config)  # says at once that nothing listens there; the bus would wait for one that is about to start
    with MqttBus(_beside(config), config.broker, config.broker_port, persistent=False, username=config.id) as bus:
        bus.connect(_ANSWER_S)
    return f"{config.broker}:{config.broker_port} lets {config.id} in"


def message(config: ComponentConfig) -> str:
    """Whether the broker delivers a message of this component to itself."""
    from fedbiomed.common.messages import topics
    from fedbiomed.common.transport.mqtt import MqttBus

    broker(config)
    heard, topic = threading.Event(), topics.replies(config.federation, config.id, config.id)
    with MqttBus(_beside(config), config.broker, config.broker_port, persistent=False, username=config.id) as bus:
        bus.connect(_ANSWER_S)
        bus.subscribe(topic, lambda _topic, _payload: heard.set())
        began = time.perf_counter()
        bus.publish(topic, b"hello")
        if not heard.wait(_ANSWER_S):
            raise OSError(f"{config.broker}:{config.broker_port} took a message and did not deliver it: look at its access rules")
        took_ms = 1000 * (time.perf_counter() - began)
    return f"{config.broker}:{config.broker_port} lets us in and delivers a message in {took_ms:.0f} ms"


def repository(config: ComponentConfig) -> str:
    """Whether the repository takes a file and gives it back."""
    from fedbiomed.common.transport.http import HttpFileStore  # late: no other check needs it

    patience_s = _ANSWER_S if _answers(config) else 0.1  # a store would wait for a repository that is about to start
    with tempfile.TemporaryDirectory() as folder, HttpFileStore(config.repository, config.id, timeout_s=patience_s) as store:
        path = Path(folder) / "hello"
        path.write_bytes(b"hello")
        began, experiment = time.perf_counter(), _beside(config)
        store.get(store.put(path, experiment=experiment), path.with_name("back"))
        took_ms = 1000 * (time.perf_counter() - began)
        store.discard(experiment)
    return f"{config.repository} takes a file and gives it back in {took_ms:.0f} ms"


def _answers(config: ComponentConfig) -> bool:
    import requests  # late: no other check needs it

    try:
        requests.get(f"{config.repository}/v1/health", timeout=_ANSWER_S).close()
    except requests.RequestException:
        return False
    return True


def clock(config: ComponentConfig) -> str:
    """Whether this machine's clock and the repository's agree."""
    import requests  # late: no other check needs it

    try:
        with closing(requests.get(f"{config.repository}/v1/health", timeout=_ANSWER_S)) as answer:
            there = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except requests.RequestException as error:
        raise OSError("cannot be compared: the repository does not answer") from error
    except (KeyError, ValueError) as error:
        raise OSError("cannot be compared: the repository tells no time") from error
    skew_s = abs(time.time() - there)
    if skew_s > _CLOCK_SKEW_S:
        raise OSError(f"this machine and the repository differ by {skew_s:.0f} s")
    return f"differs by {skew_s:.0f} s from the repository's"


def _beside(config: ComponentConfig) -> str:
    return f"{config.id}.{secrets.token_hex(4)}"
