"""Event files for TensorBoard: one per node, in a folder of the node's name.

Written with tensorboard's own record writer, which imports neither torch nor TensorFlow. A file is open only while a round is written to
it, so no descriptor and no thread is held between rounds, and what a round wrote is there for a TensorBoard that runs beside.
"""

import contextlib
import importlib
import io
import os
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError

_PREFIX, _SUFFIX = "events.out.tfevents.", ".fedbiomed"  # TensorBoard knows the one, we know our own files by the other
_VERSION = "brain.Event:2"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value in one node's curve.

    Args:
        node: whose.
        tag: name of the curve.
        step: batches up to it, over all rounds.
        value: may be NaN or infinite.
    """

    node: str
    tag: str
    step: int
    value: float


def require() -> None:
    """Make sure that the package tensorboard is there.

    Raises:
        FedbiomedExperimentError: it is not: how to install it.
    """
    try:
        importlib.import_module("tensorboard.summary.writer.record_writer")
    except ImportError as error:
        raise FedbiomedExperimentError(
            f"{ErrorNumbers.FB410.value}: tensorboard = True needs the package tensorboard, which is not installed here ({error}); "
            "pip install 'fedbiomed[tensorboard]'"
        ) from error


class EventFiles:
    """Writes scalars into `<folder>/<node>/`.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}
        self._last_step: dict[tuple[str, str], int] = {}

    def remove_earlier(self) -> None:
        """Remove the event files that this class wrote for earlier experiments, and nothing else; a file that cannot be removed stays."""
        for path in self.folder.glob(f"*/{_PREFIX}*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # refused where anything else lies there

    def write(self, scalars: Iterable[Scalar]) -> None:
        """Append scalars to their nodes' files; a step that a curve has already is left out.

        Raises:
            OSError: the disk refuses it; the file that was being written is as before.
        """
        by_node: dict[str, list[Scalar]] = {}
        for scalar in scalars:
            if scalar.step > self._last_step.get((scalar.node, scalar.tag), -1):
                by_node.setdefault(scalar.node, []).append(scalar)
        for node, new in by_node.items():
            self._append(node, [_event(scalar) for scalar in new])
            self._last_step |= {(node, scalar.tag): scalar.step for scalar in new}

    def _append(self, node: str, events: list[Any]) -> None:
        path = self._paths.get(node)
        if path is None or not path.exists():  # an experiment begun after this one may have removed it
            path = self._paths[node] = self._new_path(node)
            path.parent.mkdir(parents=True, exist_ok=True)
            events = [_protos().Event(wall_time=time.time(), file_version=_VERSION), *events]
        content = _records(events)
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(f"cannot write all of {path}")
            except OSError:
                file.truncate(size)  # half a record would end what TensorBoard reads
                raise

    def _new_path(self, node: str) -> Path:
        name = f"{_PREFIX}{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}{_SUFFIX}"
        return self.folder / node / name


def _event(scalar: Scalar) -> Any:
    summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    value = summary.Summary.Value(tag=scalar.tag, simple_value=scalar.value)
    return _protos().Event(wall_time=time.time(), step=scalar.step, summary=summary.Summary(value=[value]))


def _records(events: Iterable[Any]) -> bytes:
    content = io.BytesIO()
    writer = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def _protos() -> Any:
    """Late: tensorboard is an extra."""
    return importlib.import_module("tensorboard.compat.proto.event_pb2")
