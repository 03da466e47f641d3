"""A plan's file is imported from its bytes; what is wrong with it is said with its line, and nothing of it stays behind."""

import importlib.util
import linecache
import sys
import traceback

import pytest

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.training_plans.source import load_plan_from_bytes, load_plan_from_file

GOOD = b"""from fedbiomed.common.training_plans import TorchTrainingPlan


class Plan(TorchTrainingPlan):
    answer = 42

    def init_model(self):
        return None

    def training_data(self):
        return None

    def training_step(self, data, target):
        return None
"""
HEAD = b"from fedbiomed.common.training_plans import TorchTrainingPlan\n\n"


@pytest.fixture(autouse=True)
def modules():
    """Modules that a test adds go with it; gives the names that were there."""
    before = dict(sys.modules)
    yield set(before)
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def refusal(source, class_name="Plan", module_name="plan_under_test"):
    with pytest.raises(FedbiomedTrainingPlanError) as caught:
        load_plan_from_bytes(source, class_name, module_name)
    assert module_name not in sys.modules
    return str(caught.value)


def test_class_is_imported_under_the_name_that_was_given():
    plan = load_plan_from_bytes(GOOD, "Plan", "plan_under_test")
    assert issubclass(plan, TorchTrainingPlan)
    assert (plan.answer, plan.__module__, sys.modules["plan_under_test"].Plan) == (42, "plan_under_test", plan)


@pytest.mark.parametrize(
    ("tail", "line", "cause"),
    [
        (b"class Plan(TorchTrainingPlan)\n    pass\n", 3, "SyntaxError: expected ':'"),
        (b"class Plan(TorchTrainingPlan):\n    a = 1\n      b = 2\n", 5, "IndentationError: unexpected indent"),
        (b"\nimport no_such_library_at_all\n", 4, "ModuleNotFoundError: No module named 'no_such_library_at_all'"),
        (b"from math import no_such_name\n", 3, "ImportError: cannot import name 'no_such_name'"),
        (b"rows = 1\nother = rows / 0\n", 4, "ZeroDivisionError: division by zero"),
        (b"class Plan(TorchTrainingPlan):\n    net = undefined\n", 4, "NameError: name 'undefined' is not defined"),
        (b"raise SystemExit(3)\n", 3, "SystemExit: 3"),
        (b"import sys\nsys.exit('bye')\n", 4, "SystemExit: bye"),
        (b"raise GeneratorExit\n", 3, "GeneratorExit"),
        (b"def f():\n    raise ValueError('deep')\n\nf()\n", 4, "ValueError: deep"),
    ],
)
def test_what_goes_wrong_is_told_with_its_line(tail, line, cause):
    text = refusal(HEAD + tail)
    assert "does not import" in text
    assert f"line {line}: {cause}" in text
    assert "\n" not in text


@pytest.mark.parametrize("source", [b"\xff\xfe\x00", b"x = '\x00'\n", b"# -*- coding: no-such-code -*-\n", b"\xef\xbb\xbfx = (\n"])
def test_bytes_that_are_no_python_text_are_a_clear_error(source):
    text = refusal(source)
    assert "does not import" in text
    assert "line None" not in text


def test_wrong_syntax_in_another_file_is_told_with_the_plan_s_own_line(tmp_path):
    (tmp_path / "helper_of_plan.py").write_text("\n\n\n\n\nx = = 1\n")
    source = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport helper_of_plan\n".encode()
    try:
        assert "line 3: SyntaxError" in refusal(source)
    finally:
        sys.path.remove(str(tmp_path))


def test_interruption_comes_through_and_leaves_nothing():
    with pytest.raises(KeyboardInterrupt):
        load_plan_from_bytes(b"raise KeyboardInterrupt\n", "Plan", "plan_under_test")
    assert "plan_under_test" not in sys.modules


def test_missing_class_says_what_there_is():
    text = refusal(GOOD + b"\n\nclass Other:\n    pass\n", class_name="Missing")
    assert "no training plan class 'Missing'" in text
    assert "it defines Plan, Other" in text


@pytest.mark.parametrize("source", [b"Plan = 3\n", b"class Plan:\n    pass\n", b"def Plan():\n    pass\n", b""])
def test_what_is_no_training_plan_is_refused(source):
    assert "no training plan class 'Plan'" in refusal(source)


def test_module_of_that_name_survives_a_failed_load():
    first = load_plan_from_bytes(GOOD, "Plan", "plan_under_test")
    with pytest.raises(FedbiomedTrainingPlanError):
        load_plan_from_bytes(b"1 / 0\n", "Plan", "plan_under_test")
    assert first.__module__ not in sys.modules or sys.modules["plan_under_test"].Plan is first


def test_plan_that_removes_its_own_module_is_still_a_clear_error():
    text = refusal(b"import sys\ndel sys.modules[__name__]\n1 / 0\n")
    assert "line 3: ZeroDivisionError" in text


def test_file_is_loaded_under_its_stem(tmp_path):
    (tmp_path / "my_own_plan.py").write_bytes(GOOD)
    plan = load_plan_from_file(tmp_path / "my_own_plan.py", "Plan")
    assert plan.__module__ == "my_own_plan"
    assert sys.modules["my_own_plan"].__file__ == str(tmp_path / "my_own_plan.py")


def test_path_may_be_text(tmp_path):
    (tmp_path / "my_own_plan.py").write_bytes(GOOD)
    assert load_plan_from_file(str(tmp_path / "my_own_plan.py"), "Plan").answer == 42


def test_two_files_of_the_same_stem_stay_apart(tmp_path):
    classes = []
    for folder, answer in (("a", b"1"), ("b", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twin_plan.py").write_bytes(GOOD.replace(b"42", answer))
        classes.append(load_plan_from_file(tmp_path / folder / "twin_plan.py", "Plan"))
    assert [plan.answer for plan in classes] == [1, 2]
    assert all(sys.modules[plan.__module__].Plan is plan for plan in classes)


def test_changed_file_loaded_again_is_the_new_one(tmp_path):
    path = tmp_path / "changing_plan.py"
    path.write_bytes(GOOD)
    load_plan_from_file(path, "Plan")
    path.write_bytes(GOOD.replace(b"42", b"43"))
    assert load_plan_from_file(path, "Plan").answer == 43


@pytest.mark.parametrize("name", ["queue.py", "json.py", "torch.py", "fedbiomed.py", "my.plan.py", "my-plan.py"])
def test_file_called_like_a_library_does_not_take_its_place(tmp_path, name):
    stem = name.removesuffix(".py")
    before = sys.modules.get(stem)
    (tmp_path / name).write_bytes(GOOD)
    assert load_plan_from_file(tmp_path / name, "Plan").answer == 42
    if importlib.util.find_spec(stem.split(".")[0]) is not None and before is not None:
        assert sys.modules[stem] is before


def test_class_loaded_from_a_file_can_be_written_again(tmp_path):
    (tmp_path / "again_plan.py").write_bytes(GOOD)
    plan = load_plan_from_file(tmp_path / "again_plan.py", "Plan")()
    assert "answer = 42" in plan.source_text()


def test_file_that_is_missing_or_a_folder_is_a_clear_error(tmp_path):
    with pytest.raises(FedbiomedTrainingPlanError, match=r"cannot read the training plan .*nowhere\.py: No such file"):
        load_plan_from_file(tmp_path / "nowhere.py", "Plan")
    with pytest.raises(FedbiomedTrainingPlanError, match="cannot read the training plan"):
        load_plan_from_file(tmp_path, "Plan")


def test_broken_file_leaves_no_module(tmp_path, modules):
    (tmp_path / "broken_plan.py").write_bytes(HEAD + b"1 / 0\n")
    with pytest.raises(FedbiomedTrainingPlanError, match="line 3: ZeroDivisionError"):
        load_plan_from_file(tmp_path / "broken_plan.py", "Plan")
    assert set(sys.modules) <= modules


def test_errors_in_a_file_s_methods_show_its_lines(tmp_path):
    path = tmp_path / "failing_plan.py"
    path.write_bytes(GOOD.replace(b"def init_model(self):\n        return None", b"def init_model(self):\n        return 1 / 0"))
    linecache.clearcache()
    plan = load_plan_from_file(path, "Plan")()
    with pytest.raises(ZeroDivisionError) as caught:
        plan.init_model()
    assert traceback.extract_tb(caught.tb)[-1].line == "return 1 / 0"
