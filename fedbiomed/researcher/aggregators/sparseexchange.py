"""Exchange of single entries, chosen by a score. The nodes' half is `common/training_plans/corrections/sparseexchange.py`.

With x_e the entry e that was sent, y_ie what node i made of it, n_i its samples, S_e the nodes that sent entry e, S all nodes:

    x_e <- sum over S_e of n_i y_ie / sum over S_e of n_i    absent means absent
    x_e <- sum over S_e of n_i y_ie / sum over S of n_i      absent counts as zero, where S_e is not empty

and x_e stays where S_e is empty. So (4, -) and (-, 2) give (4, 2), or (2, 1) where absent counts as zero and both nodes count alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.params import Params, as_array, as_kind, checked_arrays, kind_of
from fedbiomed.common.training_plans.sparse_scores import INDICES, SCORES, VALUES
from fedbiomed.researcher.aggregators._from_global import Array, FromGlobal
from fedbiomed.researcher.aggregators._node_half import WithNodeHalf
from fedbiomed.researcher.aggregators._options import checked_choice, checked_flag, checked_number, checked_weight


class SparseExchange(WithNodeHalf, FromGlobal):
    """Each node sends only its top-scored entries; the mean of an entry is over those that sent it, its scores are the mask criteria
    of lottery tickets (Zhou et al. 2019, arXiv:1905.01067).

    Exchanged: indices and values of the chosen entries. Stays on the nodes: data, and the other entries, which the next round overwrites.

    Entries of trained parameters are chosen among all of them together; what is not trained (statistics of a batch normalisation) is sent
    whole where it changed. Torch plans only. Streams: holds the model that was sent, sums and weights, whatever the number of nodes.

    Args:
        share: of the n entries of trained parameters that a node sends, above 0 and at most 1: share * n of them, rounded up.
        score: with w_i an entry when the round begins, w_f when it ends: "movement" |w_f - w_i|, "magnitude_increase" |w_f| - |w_i|,
            "large_final" |w_f|, "small_final" -|w_f|, "large_init" |w_i|, "small_init" -|w_i|, "large_init_large_final"
            min(|w_i|, |w_f|), "small_init_small_final" -max(|w_i|, |w_f|).
        absent_as_zero: let an entry that a node did not send count as 0, where another node sent it; by default it does not count.

    Raises:
        FedbiomedAggregatorError: a setting is wrong.
    """

    def __init__(self, share: float = 0.1, score: str = "movement", *, absent_as_zero: bool = False) -> None:
        super().__init__()
        who = type(self).__name__
        self.share = checked_number(who, "share", share, "a number above 0 and at most 1", within=(0.0, 1.0), ends="(]")
        self.score = checked_choice(who, "score", score, SCORES)
        self.absent_as_zero = checked_flag(who, "absent_as_zero", absent_as_zero)
        self.begin(0)

    def node_options(self) -> dict[str, Any]:
        """See `WithNodeHalf`."""
        return {"share": self.share, "score": self.score}

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not."""
        super().begin(round)
        self._sums: dict[str, Array] = {}
        self._weights_of: dict[str, Array] = {}

    def finish(self) -> Params:
        """The next parameters.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        total, params = self._total_weight(), {}
        for name, value in self._sent.items():
            result = self._sent_array(name).reshape(-1)
            if name in self._sums:
                weights = self._weights_of[name]
                is_sent = weights > 0
                result[is_sent] = self._sums[name][is_sent] / (total if self.absent_as_zero else weights[is_sent])
            kind = kind_of(value, as_array(value, name, "the researcher"))
            params[name] = as_kind(result.reshape(self._shapes[name]), 1.0, kind)
        self.begin(0)
        return params

    def _check_fit(self, node_id: str, params: Mapping[str, Any]) -> None:
        """Entries of known names, at places that are there; whole arrays of the right shape."""
        excess = sorted(params.keys() - self._shapes.keys())
        if excess:
            raise AggregationError(
                f"the parameters of {node_id} have other names than those of the model that was sent: missing [], in excess {excess[:5]}"
            )
        whole = {name: value for name, value in params.items() if not isinstance(value, Mapping)}
        if whole:
            checked_arrays(whole, node_id, {name: self._shapes[name] for name in whole}, "the model that was sent", with_values=False)
        for name in params.keys() - whole.keys():
            self._check_entries(node_id, name, params[name])

    def _check_entries(self, node_id: str, name: str, entries: Mapping[str, Any]) -> None:
        if entries.keys() != {INDICES, VALUES}:
            raise AggregationError(f"parameter {name!r} of {node_id} must have {INDICES} and {VALUES}, it has {sorted(map(str, entries))}")
        indices, values = (as_array(entries[key], name, node_id) for key in (INDICES, VALUES))
        if indices.dtype.kind not in "iu" or indices.ndim != 1 or values.shape != indices.shape:
            raise AggregationError(f"parameter {name!r} of {node_id} must have as many whole numbers as indices as it has values")
        size = int(np.prod(self._shapes[name], dtype=np.int64))
        places = indices.astype(np.int64)
        if places.size and (places[0] < 0 or places[-1] >= size or not (np.diff(places) > 0).all()):
            raise AggregationError(f"the indices of parameter {name!r} of {node_id} must rise from 0 or more to less than {size}")

    def _fold(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        if not checked_weight(node_id, weight) or not params:
            return
        values = {name: value[VALUES] if isinstance(value, Mapping) else value for name, value in params.items()}
        for name, array in checked_arrays(values, node_id).items():
            sums, weights = self._totals(name)
            given = params[name]
            places = as_array(given[INDICES], name, node_id).astype(np.int64) if isinstance(given, Mapping) else slice(None)
            sums[places] += weight * array.reshape(-1).astype(np.float64)
            weights[places] += weight

    def _totals(self, name: str) -> tuple[Array, Array]:
        if name not in self._sums:
            size = int(np.prod(self._shapes[name], dtype=np.int64))
            self._sums[name], self._weights_of[name] = np.zeros(size), np.zeros(size)
        return self._sums[name], self._weights_of[name]
