"""Files of this family: one Serializer file each, with a version, whole or not there at all."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import (
    FedbiomedCheckpointError,
    FedbiomedError,
    FedbiomedTypeError,
    FedbiomedValueError,
    FedbiomedVersionError,
)
from fedbiomed.common.files import written_whole
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.serializer_write import Writer

CHECKPOINT_VERSION = "1"
SUFFIX = ".mpk"
_VERSION_KEY = "checkpoint_version"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def checkpoint_path(folder: str | Path, name: str) -> Path:
    """Where a checkpoint of that name lies; `.mpk` is added to a name without it.

    Args:
        folder: made when something is first kept.
        name: a plain file name.

    Raises:
        FedbiomedTypeError: the folder is no path, or the name no text.
        FedbiomedValueError: the name is not plain.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise FedbiomedTypeError(f"the folder of checkpoints must be a path, not {folder!r:.80}")
    if not isinstance(name, str):
        raise FedbiomedTypeError(f"the name of a checkpoint must be text, not {name!r:.80}")
    if not _NAME.fullmatch(name):
        raise FedbiomedValueError(
            f"the name of a checkpoint has letters, digits, '_', '-' and '.', at most 128 and no folder, not {name!r:.140}"
        )
    return Path(folder).absolute() / (name if name.endswith(SUFFIX) else name + SUFFIX)


def write(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the one that is there; a reader sees the old one or the new one, after a power cut too.

    One process writes to a file at a time: what one that was killed left half-written beside it goes.

    Raises:
        FedbiomedCheckpointError: it cannot be written, or holds something that the Serializer does not carry; the old one stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {_VERSION_KEY: CHECKPOINT_VERSION, "kind": kind, **content}
        for left_behind in path.parent.glob(f".{path.name}.*.part"):
            left_behind.unlink(missing_ok=True)
        with written_whole(path, sync=True) as file:
            Writer(file.write).write(data)
    except OSError as error:
        raise FedbiomedCheckpointError(f"cannot write the checkpoint {path.name}: {error.strerror}; is the disk full?") from error
    except (FedbiomedTypeError, FedbiomedValueError) as error:
        raise FedbiomedCheckpointError(f"cannot keep {path.name}: {error}") from error


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        FedbiomedCheckpointError: there is none, or the file is damaged or of another kind.
        FedbiomedVersionError: another version wrote it.
    """
    try:
        content = Serializer.load(path)
    except FileNotFoundError as error:
        raise FedbiomedCheckpointError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise FedbiomedCheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except FedbiomedError as error:
        raise FedbiomedCheckpointError(f"the checkpoint is damaged: {error}; remove it, or bring it back from a copy") from error
    if not isinstance(content, dict) or _VERSION_KEY not in content:
        raise FedbiomedCheckpointError(f"{path} is not a checkpoint")
    if content[_VERSION_KEY] != CHECKPOINT_VERSION:
        raise FedbiomedVersionError(
            f"{path} is of checkpoint version {content[_VERSION_KEY]!r:.40}, this version reads {CHECKPOINT_VERSION!r}"
        )
    if content.get("kind") != kind:
        raise FedbiomedCheckpointError(f"{path} is a checkpoint of kind {content.get('kind')!r:.40}, {kind!r} was asked for")
    return content
