"""A training plan's source: what makes two of them the same, and what it looks like to a reader.

Two sources are the same plan when Python reads the same syntax tree from them, docstrings apart: comments, docstrings, blank lines and
white space between words do not count, everything else does. A program can read its own docstrings, and comments from its own file, and
act on them: therefore a node runs the bytes that its operator looked at, not the equal ones that came with an order (see
`PlanRegistry.require_approved`).

Only UTF-8 is read. Under another encoding, named in a file's first lines, the operator would see other text than Python does.
"""

import ast
import contextlib
import difflib
import hashlib
import io
import sys
import tokenize
from functools import lru_cache

from fedbiomed.common.constants import HashingAlgorithms
from fedbiomed.common.exceptions import FedbiomedTrainingPlanSecurityManagerError

# A syntax tree takes up to a thousand times its text; plans of 250 lines have some 10 kB.
MAX_SOURCE_BYTES = 256 << 10
# The shape of syntax trees differs between Python releases, so a hash holds for one of them.
GRAMMAR = f"ast without docstrings {sys.version_info.major}.{sys.version_info.minor}"
_TRIES = 5
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_ENCODINGS = frozenset({"utf-8", "utf-8-sig"})


@lru_cache(maxsize=32)  # asked at every order, and always of the same few plans
def plan_hash(source: bytes, algorithm: str = HashingAlgorithms.SHA256) -> str:
    """Hash of the source's syntax tree without docstrings, in hex digits.

    Args:
        source: the plan's file.
        algorithm: a `HashingAlgorithms`.

    Raises:
        FedbiomedTrainingPlanSecurityManagerError: FB606: not Python, not UTF-8 or over 256 KiB.
    """
    tree = _without_docstrings(_tree(source))
    try:
        text = ast.dump(tree)
    except RecursionError as error:  # it can be parsed up to another depth
        raise _not_python("too deeply nested") from error
    return hashlib.new(algorithm.lower(), text.encode("utf-8", "surrogatepass")).hexdigest()


def class_name(source: bytes) -> str:
    """Name of the last class at the top of the source: the training plan.

    Raises:
        FedbiomedTrainingPlanSecurityManagerError: FB606: as `plan_hash`, or there is no class.
    """
    names = [node.name for node in _tree(source).body if isinstance(node, ast.ClassDef)]
    if not names:
        raise FedbiomedTrainingPlanSecurityManagerError("FB606: the training plan defines no class; its file holds the plan's class")
    return names[-1]


def plan_text(source: bytes) -> str:
    r"""The source as Python reads it, lines ended by `\n`."""
    return source.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def plan_diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """Unified difference of two texts, empty when they are equal."""
    lines = difflib.unified_diff(_lines(old), _lines(new), old_name, new_name, lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _tree(source: bytes) -> ast.Module:
    if len(source) > MAX_SOURCE_BYTES:
        raise FedbiomedTrainingPlanSecurityManagerError(
            f"FB606: a training plan of {len(source)} bytes, at most {MAX_SOURCE_BYTES} are read"
        )
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        if encoding not in _ENCODINGS:
            raise FedbiomedTrainingPlanSecurityManagerError(f"FB606: the training plan is written in {encoding}; save it as UTF-8")
        return _parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_python(str(error) or "too deeply nested") from error


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _parsed(source: bytes) -> ast.Module:
    """Parse; again where Python says SystemError: 3.11 keeps one depth for all threads, and another one may have parsed meanwhile."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


def _not_python(reason: str) -> FedbiomedTrainingPlanSecurityManagerError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return FedbiomedTrainingPlanSecurityManagerError(f"FB606: the training plan is not Python {version}: {reason}")
