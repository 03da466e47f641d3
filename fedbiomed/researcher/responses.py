"""`Responses`: what nodes replied, kept per round; parameters are read from their file when somebody looks at them."""

import math
from _collections_abc import dict_items, dict_values  # the types that a dict's own methods return
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedResponsesError
from fedbiomed.common.serializer import Serializer

if TYPE_CHECKING:
    import pandas

PARAMS = "params"
_TOLD = "told"
_MOST_NUMBERS = 64
# What may be as large as the model, and is not kept after it was read.
_LARGE = (PARAMS, "optim_aux_var")
# Keys of a reply that lie in the node's result file, and what they are called there.
FILE_KEYS: Mapping[str, str] = {
    PARAMS: "model_weights",
    "optimizer_args": "optimizer_args",
    "optim_aux_var": "optim_aux_var",
    "encryption_factor": "encryption_factor",
}

_KEYS = (
    *("success", "msg", "dataset_id", "node_id", "state_id", "params_path", PARAMS, "optimizer_args", "optim_aux_var"),
    *("sample_size", "encryption_factor", "timing"),
)


class TrainingReply(dict[str, Any]):
    """One node's reply to a training order: a dict whose heavy values are read from `params_path` at each access.

    `params` and `optim_aux_var` are not kept after they were read, so that the replies of many rounds take no memory; what is small
    stays. A value that is assigned is kept. `dict(reply)` gives everything. What the node's half of an algorithm tells is `told`, numbers
    by name; there is no such key where it tells nothing.

    Args:
        values: all keys but those of `FILE_KEYS`; `params_path` names the result file, or is None for a validation-only reply.

    Raises:
        FedbiomedResponsesError: at access, when the file is gone or is not a node's result.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({**dict.fromkeys(_KEYS), **values})
        self._unread = set(FILE_KEYS) - values.keys() if values.get("params_path") else set()

    def load(self) -> dict[str, Any]:
        """Read the file and keep what belongs here, until `release`; returns all that the file holds."""
        record = read_result(Path(dict.__getitem__(self, "params_path")))
        for name in self._unread:
            dict.__setitem__(self, name, record.get(FILE_KEYS[name]))
        self._unread.clear()
        if _TOLD in record:
            dict.__setitem__(self, _TOLD, _checked_numbers(record[_TOLD]))
        return record

    def release(self) -> None:
        """Forget what is large; it is read again when somebody looks at it."""
        for name in _LARGE if dict.get(self, "params_path") else ():
            if dict.get(self, name):
                dict.__setitem__(self, name, None)
                self._unread.add(name)

    def without_file(self) -> dict[str, Any]:
        """A plain dict of what does not lie in the file (which JSON can hold)."""
        return {key: value for key, value in dict.items(self) if key not in FILE_KEYS}

    def __getitem__(self, key: str) -> Any:
        if key not in self._unread:
            return super().__getitem__(key)
        self.load()
        value = super().__getitem__(key)
        self.release()
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._unread.discard(key)
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[str]:
        # `dict(reply)` and `{**reply}` look past __getitem__ unless __iter__ is overridden
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self[key] if key in self else default  # noqa: SIM401  this is what `get` stands on

    def items(self) -> "dict_items[str, Any]":
        """All keys with their values, the heavy ones read."""
        return {key: self[key] for key in self}.items()

    def values(self) -> "dict_values[str, Any]":
        """All values, the heavy ones read."""
        return {key: self[key] for key in self}.values()

    def copy(self) -> "TrainingReply":
        """Another reply of the same content; what was not read is not read for it either."""
        return TrainingReply(self._kept())

    def __copy__(self) -> "TrainingReply":
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingReply, (self._kept(),)

    def __repr__(self) -> str:
        return repr(self._kept()) + (f" and in the file: {', '.join(sorted(self._unread))}" if self._unread else "")

    def _kept(self) -> dict[str, Any]:
        return {key: value for key, value in dict.items(self) if key not in self._unread}


def _checked_numbers(told: object) -> dict[str, float]:
    """What a node's half tells; it came from elsewhere."""
    is_right = isinstance(told, dict) and len(told) <= _MOST_NUMBERS
    if not isinstance(told, dict) or not is_right or not all(isinstance(name, str) and _is_number(told[name]) for name in told):
        raise FedbiomedResponsesError(f"what the node's half tells must be at most {_MOST_NUMBERS} finite numbers by name")
    return {name: float(value) for name, value in told.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_result(path: Path) -> dict[str, Any]:
    """Read a node's result file.

    Returns:
        `{researcher_id, job_id, state_id, node_id, model_weights, optimizer_args, optim_aux_var, encrypted, encryption_factor}`, and `told`
        and `sent` where the node's half of an algorithm tells something, or sends something beside the parameters.

    Raises:
        FedbiomedResponsesError: it is gone, or does not hold parameters by name.
    """
    try:
        record = Serializer.load(path)
    except (FedbiomedError, OSError) as error:
        raise FedbiomedResponsesError(f"cannot read the parameters in {path}: {error}") from error
    weights = record.get("model_weights") if isinstance(record, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise FedbiomedResponsesError(f"{path} holds no parameters by name")
    return {str(key): value for key, value in record.items()}


class Responses:
    """Replies of several nodes, as a list of dicts.

    Args:
        data: one reply or a list of replies; equal ones are taken once.

    Raises:
        FedbiomedResponsesError: anything else.

    Examples:
        >>> replies = Responses([{"node_id": "node_a", "success": True}, {"node_id": "node_b", "success": True}])
        >>> len(replies), replies[0]["node_id"], replies.get_index_from_node_id("node_b")
        (2, 'node_a', 1)
        >>> list(replies.dataframe()["node_id"])
        ['node_a', 'node_b']
    """

    def __init__(self, data: Sequence[Mapping[str, Any]] | Mapping[str, Any] = ()) -> None:
        self._data: list[dict[str, Any]] = []
        self.set_data([data] if isinstance(data, Mapping) else data)

    def data(self) -> list[dict[str, Any]]:
        """The replies themselves, not copies."""
        return self._data

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Replace all replies; equal ones are taken once.

        Raises:
            FedbiomedResponsesError: not a list of dicts.
        """
        replies = _checked(data)
        self._data = [reply for i, reply in enumerate(replies) if not any(_is_same(reply, other) for other in replies[:i])]
        return self._data

    def append(self, response: "Mapping[str, Any] | Sequence[Mapping[str, Any]] | Responses") -> list[dict[str, Any]]:
        """Add one reply, a list of replies, or those of another object.

        Raises:
            FedbiomedResponsesError: anything else.
        """
        if isinstance(response, Responses):
            response = response.data()
        self._data.extend(_checked([response] if isinstance(response, Mapping) else response))
        return self._data

    def dataframe(self) -> "pandas.DataFrame":
        """A table with one row per reply and one column per key; `params` are read for it."""
        import pandas  # late: heavy, and few ask for a table

        return pandas.DataFrame([dict(reply) for reply in self._data])

    def get_index_from_node_id(self, node_id: str) -> int | None:
        """Position of a node's reply, None when it has none."""
        return next((i for i, reply in enumerate(self._data) if reply.get("node_id") == node_id), None)

    @overload
    def __getitem__(self, item: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, item: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, item: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._data[item]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"Responses({self._data!r})"


def _checked(data: object) -> list[dict[str, Any]]:
    if not isinstance(data, list | tuple) or not all(isinstance(reply, Mapping) for reply in data):
        raise FedbiomedResponsesError(f"replies are a list of dicts, not {type(data).__name__} {data!r:.80}")
    return [reply if isinstance(reply, dict) else dict(reply) for reply in data]


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        return bool(dict.__eq__(one, other))
    except (ValueError, RuntimeError):  # arrays inside do not say whether they are equal
        return one is other
