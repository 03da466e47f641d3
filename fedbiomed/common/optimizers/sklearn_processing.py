"""How a scikit-learn model is trained by an optimizer that is not its own."""

import contextlib
import logging
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)


class SklearnOptimizerProcessing:
    """Within the block the model's own learning rate is the constant 1, so that its step is the gradient; afterwards all is as before.

    Args:
        model: a `SkLearnModel`.
        is_declearn_optimizer: False: the model does the steps itself, and nothing is changed.
    """

    def __init__(self, model: Any, is_declearn_optimizer: bool) -> None:
        self._model, self._is_declearn = model, is_declearn_optimizer
        self._changes = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._is_declearn:
            changed = self._changes.enter_context(self._model.unit_rate())
            if changed:
                told = ", ".join(f"{name} is {new!r} instead of {old!r}" for name, (old, new) in changed.items())
                logger.warning("scikit-learn's own learning rate is switched off while the plan's optimizer trains: %s", told)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._changes.close()
