"""Aggregators that take the mean, and whose work is done by their half on the nodes."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.optimizers.native import NativeTorchOptimizer
from fedbiomed.researcher.aggregators._options import WithOptions
from fedbiomed.researcher.aggregators.fedavg import FedAverage


class MeanWithNodeHalf(WithOptions, FedAverage):
    """The mean of the nodes' parameters, by samples; options go to the nodes' half, `corrections/<name>.py`, as they are.

    Attributes:
        needs_torch_optimizer: whether the nodes' half goes with optimizers of torch only.
    """

    needs_torch_optimizer = False

    def __init__(self) -> None:
        super().__init__()
        self.aggregator_name = type(self).__name__

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, or has an optimizer that the nodes' half does not go with.
        """
        kind = self._training_plan_type if training_plan is None else training_plan.type()
        if kind not in (None, TrainingPlans.TorchTrainingPlan):
            raise FedbiomedAggregatorError(f"FB401: {self.aggregator_name} works with torch plans only, this one is a {kind}")
        if training_plan is not None and self.needs_torch_optimizer:
            wrapper = training_plan.optimizer()
            if not isinstance(wrapper, NativeTorchOptimizer):
                raise FedbiomedAggregatorError(
                    f"FB401: {self.aggregator_name} works with the optimizers of torch only, that of this plan is a "
                    f"{type(wrapper).__name__}"
                )
        return True

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; the options go with the order."""
        small, large = super().create_aggregator_args(global_model, node_ids)
        return {node_id: {**args, **self.node_options()} for node_id, args in small.items()}, large

    def node_options(self) -> dict[str, Any]:
        """What the nodes' half is told."""
        return self.settings()
