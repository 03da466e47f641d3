"""FLamby's datasets (https://github.com/owkin/FLamby), which the operator installs beside this package."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from fedbiomed.common.exceptions import FedbiomedDatasetError


def discover_flamby_datasets() -> dict[int, str]:
    """Names of the modules of `flamby.datasets`, numbered in alphabetical order.

    Raises:
        FedbiomedDatasetError: FLamby is not installed.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(_family().__path__) if module.name.startswith("fed_"))
    return dict(enumerate(names))


def fed_class(name: str) -> Any:
    """`FedClass` of a module of `flamby.datasets`.

    Raises:
        FedbiomedDatasetError: FLamby is not installed, has no such dataset, or the dataset's own requirements are missing.
    """
    known = discover_flamby_datasets().values()
    if name not in known:  # found in FLamby's folder before it reaches the import system: the name stood in a file
        raise FedbiomedDatasetError(f"FLamby has no dataset {name!r:.80}; it has {', '.join(known) or 'none'}")
    try:
        return importlib.import_module(f"flamby.datasets.{name}").FedClass
    except (ImportError, AttributeError) as error:
        raise FedbiomedDatasetError(f"FLamby's dataset {name} cannot be imported: {error}; install what it needs") from error


def open_center(metadata: dict[str, Any], transform: Any = None) -> Any:
    """The training samples of one center.

    Args:
        metadata: `flamby_dataset_name` and `flamby_center_id`.
        transform: handed to the dataset, if not None.

    Raises:
        FedbiomedDatasetError: as `fed_class`, or the center's data cannot be opened.
    """
    name, center = metadata["flamby_dataset_name"], metadata["flamby_center_id"]
    wanted = {} if transform is None else {"transform": transform}
    made = fed_class(name)
    try:
        return made(center=center, train=True, pooled=False, **wanted)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, AssertionError, ImportError) as error:
        raise FedbiomedDatasetError(f"center {center} of FLamby's {name} cannot be opened: {type(error).__name__}: {error}") from error


def _family() -> ModuleType:
    try:
        return importlib.import_module("flamby.datasets")
    except ImportError as error:
        raise FedbiomedDatasetError(
            "FLamby is not installed on this machine; install it as https://github.com/owkin/FLamby says, with the dataset that is wanted"
        ) from error
