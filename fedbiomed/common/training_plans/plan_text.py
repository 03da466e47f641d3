"""A training plan as text: find the source of a class, and write the file that travels.

Only the class's own text travels, below the import lines that the plan declares. So a class must be found wherever a user wrote it: in a
cell of a notebook (also when a later cell defines the same name again), a script or a module. Its methods know the file and line they were
compiled from, and Python's line cache knows the text of cells; that is what is asked here, not the module, which a notebook does not have.
"""

import ast
import inspect
import linecache
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError


def plan_source(plan_class: type[Any]) -> str:
    """Text of a class, without indentation.

    Raises:
        FedbiomedTrainingPlanError: it cannot be found (a class made by `exec`, or typed into the plain interpreter).
    """
    for code in _codes_of(plan_class):
        lines = linecache.getlines(code.co_filename)
        found = _class_text(lines, plan_class.__name__, code.co_firstlineno) if lines else None
        if found:
            return found
    try:
        return _dedented(inspect.getsource(plan_class).splitlines(keepends=True))
    except (OSError, TypeError) as error:
        raise FedbiomedTrainingPlanError(
            f"FB605: the source of class {plan_class.__name__} cannot be found ({error}): define it in a notebook cell, a script or "
            "a module, or give a file by training_plan_path"
        ) from error


def generated_file(imports: Sequence[str], source: str) -> str:
    """The file that travels: import lines (`from __future__` first, as Python wants it), then the class."""
    ordered = sorted(imports, key=lambda line: not line.startswith("from __future__"))
    return "\n".join(ordered) + "\n\n\n" + source.rstrip() + "\n"


def _codes_of(plan_class: type[Any]) -> Iterator[CodeType]:
    for value in vars(plan_class).values():
        function = inspect.unwrap(getattr(value, "__func__", None) or getattr(value, "fget", None) or value)
        code = getattr(function, "__code__", None)
        if code is not None and getattr(function, "__qualname__", "").startswith(f"{plan_class.__qualname__}."):
            yield code


def _class_text(lines: Sequence[str], name: str, line: int) -> str | None:
    """The text of the innermost class of that name around a line (counted from 1)."""
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == name and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not around:
        return None
    node = max(around, key=lambda found: found.lineno)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return _dedented(lines[first - 1 : node.end_lineno])


def _dedented(lines: Sequence[str]) -> str:
    """Lines moved to the left by the first one's indentation; those of a text in quotes that begin further left stay."""
    margin = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return "".join(line.removeprefix(margin) for line in lines).rstrip()
