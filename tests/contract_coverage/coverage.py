"""Where each public name is defined, and which test uses it; written into `table.md` by `python -m tests.contract_coverage.coverage`.

A test uses `Class.member` when it, or a function or fixture of its file that it names, has `.member`, or the string "member" (for
`getattr`), and its file speaks of the class. A name without an owner is used where it is named.
"""

import ast
import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.contract_names import PENDING, ContractName, contract_names

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.md")
_HEAD = """# Public names, where they are, and a test that uses them

Written by `python -m tests.contract_coverage.coverage`; `tests/contract_coverage/test_coverage.py` fails when it is out of date.

| name | defined | used by |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; an empty text is a fault."""

    name: ContractName
    defined: str
    used: str


@dataclass(frozen=True, slots=True)
class TestFile:
    """What a file of tests speaks of: in all of it, and test by test."""

    __test__ = False

    path: str
    words: frozenset[str]
    tests: Mapping[str, frozenset[str]]


@cache
def rows() -> tuple[Row, ...]:
    """The whole table, without what is pending."""
    files = test_files()
    return tuple(Row(name, defined_at(name) or "", used_by(name, files) or "") for name in contract_names() if name.label not in PENDING)


def table_text() -> str:
    """The table as it should be in `table.md`."""
    lines = [f"| `{row.name.label}` | {row.defined} | {row.used} |\n" for row in rows()]
    pending = [f"| `{name.label}` | pending | |\n" for name in contract_names() if name.label in PENDING]
    return _HEAD + "".join(lines) + "".join(pending)


def found(name: ContractName) -> Any:
    """The object behind a name.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    target: Any = importlib.import_module(name.module)
    for part in name.name.split("."):
        target = inspect.getattr_static(target, part) if inspect.isclass(target) else getattr(target, part)
    return target


def defined_at(name: ContractName) -> str | None:
    """File of a definition, None where there is none."""
    owner, _, member = name.name.rpartition(".")
    try:
        if not owner:
            return _place(name.module, member) or _place(getattr(found(name), "__module__", name.module), member) or _handed_on(name)
        return _member_place(found(ContractName(name.module, owner)), member)
    except (ImportError, AttributeError):
        return None


def _place(module: str, name: str) -> str | None:
    """Where a module binds a name by more than an import; the module itself is not imported."""
    spec = importlib.util.find_spec(module)
    path = Path((spec and spec.origin) or "")
    for node in _tree(path).body if path.is_relative_to(ROOT / "fedbiomed") else []:
        if name in _names_bound_by(node):
            return _relative(path)
    return None


def _handed_on(name: ContractName) -> str | None:
    """Where a module of ours imports what a library defines."""
    path = Path(inspect.getsourcefile(importlib.import_module(name.module)) or "")
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name.name for alias in node.names):
            return _relative(path)
    return None


def _names_bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _member_place(owner: type[Any], member: str) -> str | None:
    for base in owner.__mro__:
        if not base.__module__.startswith("fedbiomed"):
            continue
        path = Path(inspect.getsourcefile(base) or "")
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef) and node.name == base.__name__ and _is_in_class(node, member):
                return f"{_relative(path)} ({base.__name__})"
    return None


def _is_in_class(owner: ast.ClassDef, member: str) -> bool:
    if any(member in _names_bound_by(node) for node in owner.body):
        return True
    stored = (node for node in ast.walk(owner) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return any(ast.unparse(node) == f"self.{member}" for node in stored)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _relative(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix()


def used_by(name: ContractName, files: Sequence[TestFile]) -> str | None:
    """`file::test` of the first test that uses a name, None where none does."""
    owner, _, member = name.name.rpartition(".")
    owners = {owner, *_derived(name.module, owner)}
    for file in files:
        if owner and not owners & file.words:
            continue
        for test, words in file.tests.items():
            if member in words:
                return f"{file.path}::{test}"
    return None


@cache
def _derived(module: str, owner: str) -> frozenset[str]:
    """Names of the classes in the list that are derived from one of it."""
    base = _class(ContractName(module, owner)) if owner else None
    if base is None:
        return frozenset()
    listed = [_class(name) for name in contract_names() if "." not in name.name]
    return frozenset(known.__name__ for known in listed if known is not None and issubclass(known, base))


def _class(name: ContractName) -> type[Any] | None:
    """The class of a name; what begins small is none, and its module is not imported."""
    try:
        target = found(name) if name.name[0].isupper() else None
    except (ImportError, AttributeError):
        return None
    return target if inspect.isclass(target) else None


@cache
def test_files() -> tuple[TestFile, ...]:
    """All files of tests but those that speak about this table."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(test_file(path) for path in paths if path.parent != Path(__file__).parent)


test_files.__test__ = False  # type: ignore[attr-defined]


def test_file(path: Path) -> TestFile:
    """What one file speaks of."""
    tree = _tree(path)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    constants = {name: node for node in tree.body for name in _names_bound_by(node) if isinstance(node, ast.Assign | ast.AnnAssign)}
    helpers = functions | constants
    tests = {name: frozenset(_words(node, helpers, frozenset({name}))) for name, node in functions.items() if name.startswith("test_")}
    return TestFile(_relative(path), frozenset(word for node in ast.walk(tree) for word in _words_of(node)), tests)


test_file.__test__ = False  # type: ignore[attr-defined]


def _words(node: ast.AST, helpers: Mapping[str, ast.AST], seen: frozenset[str]) -> Iterator[str]:
    for part in ast.walk(node):
        for word in _words_of(part):
            yield word
            if word in helpers and word not in seen:
                seen |= {word}
                yield from _words(helpers[word], helpers, seen)


def _words_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.alias):
        return [node.name.rpartition(".")[2], node.asname or ""]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        return [node.value]
    return []


if __name__ == "__main__":
    TABLE.write_text(table_text(), encoding="utf-8")
