"""A plan's text is found wherever its class was written, and the file that travels is made of it."""

import importlib.util
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans import FedPerceptron, FedSGDClassifier, FedSGDRegressor
from fedbiomed.common.training_plans.plan_text import generated_file, plan_source
from fedbiomed.common.training_plans.source import load_plan_from_file
from tests.support.plans import LinePlan
from tests.support.tiny_plan import Demanding, TinyPlan

BUILT_IN = [
    "import torch",
    "import torch.nn as nn",
    "import torch.nn.functional as F",
    "from fedbiomed.common.training_plans import TorchTrainingPlan",
    "from fedbiomed.common.data import DataManager",
    "from fedbiomed.common.constants import ProcessTypes",
    "from torch.utils.data import DataLoader",
    "from torchvision import datasets, transforms",
]
COMMON_SKLEARN = [
    "import inspect",
    "import numpy as np",
    "import pandas as pd",
    "from fedbiomed.common.training_plans import SKLearnTrainingPlan",
    "from fedbiomed.common.data import DataManager",
]
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[InteractiveShell]:
    hooks = sys.displayhook, sys.excepthook
    main = sys.modules["__main__"]
    yield _shell(tmp_path)
    sys.displayhook, sys.excepthook = hooks
    sys.modules["__main__"] = main


def _shell(tmp_path: Path) -> InteractiveShell:
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.ipython_dir = str(tmp_path)
    return InteractiveShell(config=config)


def run(shell: InteractiveShell, cell: str) -> None:
    shell.run_cell(textwrap.dedent(cell), store_history=True).raise_error()


def from_module(folder: Path, text: str, name: str = "plan") -> Any:
    """The class `Plan` of a module file that was imported as users do."""
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Plan


def test_class_of_an_imported_module_is_found() -> None:
    text = plan_source(TinyPlan)
    assert text.startswith("class TinyPlan(TorchTrainingPlan):\n")
    assert text.endswith("return ((self.model()(data) - target) ** 2).mean()")
    assert "Unimportable" not in text


def test_class_that_only_overrides_the_constructor_is_found() -> None:
    assert plan_source(Demanding).splitlines()[0] == "class Demanding(TinyPlan):"


def test_nested_classes_static_methods_and_properties_are_part_of_it(tmp_path: Path) -> None:
    plan = from_module(
        tmp_path,
        '''
        class Plan:
            """A plan."""

            limit = 3

            class Net:
                def forward(self, x):
                    return x

            @staticmethod
            def helper(x):
                return x + 1

            @classmethod
            def make(cls):
                return cls()

            @property
            def name(self):
                return "plan"


        after = 1
        ''',
    )
    text = plan_source(plan)
    assert text.startswith("class Plan:\n")
    assert text.endswith('return "plan"')
    for part in ("class Net:", "@staticmethod", "@classmethod", "@property", "limit = 3"):
        assert part in text
    assert "after" not in text


def test_class_that_begins_with_a_nested_class_of_the_same_name_is_found_whole(tmp_path: Path) -> None:
    plan = from_module(tmp_path, "class Plan:\n    class Plan:\n        def inner(self): return 1\n\n    def outer(self): return 2\n")
    assert "outer" in plan_source(plan)


def test_decorated_class_keeps_its_decorators(tmp_path: Path) -> None:
    plan = from_module(
        tmp_path,
        """
        import functools

        def marked(kind):
            return lambda plan: plan

        @marked("a")
        @functools.total_ordering
        class Plan:
            def __lt__(self, other):
                return False
        """,
    )
    assert plan_source(plan).splitlines()[:3] == ['@marked("a")', "@functools.total_ordering", "class Plan:"]


def test_class_without_methods_is_found(tmp_path: Path) -> None:
    plan = from_module(tmp_path, "class Plan:\n    rate = 0.1\n\nother = 2\n", name="methodless")
    sys.modules["methodless"] = sys.modules.get("methodless", type(sys)("methodless"))
    try:
        sys.modules["methodless"].__file__ = str(tmp_path / "methodless.py")
        assert plan_source(plan) == "class Plan:\n    rate = 0.1"
    finally:
        del sys.modules["methodless"]


def test_class_inside_a_function_loses_its_indentation_but_not_its_long_strings() -> None:
    class Inside:
        text = """
first
"""

        def method(self) -> int:
            return 1

    assert plan_source(Inside) == ('class Inside:\n    text = """\nfirst\n"""\n\n    def method(self) -> int:\n        return 1')


def test_class_of_a_notebook_cell_is_found(shell: InteractiveShell) -> None:
    run(shell, "class Plan:\n    def step(self):\n        return 1\n\nx = 5\n")
    assert plan_source(shell.user_ns["Plan"]) == "class Plan:\n    def step(self):\n        return 1"


def test_class_defined_again_in_a_later_cell_is_the_later_one(shell: InteractiveShell) -> None:
    run(shell, "class Plan:\n    def step(self):\n        return 1\n")
    first = shell.user_ns["Plan"]
    run(shell, "y = 1\n\n\nclass Plan:\n    def step(self):\n        return 2\n")
    assert "return 2" in plan_source(shell.user_ns["Plan"])
    assert "return 1" in plan_source(first)


def test_class_defined_twice_in_one_cell_is_the_later_one(shell: InteractiveShell) -> None:
    run(shell, "class Plan:\n    def step(self):\n        return 1\n\nclass Plan:\n    def step(self):\n        return 2\n")
    assert plan_source(shell.user_ns["Plan"]) == "class Plan:\n    def step(self):\n        return 2"


def test_class_of_a_cell_with_magic_commands_is_found(shell: InteractiveShell) -> None:
    run(shell, "%precision 3\n\nclass Plan:\n    def step(self):\n        return 1\n")
    assert plan_source(shell.user_ns["Plan"]).startswith("class Plan:")


def test_method_replaced_from_elsewhere_does_not_lead_astray(shell: InteractiveShell) -> None:
    run(shell, "class Plan:\n    def step(self):\n        return 1\n")
    plan = shell.user_ns["Plan"]
    run(shell, "class Plan2:\n    def step(self):\n        return 2\n")
    plan.step = shell.user_ns["Plan2"].step
    plan.other = TinyPlan.init_model
    with pytest.raises(FedbiomedTrainingPlanError):
        plan_source(plan)


def test_class_without_source_is_a_clear_error() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec("class Plan:\n    def step(self):\n        return 1\n", names)
    with pytest.raises(FedbiomedTrainingPlanError, match=r"source of class Plan cannot be found.*training_plan_path"):
        plan_source(names["Plan"])


def test_generated_file_is_imports_then_class() -> None:
    text = generated_file(["import b", "import a", "from __future__ import annotations"], "class A:\n    pass\n\n\n")
    assert text == "from __future__ import annotations\nimport b\nimport a\n\n\nclass A:\n    pass\n"


def test_built_in_lines_of_torch_stand_first_in_their_order() -> None:
    assert TinyPlan().builtin_dependencies() == BUILT_IN
    plan = LinePlan()
    plan.configure_dependencies()
    wanted = BUILT_IN if HAS_TORCHVISION else BUILT_IN[:-1]
    assert plan.source_text().splitlines()[: len(wanted) + 1] == [*wanted, "import pandas as pd"]


@pytest.mark.parametrize(
    ("kind", "estimator"), [(FedSGDClassifier, "SGDClassifier"), (FedPerceptron, "SGDClassifier"), (FedSGDRegressor, "SGDRegressor")]
)
def test_built_in_lines_of_sklearn(kind: Any, estimator: str) -> None:
    class Plan(kind):  # type: ignore[misc]
        def training_data(self) -> None:
            return None

    lines = Plan().builtin_dependencies()
    mine = f"from fedbiomed.common.training_plans import {kind.__name__}"
    assert lines == [*COMMON_SKLEARN, f"from sklearn.linear_model import {estimator}", mine]


def test_lines_are_not_repeated_however_often_they_are_declared() -> None:
    class Plan(TinyPlan):
        def init_dependencies(self) -> list[str]:
            return ["import torch", "import math", "import math"]

    plan = Plan()
    plan.add_dependency(["import json"])
    plan.configure_dependencies()
    plan.configure_dependencies()
    lines = plan.source_text().splitlines()
    assert lines[0] == "import torch"
    assert [lines.count(line) for line in ("import torch", "import math", "import json")] == [1, 1, 1]


@pytest.mark.parametrize("wrong", [None, "import math", [1]])
def test_dependencies_that_are_no_list_of_lines_are_a_clear_error(wrong: Any) -> None:
    plan = TinyPlan()
    with pytest.raises(FedbiomedTrainingPlanError, match=r"add_dependency\(\) takes a list of import lines, not"):
        plan.add_dependency(wrong)
    plan.configure_dependencies()
    assert plan.source_text().startswith("import torch\n")


@pytest.mark.parametrize("wrong", [None, "import math", [1], {"a": 1}])
def test_init_dependencies_that_returns_something_else_is_refused(wrong: Any) -> None:
    class Plan(TinyPlan):
        def init_dependencies(self) -> Any:
            return wrong

    with pytest.raises(FedbiomedTrainingPlanError, match="list of import lines"):
        Plan().configure_dependencies()


def test_torchvision_is_left_out_where_it_is_not_installed() -> None:
    plan = TinyPlan()
    plan.configure_dependencies()
    assert ("torchvision" in plan.source_text()) == HAS_TORCHVISION


def test_saved_file_loads_and_gives_the_same_file_again(tmp_path: Path) -> None:
    plan = LinePlan()
    plan.configure_dependencies()
    plan.save_code(tmp_path / "plan_saved_again.py")
    saved = (tmp_path / "plan_saved_again.py").read_bytes()
    loaded: Any = load_plan_from_file(tmp_path / "plan_saved_again.py", "LinePlan")
    try:
        again = loaded()
        again.configure_dependencies()
        again.save_code(tmp_path / "again.py")
    finally:
        del sys.modules["plan_saved_again"]
    assert (tmp_path / "again.py").read_bytes() == saved


def test_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FedbiomedTrainingPlanError, match=r"cannot write the training plan to .*missing"):
        TinyPlan().save_code(tmp_path / "missing" / "plan.py")
