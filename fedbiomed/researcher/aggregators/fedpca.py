"""Federated principal components: the merge of subspaces. The nodes' half is `PCATrainingPlan`.

Node i sends V_i (k rows, the right singular vectors of its rows X_i) and s_i (its k largest singular values). With B the matrix of all rows
diag(s_i) V_i, the singular vectors and values of B are those of all rows X together, exactly where no node left a component out, since

    B^T B = sum_i V_i^T diag(s_i^2) V_i = sum_i X_i^T X_i = X^T X

`svd` decomposes B; `qr` first makes it small, B^T = Q R, and decomposes R: the same result, faster where there are far more columns than
components. The sign of each vector is chosen so that its largest entry is positive.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.params import Kind, Params, as_array, as_kind, checked_arrays, kind_of
from fedbiomed.researcher.aggregators._options import WithOptions
from fedbiomed.researcher.aggregators.fedavg import FedAverage

Array = np.ndarray[Any, Any]
VECTORS, VALUES, TOTAL = "components", "singular_values", "sum_of_squares"
_METHODS = ("svd", "qr")


class FedPCA(WithOptions, FedAverage):
    """Merges the principal components of the nodes' rows into those of all rows (Liang et al. 2014, "Improved Distributed Principal
    Component Analysis", arXiv:1408.5823, algorithm disPCA).

    Exchanged: singular vectors and values, the sum of squares and the number of rows. Stays on the nodes: data.

    Goes with `PCATrainingPlan`, one round of which is enough. Rows count as they are: no node is weighted. Of a model without `components`
    the mean is taken.

    Args:
        method: `svd` or `qr`.

    Raises:
        FedbiomedAggregatorError: it is another method.
    """

    takes_sums = False

    def __init__(self, method: str = "svd") -> None:
        super().__init__()
        if method not in _METHODS:
            raise FedbiomedAggregatorError(f"FB401: method of FedPCA must be one of {', '.join(_METHODS)}, not {method!r:.80}")
        self.method = method

    def begin(self, round: int) -> None:
        """See `Aggregator`."""
        super().begin(round)
        self._parts: dict[str, tuple[Array, Array, float]] = {}
        self._kinds: dict[str, Kind] = {}

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """See `Aggregator`; a node that counts by 0 is left out.

        Raises:
            AggregationError: as `FedAverage`, or singular values are below 0, or not one per vector.
        """
        part = self._part(node_id, params) if VECTORS in params and weight > 0 else None
        super().add(node_id, params, weight)
        if part is not None:
            self._parts[node_id] = part
            self._kinds = {name: kind_of(params[name], as_array(params[name], name, node_id)) for name in (VECTORS, VALUES, TOTAL)}

    def finish(self) -> Params:
        """See `Aggregator`."""
        parts, kinds = [self._parts[node_id] for node_id in sorted(self._parts)], self._kinds
        params = super().finish()  # begins anew
        return {**params, **_merged(parts, kinds, self.method)} if parts else params

    def aggregate(self, model_params: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float], *args: Any, **kwargs: Any) -> Params:
        """See `Aggregator`."""
        params = super().aggregate(model_params, weights)
        self.begin(0)
        for node_id, update in model_params.items():
            self.add(node_id, update, weights[node_id])
        return self.finish() if self._parts else params

    def _part(self, node_id: str, params: Mapping[str, Any]) -> tuple[Array, Array, float]:
        names = (VECTORS, VALUES, TOTAL)
        if any(name not in params for name in names):
            raise AggregationError(f"the update of {node_id} must hold {', '.join(names)}; it holds {', '.join(params)}")
        arrays = checked_arrays({name: params[name] for name in names}, node_id)
        vectors, values, total = (arrays[name].astype(np.float64) for name in names)
        if vectors.ndim != 2 or values.shape != vectors.shape[:1] or total.shape != () or (values < 0).any():
            raise AggregationError(
                f"the update of {node_id} must hold vectors as rows, one singular value of 0 or more for each, and one sum; found the "
                f"shapes {vectors.shape}, {values.shape} and {total.shape}"
            )
        return vectors, values, float(total)


def _merged(parts: Sequence[tuple[Array, Array, float]], kinds: Mapping[str, Kind], method: str) -> Params:
    vectors, values = merged_components([(vectors, values) for vectors, values, _ in parts], method)
    new = {VECTORS: vectors, VALUES: values, TOTAL: np.asarray(sum(total for *_, total in parts))}
    return {name: as_kind(value, 1.0, kinds[name]) for name, value in new.items()}


def merged_components(parts: Sequence[tuple[Array, Array]], method: str = "svd") -> tuple[Array, Array]:
    """Singular vectors and values of all rows, from those of parts of them.

    >>> e1 = np.array([[1.0, 0.0]])
    >>> _, values = merged_components([(e1, np.array([2.0])), (e1, np.array([1.0]))])
    >>> bool(np.isclose(values[0], np.sqrt(5)))  # 2^2 + 1^2
    True

    Args:
        parts: vectors as rows `(k, columns)`, and their values `(k,)`.
        method: `svd` or `qr`.

    Returns:
        As many vectors as the first part has, by falling value, and their values.
    """
    count = len(parts[0][1])
    stacked = np.vstack([values[:, None] * vectors for vectors, values in parts])
    if method == "qr":
        basis, small = np.linalg.qr(stacked.T)
        left, values, _ = np.linalg.svd(small, full_matrices=False)
        vectors = (basis @ left).T
    else:
        _, values, vectors = np.linalg.svd(stacked, full_matrices=False)
    return with_signs(vectors[:count]), values[:count]


def with_signs(vectors: Array) -> Array:
    """The same vectors, each turned so that its entry of largest size is positive."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return np.asarray(np.where(largest < 0, -vectors, vectors))
