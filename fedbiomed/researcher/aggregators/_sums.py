"""What an aggregator asks of rounds in which only sums over nodes are known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbiomed.common.secagg.terms import Weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class SumTerms:
    """How the nodes of a round are summed.

    Args:
        weighting: by what a node counts, in its parameters and in what goes beside them.
        beside: shapes of what the node's half sends or tells beside the parameters, by names as in `common/secagg/beside.py`.
    """

    weighting: Weighting = Weighting.SAMPLES
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
