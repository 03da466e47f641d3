"""Calls of what a user wrote: whatever it raises is told with the method's name and the line in the plan."""

import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedTrainingPlanError

_MAX_TEXT = 500


def call_user(plan: object, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a plan; see `call_function`."""
    return call_function(plan, getattr(plan, method), method, *args, **kwargs)


def make_plan(plan_class: type[Any]) -> Any:
    """Make a plan, which takes no argument.

    Raises:
        FedbiomedTrainingPlanError: its `__init__` wants an argument or raised something: see `call_function`.
    """
    try:
        inspect.signature(plan_class).bind()
    except TypeError as error:
        raise FedbiomedTrainingPlanError(
            f"FB605: plan {plan_class.__name__} cannot be made without arguments: {error}; what it needs comes to its hooks by model_args "
            "and training_args"
        ) from error
    return call_function(plan_class, plan_class, "__init__")


def call_function(plan: object, function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    """Call what a plan's user wrote.

    Raises:
        FedbiomedTrainingPlanError: it raised something: what, and on which line of the plan's file. Errors of this project and
            MemoryError come through as they are.
    """
    plan_class = plan if isinstance(plan, type) else type(plan)
    try:
        return function(*args, **kwargs)
    except (FedbiomedError, MemoryError):
        raise
    except Exception as error:  # user code may raise anything; this is the one place where that is translated
        what = f"{type(error).__name__}: {str(error)[:_MAX_TEXT]}{_line(plan_class, error)}"
        raise FedbiomedTrainingPlanError(f"FB605: {name}() of plan {plan_class.__name__} raised {what}") from error


def _line(plan_class: type[Any], error: Exception) -> str:
    """Where in the plan's own file it happened, if there is such a file."""
    file = getattr(sys.modules.get(plan_class.__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]} of the plan)" if lines else ""
