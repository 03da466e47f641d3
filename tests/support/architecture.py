"""What the tree must look like: who imports whom, how long things are, and that importing a module does nothing else."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

# Which parts of the package may import which; a part always may import itself.
SIDES: Mapping[str, frozenset[str]] = {
    "common": frozenset(),
    "node": frozenset({"common"}),
    "researcher": frozenset({"common"}),
    "network": frozenset({"common"}),
    "simulation": frozenset({"common", "node", "researcher", "network"}),
    "demo": frozenset({"common", "node", "researcher", "network"}),
    "cli": frozenset({"common", "node", "researcher", "network", "simulation", "demo"}),
}

# Floors inside common, the ground first; single files of common are the ground.
FLOORS: Mapping[str, int] = {
    "messages": 1,
    "transport": 1,
    "models": 1,
    "data": 1,
    "optimizers": 2,
    "secagg": 2,
    "checkpointing": 2,
    "uncertainty": 2,
    "security": 1,
    "training_plans": 3,
}


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """Dotted module names of a package's files."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether it took a name from a package's `__init__`."""
    for node in ast.walk(_tree(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_package = known[node.module].name == "__init__.py"
                yield (submodule, False) if submodule in known else (node.module, is_package and node.module.count(".") > 0)


def import_faults(root: Path, package: str = "fedbiomed") -> list[str]:
    """Imports that climb, cross or take a name from a package's face instead of the file that defines it."""
    known = modules_of(root, package)
    faults = []
    for name, path in known.items():
        for target, from_face in imports_of(path, known):
            if from_face and path.name != "__init__.py":
                faults.append(f"{name} takes a name from the face of {target}: import from the file that defines it")
            faults += _climbs(name.split("."), target.split("."))
    return faults


def _climbs(source: list[str], target: list[str]) -> list[str]:
    if len(source) < 2 or len(target) < 2 or source[1] == "__main__":
        return []
    if source[1] != target[1]:
        is_allowed = target[1] in SIDES.get(source[1], frozenset())
        return [] if is_allowed else [f"{'.'.join(source)} may not import {'.'.join(target)}: {source[1]} knows no {target[1]}"]
    if source[1] != "common" or len(target) < 3:
        return []
    floor, other = FLOORS.get(source[2], 0) if len(source) > 2 else 0, FLOORS.get(target[2], 0)
    return [f"{'.'.join(source)} climbs to {'.'.join(target)}"] if other > floor else []


def import_circles(root: Path, package: str = "fedbiomed") -> list[str]:
    """Circles among the modules' imports, each as `a -> b -> a`."""
    known = modules_of(root, package)
    graph = {name: sorted({target for target, _ in imports_of(path, known)} - {name}) for name, path in known.items()}
    done: set[str] = set()
    circles: list[str] = []

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            circles.append(" -> ".join([*trail[trail.index(name) :], name]))
            return
        if name in done:
            return
        for target in graph[name]:
            visit(target, [*trail, name])
        done.add(name)

    for name in graph:
        visit(name, [])
    return circles


def size_faults(root: Path, package: str = "fedbiomed") -> list[str]:
    """Files and functions that are too long (a function's docstring does not count)."""
    faults = []
    for path in sorted((root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines >= MAX_FILE_LINES:
            faults.append(f"{path.relative_to(root)} has {lines} lines, under {MAX_FILE_LINES} are allowed")
        for node in ast.walk(_tree(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _length(node) >= MAX_FUNCTION_LINES:
                faults.append(
                    f"{path.relative_to(root)}:{node.lineno} {node.name} has {_length(node)} lines, under {MAX_FUNCTION_LINES} are allowed"
                )
    return faults


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    signature = node.body[0].lineno - node.lineno
    return (node.end_lineno or 0) - first.lineno + 1 + signature


def misplaced_names(root: Path, package: str = "fedbiomed") -> list[str]:
    """`sys.exit`, `argparse` and `assert` outside the places they belong to."""
    faults = []
    for name, path in modules_of(root, package).items():
        is_command = name.startswith(f"{package}.cli") or name == f"{package}.__main__"
        for node in ast.walk(_tree(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                faults.append(f"{name}:{node.lineno} asserts: raise instead, `python -O` removes asserts")
            if isinstance(node, ast.Import) and not is_command and any(alias.name == "argparse" for alias in node.names):
                faults.append(f"{name}:{node.lineno} imports argparse outside cli")
            if isinstance(node, ast.Attribute) and not is_command and ast.unparse(node) == "sys.exit":
                faults.append(f"{name}:{node.lineno} ends the process outside cli")
    return faults


_WATCHER = textwrap.dedent(
    """
    import importlib, json, logging, os, sys, threading
    root, names, preload = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    for name in preload:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    sys.path.insert(0, root)
    seen, faults = [], []

    def hook(event, args):
        if event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+"):
            if ".pyc" not in str(args[0]) and args[0] != os.devnull:
                seen.append(f"opens {args[0]} for writing")
        elif event in ("socket.__new__", "socket.bind", "socket.connect", "os.mkdir", "subprocess.Popen", "os.fork"):
            if not (event == "os.mkdir" and "__pycache__" in str(args[0])):
                seen.append(f"does {event} {args[:1]}")

    sys.addaudithook(hook)
    for name in names:
        seen.clear()
        threads, handlers = set(threading.enumerate()), list(logging.getLogger().handlers) + list(logging.getLogger("fedbiomed").handlers)
        environment = dict(os.environ)
        importlib.import_module(name)
        faults += [f"importing {name} {what}" for what in seen]
        faults += [f"importing {name} starts the thread {t.name}" for t in set(threading.enumerate()) - threads]
        now = list(logging.getLogger().handlers) + list(logging.getLogger("fedbiomed").handlers)
        faults += [f"importing {name} installs the log handler {h}" for h in now if h not in handlers]
        if dict(os.environ) != environment:
            faults.append(f"importing {name} changes the environment")
    print("FAULTS " + json.dumps(faults))
    """
)


def import_effects(root: Path, package: str = "fedbiomed") -> list[str]:
    """What importing the package's modules does beside defining names: files, sockets, processes, threads, log handlers.

    Other libraries are imported first, so that only what this package does is seen.
    """
    import json

    known = modules_of(root, package)
    names = [name for name in known if not name.endswith("__main__")]
    foreign = sorted({name for path in known.values() for name in _foreign(path, package)})
    answer = subprocess.run(
        [sys.executable, "-B", "-c", _WATCHER, str(root), json.dumps(names), json.dumps(foreign)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    line = next((line for line in answer.stdout.splitlines() if line.startswith("FAULTS ")), None)
    if line is None:
        return [f"the modules do not import: {answer.stderr.strip().splitlines()[-1:]}"]
    faults: list[str] = json.loads(line.removeprefix("FAULTS "))
    return faults


def _foreign(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(_tree(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] != package)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module.split(".")[0] != package:
            yield node.module
