"""The house rules that a program can check, and that each check can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import architecture

ROOT = Path(__file__).resolve().parent.parent


def test_no_import_climbs_or_crosses() -> None:
    assert architecture.import_faults(ROOT) == []


def test_no_import_goes_round() -> None:
    assert architecture.import_circles(ROOT) == []


@pytest.mark.parametrize("package", ["fedbiomed", "tests", "benchmarks"])
def test_files_and_functions_are_short(package: str) -> None:
    assert architecture.size_faults(ROOT, package) == []


def test_assert_argparse_and_exit_stay_where_they_belong() -> None:
    assert architecture.misplaced_names(ROOT) == []


def test_importing_any_module_does_nothing_else() -> None:
    assert architecture.import_effects(ROOT) == []


@pytest.mark.parametrize("module", ["fedbiomed", "fedbiomed.cli.main", "fedbiomed.node.daemon", "fedbiomed.network.serve"])
def test_no_torch_where_it_is_not_needed(module: str) -> None:
    code = f"import sys, {module}; sys.exit(str({{'torch', 'sklearn', 'pandas', 'matplotlib'}} & set(sys.modules) or '') or 0)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "fedbiomed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in [path.parent, *path.parent.parents]:
            if folder == root:
                break
            (folder / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    return root


def test_the_check_sees_an_import_that_crosses(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"node/a.py": "from fedbiomed.researcher.b import x\n", "researcher/b.py": "x = 1\n"})
    assert architecture.import_faults(root) == ["fedbiomed.node.a may not import fedbiomed.researcher.b: node knows no researcher"]


def test_the_check_sees_an_import_that_climbs(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        {"common/messages/a.py": "def f():\n    from fedbiomed.common.training_plans import b\n", "common/training_plans/b.py": ""},
    )
    assert architecture.import_faults(root) == ["fedbiomed.common.messages.a climbs to fedbiomed.common.training_plans.b"]


def test_the_check_sees_a_name_taken_from_a_face(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"node/a.py": "from fedbiomed.common.data import DataManager\n", "common/data/b.py": ""})
    assert "takes a name from the face" in architecture.import_faults(root)[0]


def test_the_check_sees_a_circle(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"node/a.py": "import fedbiomed.node.b\n", "node/b.py": "from fedbiomed.node import a\n"})
    assert architecture.import_circles(root) == ["fedbiomed.node.a -> fedbiomed.node.b -> fedbiomed.node.a"]


def test_the_check_sees_long_files_and_functions(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"node/a.py": "x = 1\n" * 400, "node/b.py": "def f():\n" + "    x = 1\n" * 40})
    faults = architecture.size_faults(root)
    assert [fault.split(" has ")[0] for fault in faults] == ["fedbiomed/node/a.py", "fedbiomed/node/b.py:1 f"]


def test_the_check_sees_an_assert_and_an_exit(tmp_path: Path) -> None:
    root = _tree(tmp_path, {"node/a.py": "import argparse\nimport sys\nassert sys.argv\nsys.exit(1)\n"})
    assert len(architecture.misplaced_names(root)) == 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('left-behind', 'w').close()", "for writing"),
        ("import threading\nthreading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()", "starts the thread"),
        ("import socket\nsocket.socket()", "socket.__new__"),
        ("import logging\nlogging.getLogger('fedbiomed').addHandler(logging.NullHandler())", "installs the log handler"),
        ("import os\nos.environ['FBM_X'] = '1'", "changes the environment"),
    ],
    ids=["file", "thread", "socket", "handler", "environment"],
)
def test_the_check_sees_what_an_import_does(tmp_path: Path, code: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    faults = architecture.import_effects(_tree(tmp_path, {"node/a.py": code + "\n"}))
    assert len(faults) == 1
    assert expected in faults[0]
