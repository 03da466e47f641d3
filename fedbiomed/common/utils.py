"""Small helpers that both sides and users' scripts call."""

import logging
import re

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedVersionError

logger = logging.getLogger(__name__)
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_UNKNOWN = "0"


def raise_for_version_compatibility(their_version: str | None, our_version: str, error_msg: str | None = None) -> None:
    """Refuse what was made by an incompatible version.

    Equal versions pass; an older one of the same major version passes with a warning in the log.

    >>> raise_for_version_compatibility("1.2", "1.2.0")
    >>> raise_for_version_compatibility("2.0", "1.2", "cannot read it")
    Traceback (most recent call last):
        ...
    fedbiomed.common.exceptions.FedbiomedVersionError: FB625: incompatible version: cannot read it: it is of version 2.0, here is 1.2

    Args:
        their_version: `major[.minor[.micro]]`; None stands for an unknown one, which is never compatible.
        our_version: of the same form.
        error_msg: what shall be said first; `%s` in it stand for their version and ours.

    Raises:
        FedbiomedVersionError: the major versions differ, theirs is newer than ours, or one is no version.
    """
    given = _UNKNOWN if their_version is None else their_version
    theirs, ours = _parts(given), _parts(our_version)
    if theirs == ours:
        return
    if theirs[0] != ours[0] or theirs > ours:
        raise FedbiomedVersionError(f"{ErrorNumbers.FB625.value}: {_text(error_msg, given, our_version)}")
    logger.warning("something of version %s is read, here is %s; that works within a major version", given, our_version)


def _parts(version: object) -> tuple[int, int, int]:
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if found is None:
        raise FedbiomedVersionError(f"{ErrorNumbers.FB625.value}: a version looks like 1, 1.2 or 1.2.3, not {version!r:.80}")
    major, minor, micro = (int(part or 0) for part in found.groups())
    return major, minor, micro


def _text(error_msg: str | None, theirs: str, ours: str) -> str:
    if error_msg is not None and error_msg.count("%s") == 2:
        return error_msg % (theirs, ours)
    return f"{error_msg or 'this cannot be used'}: it is of version {theirs}, here is {ours}"
