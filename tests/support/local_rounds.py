"""Rounds in the test's process, whose seeds change from round to round and node to node."""

from collections.abc import Mapping
from typing import Any

from benchmarks.published import local_rounds
from fedbiomed.researcher.aggregators.aggregator import Aggregator


class LocalRounds(local_rounds.LocalRounds):
    """As the benchmarks' class, with one set of training arguments.

    Args:
        plan_class, paths, aggregator, model_args: as there.
        random_seed: from which that of each round and node is made, so that batches differ.
        args: further training arguments.
    """

    def __init__(
        self,
        plan_class: Any,
        paths: Mapping[str, Any],
        aggregator: Aggregator,
        model_args: Mapping[str, Any],
        random_seed: int,
        **args: Any,
    ) -> None:
        super().__init__(
            plan_class,
            paths,
            aggregator,
            model_args,
            lambda round_, number: {**args, "random_seed": 10_000 * random_seed + 100 * round_ + number},
        )
