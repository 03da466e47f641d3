"""FedRep, Collins et al. 2021 (ICML, arXiv:2102.07078), algorithm 1. The nodes' half is `common/training_plans/corrections/fedrep.py`.

With b the body and h_i the head of node i, n_i its samples: each node makes head_steps steps on h_i alone, then the others on b alone, and

    b <- sum of n_i b_i / sum of n_i    h_i stays
"""

from collections.abc import Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.researcher.aggregators._options import checked_count
from fedbiomed.researcher.aggregators.fedper import FedPer


class FedRep(FedPer):
    """The mean of the body's layers; each node first trains a head of its own, then the body (Collins et al. 2021, ICML,
    arXiv:2102.07078).

    Exchanged: parameters of the body. Stays on the nodes: data, the head.

    Torch plans with any optimizer, and the training argument `num_updates`. While one part is trained the other stays equal to the bit, its
    buffers too. Else as `FedPer`.

    Args:
        private: the head; see `FedPer`.
        head_steps: steps on the head in each round, 1 or more.
        body_steps: steps on the body after them, 1 or more, together `num_updates`; None: all that remain of `num_updates`.

    Raises:
        FedbiomedAggregatorError: these are no names, or no such integers.
    """

    def __init__(self, private: Sequence[str] | str | None = None, head_steps: int = 1, body_steps: int | None = None) -> None:
        super().__init__(private)
        self.head_steps = checked_count("FedRep", "head_steps", head_steps, least=1)
        self.body_steps = None if body_steps is None else checked_count("FedRep", "body_steps", body_steps, least=1)

    def check_values(self, *args: Any, n_updates: int | None = None, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: `num_updates` is not given, or does not fit to the steps of head and body; and as in `FedPer`.
        """
        known = type(n_updates) is int and n_updates > self.head_steps
        if n_updates is None or not known or (self.body_steps is not None and n_updates != self.head_steps + self.body_steps):
            wanted = f"more than {self.head_steps}" if self.body_steps is None else str(self.head_steps + self.body_steps)
            raise FedbiomedAggregatorError(
                f"FB401: FedRep needs the training argument num_updates to be {wanted}: {self.head_steps} steps on the head, then those on "
                f"the body; found {n_updates!r:.80}"
            )
        return super().check_values(*args, training_plan=training_plan, **kwargs)

    def node_options(self) -> dict[str, Any]:
        """See `WithPrivateLayers`."""
        return {"head_steps": self.head_steps}
