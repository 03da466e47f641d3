"""The replies of one round of which each brings moments of weights beside the parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import RunningMean, as_array, checked_arrays
from fedbiomed.common.swag_schedule import SWAG_KEY
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.responses import read_result
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
_PARTS = ("first", "second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments of the weights over several nodes.

    Args:
        first, second: mean of the weights and of their squares by name, float64.
        nodes: whose they are.
        sample_sizes: by which they count, in the same order.
        round: of which they are, counted from 0.
    """

    first: Arrays
    second: Arrays
    nodes: tuple[str, ...]
    sample_sizes: tuple[int, ...]
    round: int


def require_equal_counts(round_: int, participants: Sequence[str], counts: Mapping[str, Sequence[str]]) -> None:
    """Check that each participant gave everything that is counted, once.

    Args:
        round_: counted from 0.
        participants: nodes whose update counts.
        counts: who gave it, by what it is.

    Raises:
        AggregationError: a count differs from another or from the participants: all the counts, and which nodes lack what.
    """
    if participants and all(sorted(givers) == sorted(participants) for givers in counts.values()):
        return
    numbers = ", ".join(f"{len(givers)} {what}" for what, givers in counts.items())
    lacking = [f"{node}: no {what}" for what, givers in counts.items() for node in participants if node not in givers]
    strange = [f"{node}: {what} unasked" for what, givers in counts.items() for node in givers if node not in participants]
    raise AggregationError(
        f"SWAG needs as many of each in round {round_}: {numbers} of {len(participants)} nodes ({'; '.join(lacking + strange)}); does each "
        "node have this version, and a torch plan that trains by the plan's own routine?"
    )


class SwagUpdates(RoundUpdates):
    """Folds in the moments of each reply that counts, as it comes; holds one set of them, whatever the number of nodes.

    Args:
        round_, sampled, strategy, aggregator, aux: see `RoundUpdates`.
    """

    def __init__(self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal) -> None:
        super().__init__(round_, sampled, strategy, aggregator, aux)
        self._means = {part: RunningMean() for part in _PARTS}
        self._givers: dict[str, list[str]] = {part: [] for part in _PARTS}
        self._sizes: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._whose = ""

    def moments(self) -> Moments:
        """Mean of the moments, that of node k by its share n_k / sum(n) of the samples.

        Raises:
            AggregationError: not every node whose update counts gave first moments, second moments and a sample size.
        """
        counts = {"first moments": self._givers["first"], "second moments": self._givers["second"], "sample sizes": list(self._sizes)}
        require_equal_counts(self._round, self.good, counts)
        first, second = ({name: mean.mean_of(name) for name in mean.names()} for mean in self._means.values())
        sizes = tuple(self._sizes[node_id] for node_id in self.good)
        return Moments(first=first, second=second, nodes=tuple(self.good), sample_sizes=sizes, round=self._round)

    def moments_of(self, reply: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reply brings of `first`, `second` and `sample_size`; a part that is not there is missed at the end.

        Raises:
            FedbiomedResponsesError: its file is gone.
        """
        sent = read_result(Path(reply["params_path"])).get("sent")
        found = sent.get(SWAG_KEY) if isinstance(sent, dict) else None
        parts = {part: found[part] for part in _PARTS if part in found} if isinstance(found, dict) else {}
        return {**parts, "sample_size": reply["sample_size"]}

    def _fold(self, node_id: str, reply: Mapping[str, Any], weight: float) -> None:
        given = self.moments_of(reply)
        arrays = {part: self._checked(node_id, part, given[part]) for part in _PARTS if part in given}
        if len({tuple(sorted((name, array.shape) for name, array in found.items())) for found in arrays.values()}) > 1:
            raise AggregationError(f"first and second moments of {node_id} differ in names or shapes")
        _require_sent(node_id, arrays, reply["params"])
        super()._fold(node_id, reply, weight)
        size = given.get("sample_size")
        if type(size) is int and size > 0:
            self._sizes[node_id] = size
        for part, found in arrays.items():
            self._means[part].add(found, float(self._sizes.get(node_id, 0)), source=node_id)
            self._givers[part].append(node_id)
            if self._shapes is None:
                self._shapes, self._whose = {name: array.shape for name, array in found.items()}, node_id

    def _checked(self, node_id: str, part: str, values: Any) -> dict[str, Any]:
        who = f"the {part} moments of {node_id}"
        if not isinstance(values, Mapping):
            raise AggregationError(f"{who} are a {type(values).__name__}, not arrays by name")
        arrays = checked_arrays(values, who, self._shapes, self._whose)
        wrong = [name for name, array in arrays.items() if array.dtype.kind == "c" or (part == "second" and bool((array < 0).any()))]
        if wrong:
            raise AggregationError(f"{who} hold complex numbers or negative squares in {', '.join(wrong[:5])}")
        return {name: as_array(value, name, who).astype(np.float64) for name, value in values.items()}


def _require_sent(node_id: str, arrays: Mapping[str, Mapping[str, Any]], params: Mapping[str, Any]) -> None:
    """Moments are those of parameters of the same reply."""
    for found in arrays.values():
        wrong = [name for name, array in found.items() if name not in params or tuple(np.shape(params[name])) != array.shape]
        if wrong:
            raise AggregationError(f"{node_id} sent moments, but no parameters of such a name and shape: {', '.join(wrong[:5])}")
