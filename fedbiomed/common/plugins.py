"""Load a family's member by its name; a name is a file in the family's folder, and nothing else is loaded.

A name may come from the network or from a file, so it never reaches the import system before it was found on disk.
"""

import functools
import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import TypeVar

from fedbiomed.common.exceptions import FedbiomedPluginError

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def member_names(family: ModuleType) -> list[str]:
    """Names of the files of a family, sorted; those that begin with an underscore are not members. A process looks once."""
    return list(_names_in(tuple(family.__path__)))


@functools.cache
def _names_in(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folders) if _NAME.fullmatch(module.name)))


def load_member(family: ModuleType, name: str) -> ModuleType:
    """Import one file of a family.

    Args:
        family: the package whose folder holds the members.
        name: the file's name without `.py`.

    Raises:
        FedbiomedPluginError: there is no such file in the folder.
    """
    known = member_names(family)
    if name not in known:
        raise FedbiomedPluginError(f"{family.__name__} has no {name!r:.80}; it has {', '.join(known)}")
    return importlib.import_module(f"{family.__name__}.{name}")


def load_class(family: ModuleType, module_name: str, class_name: str, base: type[T]) -> type[T]:
    """Find a class that a file of a family defines.

    Args:
        family: the package whose folder holds the members.
        module_name: dotted name of a module directly in that package, or the bare file name.
        class_name: name of the class.
        base: what the class must be derived from.

    Raises:
        FedbiomedPluginError: the module is not of this family, or does not define such a class.
    """
    name = module_name.removeprefix(f"{family.__name__}.")
    found = getattr(load_member(family, name), class_name, None)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise FedbiomedPluginError(f"{family.__name__}.{name} has no {base.__name__} called {class_name!r:.80}")
    return found
