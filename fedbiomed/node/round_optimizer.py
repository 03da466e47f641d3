"""A round's optimizer: its state from the round before, and auxiliary variables from the researcher. Runs in the training process."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedOptimizerError, FedbiomedRoundError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.serializer import Serializer

logger = logging.getLogger(__name__)


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


def keep(optimizer: BaseOptimizer, path: str) -> str | None:
    """Write the state for the next round; gives the kind of the optimizer, None where it keeps none.

    Raises:
        FedbiomedRoundError: it cannot be written.
    """
    state = optimizer.get_state()
    if state is None:
        return None
    kind = type(optimizer).__name__
    try:
        Serializer.dump({"optimizer_type": kind, "state": state}, path)
    except OSError as error:
        raise FedbiomedRoundError(f"FB314: the node cannot write the optimizer's state to its disk: {error.strerror}") from error
    except FedbiomedError as error:
        raise FedbiomedRoundError(f"FB314: the optimizer's state cannot be kept for the next round: {error}") from error
    return kind


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
