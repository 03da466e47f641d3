"""Made-up data of many nodes, as unlike as is wished: the synthetic data sets of FedProx, Li et al. 2020 (arXiv:1812.06127), section 5.1.

    u_k ~ N(0, alpha^2)           W_k, b_k ~ N(u_k, 1)  each entry     the labelling of node k
    B_k ~ N(0, beta^2)            v_k ~ N(B_k, 1)       each entry     where its inputs lie
    x ~ N(v_k, diag(j^-1.2))      y = argmax(x W_k + b_k)              j = 1, 2 ... over the inputs

The paper writes N(0, alpha); the code of its authors takes alpha and beta as standard deviations, and so is done here. In the IID
variant all nodes have one W, b ~ N(0, 1), and v_k = 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbiomed.common.data.partition import is_number
from fedbiomed.common.exceptions import FedbiomedValueError

Array = np.ndarray[Any, Any]


def fedprox_synthetic(
    alpha: float = 0.0,
    beta: float = 0.0,
    *,
    iid: bool = False,
    nodes: int = 30,
    sizes: Sequence[int] | None = None,
    features: int = 60,
    classes: int = 10,
    seed: int | None = None,
) -> list[tuple[Array, Array]]:
    """Inputs, float32 `(n, features)`, and labels, int64 `(n,)`, of each node.

    Args:
        alpha: how much the labellings of the nodes differ.
        beta: how much their inputs differ.
        iid: all nodes alike; `alpha` and `beta` must be 0.
        nodes: how many.
        sizes: samples of each node; None: 50 + int(lognormal(4, 2)), as published.
        features, classes: of the data.
        seed: the same seed gives the same data.

    Raises:
        FedbiomedValueError: an argument is out of its range.
    """
    _check(alpha, beta, nodes, features, classes, iid=iid)
    draw = np.random.default_rng(seed)
    counts = 50 + draw.lognormal(4, 2, nodes).astype(np.int64) if sizes is None else np.asarray(sizes, dtype=np.int64)
    if counts.shape != (nodes,) or counts.min() < 1:
        raise FedbiomedValueError(f"sizes must be {nodes} numbers of 1 or more, one per node, not {sizes!r:.120}")
    spread = np.arange(1, features + 1) ** -0.6  # standard deviations: roots of j^-1.2
    common = draw.normal(0, 1, (features, classes)), draw.normal(0, 1, classes)
    found = []
    for count in counts.tolist():
        if iid:
            (weights, bias), centre = common, np.zeros(features)
        else:
            labelling, place = draw.normal(0, alpha), draw.normal(0, beta)
            weights, bias = draw.normal(labelling, 1, (features, classes)), draw.normal(labelling, 1, classes)
            centre = draw.normal(place, 1, features)
        inputs = centre + spread * draw.normal(size=(count, features))
        found.append((inputs.astype(np.float32), (inputs @ weights + bias).argmax(axis=1)))
    return found


def _check(alpha: float, beta: float, nodes: int, features: int, classes: int, *, iid: bool) -> None:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not (is_number(value) and value >= 0):
            raise FedbiomedValueError(f"{name} must be a number of 0 or more, not {value!r:.80}")
    for name, count in (("nodes", nodes), ("features", features), ("classes", classes)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise FedbiomedValueError(f"{name} must be an integer of 1 or more, not {count!r:.80}")
    if iid and (alpha or beta):
        raise FedbiomedValueError(f"iid data have alpha and beta 0, not {alpha} and {beta}")
