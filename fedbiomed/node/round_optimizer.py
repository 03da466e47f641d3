"""What a round takes up of the one before: the optimizer's state and what the node's half of an algorithm kept; and auxiliary variables
from the researcher. Runs in the training process.

Both states lie in one file, which never leaves the node. An optimizer may begin anew where its state does not fit; an algorithm may not,
for what it keeps, a personal model for instance, cannot be made again.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedOptimizerError, FedbiomedRoundError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.serializer import Serializer

logger = logging.getLogger(__name__)
_KEPT = "kept"


def kept_before(path: str) -> dict[str, dict[str, Any]]:
    """What the node's half kept in the round before.

    Args:
        path: file that `keep` wrote.

    Raises:
        FedbiomedRoundError: it cannot be read, or is something else.
    """
    try:
        content = Serializer.load(path)
        kept = content.get(_KEPT, {}) if isinstance(content, dict) else None
    except (FedbiomedError, OSError) as error:
        raise FedbiomedRoundError(f"FB314: what this node kept in the round before cannot be read: {error}") from error
    if not isinstance(kept, dict) or not all(isinstance(state, dict) for state in kept.values()):
        raise FedbiomedRoundError("FB314: what this node kept in the round before is not of the form in which it was written")
    return kept


def restore(optimizer: BaseOptimizer, path: str) -> list[str]:
    """Take up the state of the round before, as far as it fits.

    Args:
        optimizer: fresh, as the plan made it.
        path: file that `keep` wrote.

    Returns:
        For users: what begins anew because the state has nothing for it, or does not fit.
    """
    try:
        content = Serializer.load(path)
        found, wanted = (content.get("optimizer_type"), type(optimizer).__name__) if isinstance(content, dict) else (None, "")
        if found is None and isinstance(content, dict) and _KEPT in content:
            return []  # it had none to keep
        if found != wanted:
            raise FedbiomedOptimizerError(f"it is that of a {found!r:.80}, the plan has a {wanted}")
        anew = optimizer.restore(content.get("state"))
    except (FedbiomedError, OSError) as error:
        logger.warning("the optimizer begins anew", exc_info=True)
        return [f"FB314: the optimizer's state of the round before is not used, it begins anew: {error}"]
    if anew:
        logger.warning("of the optimizer, %s begins anew", ", ".join(anew))
        return [f"FB314: of the optimizer, {', '.join(anew)} begins anew: the state of the round before has nothing for it"]
    return []


def keep(optimizer: BaseOptimizer, kept: Mapping[str, Any], path: str) -> tuple[bool, str | None]:
    """Write what the next round takes up.

    Args:
        optimizer: whose state is kept.
        kept: by the node's half of the algorithm.
        path: of the file.

    Returns:
        Whether there is such a file, and the kind of the optimizer, None where it keeps no state.

    Raises:
        FedbiomedRoundError: it cannot be written.
    """
    state = optimizer.get_state()
    if state is None and not kept:
        return False, None
    kind = None if state is None else type(optimizer).__name__
    content = {"optimizer_type": kind, "state": state}
    try:
        Serializer.dump({**content, _KEPT: dict(kept)} if kept else content, path)
    except OSError as error:
        raise FedbiomedRoundError(f"FB314: the node cannot write its state of the round to its disk: {error.strerror}") from error
    except FedbiomedError as error:
        raise FedbiomedRoundError(f"FB314: the state cannot be kept for the next round: {error}") from error
    return True, kind


def received_aux(files: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """The auxiliary variables in files, put together by module.

    Raises:
        FedbiomedRoundError: a file holds something else.
    """
    together: dict[str, dict[str, Any]] = {}
    for path in files:
        content = Serializer.load(path)
        if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
            raise FedbiomedRoundError("FB314: a file of auxiliary variables does not hold them by module")
        for module, values in content.items():
            together.setdefault(str(module), {}).update(values)
    return together
