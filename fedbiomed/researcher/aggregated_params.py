"""The aggregated parameters of one round, read from their file when somebody looks at them."""

from _collections_abc import dict_items, dict_values
from collections.abc import Iterator
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedExperimentError, FedbiomedValueError
from fedbiomed.common.params import Params
from fedbiomed.common.serializer import Serializer


def read_params(path: str) -> Params:
    """The parameters in a file `{researcher_id, model_weights}`.

    Raises:
        FedbiomedExperimentError: the file is gone or is not of that form.
    """
    try:
        record = Serializer.load(path)
        params: Params = {str(name): value for name, value in record["model_weights"].items()}
    except (OSError, FedbiomedValueError, KeyError, TypeError, AttributeError) as error:
        raise FedbiomedExperimentError(f"{ErrorNumbers.FB413.value}: cannot read aggregated parameters from {path}: {error}") from error
    return params


class AggregatedParams(dict[str, Any]):
    """A dict of `params` and `params_path`; `params` is read at each access and not kept, so many rounds take no memory.

    Args:
        params_path: the file.
    """

    def __init__(self, params_path: str) -> None:
        super().__init__(params=None, params_path=params_path)

    def __getitem__(self, key: str) -> Any:
        return read_params(super().__getitem__("params_path")) if key == "params" else super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        # `dict(x)` and `{**x}` look past __getitem__ unless __iter__ is overridden
        return iter(("params", "params_path"))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self[key] if dict.__contains__(self, key) else default

    def items(self) -> "dict_items[str, Any]":
        """Both keys with their values."""
        return {key: self[key] for key in self}.items()

    def values(self) -> "dict_values[str, Any]":
        """Both values."""
        return {key: self[key] for key in self}.values()

    def __repr__(self) -> str:
        return f"{{'params_path': {super().__getitem__('params_path')!r}, and 'params' in that file}}"
