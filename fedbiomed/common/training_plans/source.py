"""Import a training plan's class from the file that travels: these very bytes, and nothing read from disk."""

import importlib.abc
import importlib.util
import inspect
import linecache
import sys
import traceback
import uuid
from pathlib import Path
from types import ModuleType

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan


def load_plan_from_bytes(source: bytes, class_name: str, module_name: str) -> type[BaseTrainingPlan]:
    """Import a plan's class from these very bytes.

    Args:
        source: the file's content.
        class_name: of the plan.
        module_name: under which the module stands in `sys.modules` afterwards.

    Raises:
        FedbiomedTrainingPlanError: it does not import (which line, why), or has no such class of a training plan.
    """
    return _loaded(_BytesLoader(source, f"<{module_name}>"), class_name, module_name)


def load_plan_from_file(path: str | Path, class_name: str) -> type[BaseTrainingPlan]:
    """Import a plan's class from a file; the module is called like the file, or else anew where that name is taken.

    Raises:
        FedbiomedTrainingPlanError: as `load_plan_from_bytes`, or the file cannot be read.
    """
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FedbiomedTrainingPlanError(f"FB605: cannot read the training plan {path}: {error.strerror}") from error
    module_name = path.stem if _is_free(path.stem) else f"{path.stem.replace('.', '_')}_{uuid.uuid4().hex}"
    linecache.checkcache(str(path))
    return _loaded(_BytesLoader(source, str(path)), class_name, module_name)


def _is_free(name: str) -> bool:
    """Whether no module is or could be imported under a name: `queue.py` must not stand in the standard library's place."""
    return "." not in name and name not in sys.modules and importlib.util.find_spec(name) is None


class _BytesLoader(importlib.abc.SourceLoader):
    """Gives a module the bytes that it was handed, and reads no file."""

    def __init__(self, source: bytes, filename: str) -> None:
        self._source = source
        self._filename = filename

    def get_filename(self, fullname: str) -> str:
        return self._filename

    def get_data(self, path: str | bytes) -> bytes:
        return self._source


def _loaded(loader: _BytesLoader, class_name: str, module_name: str) -> type[BaseTrainingPlan]:
    module = _executed(loader, module_name)
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, BaseTrainingPlan)):
        sys.modules.pop(module_name, None)
        names = [name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
        raise FedbiomedTrainingPlanError(
            f"FB605: the training plan's file defines no training plan class {class_name!r}; it defines {', '.join(names) or 'no class'}"
        )
    return found


def _executed(loader: _BytesLoader, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(module_name, loader, origin=loader.get_filename(module_name))
    if spec is None:
        raise FedbiomedTrainingPlanError(f"FB605: cannot import a module called {module_name!r}")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = loader.get_filename(module_name)
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except KeyboardInterrupt:
        sys.modules.pop(module_name, None)
        raise
    except BaseException as error:  # a plan may raise anything, SystemExit too
        sys.modules.pop(module_name, None)
        raise FedbiomedTrainingPlanError(f"FB605: the training plan does not import: {_where(error, loader)}") from error
    return module


def _where(error: BaseException, loader: _BytesLoader) -> str:
    what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    if isinstance(error, SyntaxError) and error.lineno is not None and error.filename == loader.get_filename(""):
        return f"line {error.lineno}: {what}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == loader.get_filename("")]
    return f"line {lines[-1]}: {what}" if lines else what
