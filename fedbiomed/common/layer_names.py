"""Names of the layers of a model, and which parameters belong to them."""

from collections.abc import Iterable

# What an aggregator calls, for its nodes' half, the layers that stay, those that travel, and the initial values of those that stay.
PRIVATE, SHARED, INITIAL = "private_layers", "shared_layers", "initial_private"


def is_under(name: str, layers: Iterable[str]) -> bool:
    """Whether a parameter, by its dotted name, is one of these layers or belongs to one.

    >>> is_under("head.0.weight", ["head"]), is_under("header.weight", ["head"])
    (True, False)
    """
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)
