"""What a node sends beside its parameters, as one set of named arrays, and back: the part of the purpose "aux".

A name tells where the values come from and go to:

    optimizer/<module>/<field>[/<parameter>]    auxiliary variables of the optimizer's modules
    sent/<algorithm>/<name>/<parameter>         arrays that the node's half of an algorithm sends
    told/<name>                                 numbers that it tells

Ids of a module's clients are neither summed nor sent: the researcher knows whose vectors are in the sum.
"""

from collections.abc import Iterator, Mapping
from typing import Any

OPTIMIZER, SENT, TOLD = "optimizer", "sent", "told"
SOURCES: Mapping[str, str] = {"optim_aux_var": OPTIMIZER, SENT: SENT, TOLD: TOLD}
IDS = ("scaffold", "clients")
_DEPTH = 3  # a parameter's own name may hold anything


def named(*parts: str) -> str:
    """The name of a value."""
    return "/".join(parts)


def flattened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their names.

    Args:
        content: of a training's result.
    """
    found: dict[str, Any] = {}
    for key, source in SOURCES.items():
        found |= {named(source, *path): value for path, value in _leaves(content.get(key) or {}) if path[:2] != IDS}
    return found


def nested(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values of one source: by their first name, then by their second one and so on.

    Args:
        values: by their names.
        source: see above.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        first, *path, last = name.split("/", _DEPTH)
        if first == source:
            place = found
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    return found


def _leaves(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in given.items():
        inner = getattr(value, "coefs", value)  # declearn's vectors have their arrays by the names of parameters
        if isinstance(inner, Mapping):
            yield from (((str(name), *path), leaf) for path, leaf in _leaves(inner))
        else:
            yield (str(name),), value
