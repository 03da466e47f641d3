"""How entries of parameters are scored, and how those that are sent are written.

Scores: the mask criteria of Zhou et al. 2019, Deconstructing Lottery Tickets (arXiv:1905.01067), table 1. torch is not imported here.
"""

from collections.abc import Callable
from typing import Any

INDICES, VALUES = "indices", "values"
# With the sizes of an entry before and after, and the size of its change.
SCORES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "movement": lambda initial, final, change: change,
    "magnitude_increase": lambda initial, final, change: final - initial,
    "large_final": lambda initial, final, change: final,
    "small_final": lambda initial, final, change: -final,
    "large_init": lambda initial, final, change: initial,
    "small_init": lambda initial, final, change: -initial,
    "large_init_large_final": lambda initial, final, change: initial.minimum(final),
    "small_init_small_final": lambda initial, final, change: -initial.maximum(final),
}
