"""Folders from which an experiment goes on: one JSON file and links to the files of its rounds.

Written beside its place and renamed, so a folder under its name is whole. The JSON holds size and SHA-256 of every file, and a SHA-256
of itself: what was lost or changed on the way is named before anything of it is used. Paths into the folder are written as `./name`,
so it may be moved. Digests protect from damage, not from somebody who writes new ones: nothing in a breakpoint is ever executed but the
training plan, which its owner opens as he would open a script.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import BREAKPOINT_VERSION, ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedVersionError
from fedbiomed.common.files import link_or_copy, sha256_of_file, sync_folder, write_whole

State = dict[str, Any]
_NAME = re.compile(r"breakpoint_(\d+)")
_LAST_NUMBER = re.compile(r"(\d+)$")
_WITH_PATHS = (
    *("training_plan_path", "aggregator", "agg_optimizer", "node_selection_strategy", "aggregated_params", "job", "trainer"),
    "random_states",
)
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "breakpoint_version": str,
    "training_data": dict,
    "training_args": dict,
    "model_args": dict,
    "training_plan_path": str,
    "training_plan_class": str,
    "round_current": int,
    "round_limit": (int, type(None)),
    "experimentation_folder": str,
    "tags": (list, type(None)),
    "aggregator": dict,
    "agg_optimizer": (str, type(None)),
    "node_selection_strategy": dict,
    "aggregated_params": dict,
    "job": dict,
    "history": list,
    "random_states": str,
    "files": dict,
}


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A breakpoint that was found whole.

    Args:
        folder: where it lies.
        state: its JSON; paths into the folder are absolute.
    """

    folder: Path
    state: State


class BreakpointWriter:
    """Writes breakpoints of one experiment; a file that many of them hold is read and synced to disk once."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, ...], str] = {}

    def write(self, experiment: Path, round_: int, fill: Callable[[Path], State]) -> Path:
        """Write the breakpoint of a round, in place of one that is there already.

        Args:
            experiment: folder of the experiment.
            round_: the round just done, from 0.
            fill: puts files into the folder it is given and returns the state, with their paths as they are there.

        Returns:
            The folder `breakpoint_<round>`.

        Raises:
            FedbiomedBreakpointError: it cannot be written; nothing is left of it then.
        """
        name = f"breakpoint_{round_:04d}"
        try:
            with _folder_beside(experiment, name) as part:
                state = {"breakpoint_version": BREAKPOINT_VERSION, **fill(part)}
                state = _as_json({key: _named(value, f"{part}{os.sep}") if key in _WITH_PATHS else value for key, value in state.items()})
                state["files"] = {path.name: self._described(path) for path in sorted(part.iterdir())}
                state["checksum"] = _checksum(state)
                write_whole(part / f"{name}.json", json.dumps(state).encode(), sync=True)
                _take_place(part, experiment / name)
        except OSError as error:
            raise FedbiomedBreakpointError(
                f"{ErrorNumbers.FB413.value}: cannot write {experiment / name}: {error}; is the disk full or the folder gone?"
            ) from error
        return experiment / name

    def _described(self, path: Path) -> dict[str, Any]:
        found = path.stat()
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if identity not in self._digests:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._digests[identity] = sha256_of_file(path)
        return {"sha256": self._digests[identity], "size": found.st_size}


def linked(source: str | Path, folder: Path, name: str = "") -> str:
    """Give a file a second name in a breakpoint's folder, with a suffix where that name is taken; returns the new path."""
    wanted = folder / (name or Path(source).name)
    target, number = wanted, 0
    while target.exists():
        number += 1
        target = wanted.with_stem(f"{wanted.stem}_{number:02d}")
    link_or_copy(Path(source), target)
    return str(target)


def read(folder: Path) -> Breakpoint:
    """Read a breakpoint, after it was found whole and unchanged.

    Raises:
        FedbiomedBreakpointError: there is none, or files are missing or were changed: which ones.
        FedbiomedVersionError: it was written by an incompatible version.
    """
    if not folder.is_dir():
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: there is no breakpoint folder {folder}")
    path, state = _read_json(folder)
    if state.get("breakpoint_version") != BREAKPOINT_VERSION:
        raise FedbiomedVersionError(
            f"{path} is of breakpoint version {state.get('breakpoint_version')!r:.40}, this version reads {BREAKPOINT_VERSION!r}"
        )
    faults = [f"{path.name} was changed"] if state.pop("checksum", None) != _checksum(state) else []
    faults += _wrong_keys(state, path.name) or _wrong_files(state["files"], folder)
    if faults:
        raise FedbiomedBreakpointError(
            f"{ErrorNumbers.FB413.value}: {folder} is not a whole breakpoint: {'; '.join(faults)}; copy it again or load an earlier one"
        )
    files = frozenset(state["files"])
    return Breakpoint(folder, {key: _placed(value, folder, files) if key in _WITH_PATHS else value for key, value in state.items()})


def newest(experiments: Path) -> Path:
    """The breakpoint of highest number of the experiment of highest number that has one.

    Args:
        experiments: folder of the experiments' folders. Those without a number at their end come last, the one used last first.

    Raises:
        FedbiomedBreakpointError: there is none.
    """
    for experiment in sorted(_folders(experiments), key=_rank, reverse=True):
        found = of_experiment(experiment)
        if found:
            return found[-1]
    raise FedbiomedBreakpointError(
        f"{ErrorNumbers.FB413.value}: no experiment in {experiments} has a breakpoint; name its folder, or run with save_breakpoints=True"
    )


def of_experiment(folder: Path) -> list[Path]:
    """The breakpoints in the folder of an experiment, the last round last."""
    return sorted((path for path in _folders(folder) if _NAME.fullmatch(path.name)), key=_number)


def glance(folder: Path) -> State:
    """The state that a breakpoint tells, without looking at its files.

    Raises:
        FedbiomedBreakpointError: its JSON is missing or cannot be read.
    """
    return _read_json(folder)[1]


def _read_json(folder: Path) -> tuple[Path, State]:
    found = sorted(path for path in folder.glob("breakpoint_*.json") if _NAME.fullmatch(path.stem))
    name = f"{folder.name if _NAME.fullmatch(folder.name) else 'breakpoint_*'}.json"
    if len(found) != 1:
        raise FedbiomedBreakpointError(
            f"{ErrorNumbers.FB413.value}: {folder} is not a breakpoint: one {name} is needed, {len(found) or 'none'} found"
        )
    try:
        state = json.loads(found[0].read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: cannot read {found[0]}: {error}") from error
    if not isinstance(state, dict):
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: {found[0]} does not hold the state of an experiment")
    return found[0], state


def _wrong_keys(state: State, name: str) -> list[str]:
    return [
        f"{name} has no {key!r} of the right kind"
        for key, kinds in _KEYS.items()
        if not isinstance(state.get(key), kinds) or isinstance(state.get(key), bool)
    ]


def _wrong_files(files: Mapping[str, Any], folder: Path) -> list[str]:
    faults = []
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not isinstance(expected, dict):
            faults.append(f"{name!r:.80} is not the name of a file in it")
        elif not path.is_file():
            faults.append(f"{name} is missing")
        elif path.stat().st_size != expected.get("size") or sha256_of_file(path) != expected.get("sha256"):
            faults.append(f"{name} was changed")
    return faults


def _as_json(state: State) -> State:
    """The state as it will be read again."""
    try:
        again: State = json.loads(json.dumps(state))
    except (TypeError, ValueError, RecursionError) as error:
        raise FedbiomedBreakpointError(
            f"{ErrorNumbers.FB413.value}: what the aggregator or the strategy keeps in its state cannot be written as JSON: {error}"
        ) from error
    return again


def _checksum(state: State) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _named(value: Any, prefix: str) -> Any:
    """The value with each path into a folder, given with its last separator, as `./name`."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value.startswith(prefix):
        return f"./{value.removeprefix(prefix)}"
    return _walked(value, lambda item: _named(item, prefix))


def _placed(value: Any, folder: Path, files: frozenset[str]) -> Any:
    """The value with each `./name` of a file as its path."""
    if isinstance(value, str) and value.startswith("./") and value[2:] in files:
        return str(folder / value[2:])
    return _walked(value, lambda item: _placed(item, folder, files))


def _walked(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [change(item) for item in value]
    return value


@contextlib.contextmanager
def _folder_beside(parent: Path, name: str) -> Iterator[Path]:
    for left_behind in parent.glob(f".{name}.*.part"):  # by a process that was killed while it wrote
        shutil.rmtree(left_behind, ignore_errors=True)
    part = parent / f".{name}.{uuid.uuid4().hex}.part"
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_place(part: Path, place: Path) -> None:
    sync_folder(part)
    if place.exists():
        old = place.parent / f".{place.name}.{uuid.uuid4().hex}.part"
        place.rename(old)
        part.rename(place)
        shutil.rmtree(old)
    else:
        part.rename(place)
    sync_folder(place.parent)


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")] if parent.is_dir() else []


def _number(folder: Path) -> int:
    found = _LAST_NUMBER.search(folder.name)
    return int(found[1]) if found else -1


def _rank(experiment: Path) -> tuple[int, float]:
    return _number(experiment), experiment.stat().st_mtime
