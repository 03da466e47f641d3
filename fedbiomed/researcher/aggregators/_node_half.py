"""Aggregators that have a half on the nodes: what it is told, and which plans it goes with."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import FedbiomedAggregatorError
from fedbiomed.common.optimizers.native import NativeTorchOptimizer
from fedbiomed.researcher.aggregators._options import WithOptions, require_torch
from fedbiomed.researcher.aggregators.fedavg import FedAverage


class WithNodeHalf(WithOptions):
    """Tells its half on the nodes, `corrections/<name>.py`, its options with each order.

    Attributes:
        needs_torch_optimizer: whether the nodes' half goes with optimizers of torch only.
    """

    needs_torch_optimizer = False

    def check_values(self, *args: Any, training_plan: Any = None, **kwargs: Any) -> bool:
        """See `Aggregator`.

        Raises:
            FedbiomedAggregatorError: the plan is not on torch, or has an optimizer that the nodes' half does not go with.
        """
        self.check_plan(training_plan)
        return super().check_values(*args, training_plan=training_plan, **kwargs)

    def check_plan(self, training_plan: Any) -> None:
        """Check that a plan, or as long as there is none the kind of plan that was told, goes with the nodes' half.

        Raises:
            FedbiomedAggregatorError: see `check_values`.
        """
        if training_plan is None:
            if self._training_plan_type not in (None, TrainingPlans.TorchTrainingPlan):
                raise FedbiomedAggregatorError(
                    f"FB401: {self.aggregator_name} works with torch plans only, this one is a {self._training_plan_type}"
                )
            return
        require_torch(self.aggregator_name, training_plan)
        if self.needs_torch_optimizer and not isinstance(training_plan.optimizer(), NativeTorchOptimizer):
            raise FedbiomedAggregatorError(
                f"FB401: {self.aggregator_name} works with the optimizers of torch only, that of this plan is a "
                f"{type(training_plan.optimizer()).__name__}"
            )

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; the options go with the order."""
        small, large = super().create_aggregator_args(global_model, node_ids)
        return {node_id: {**args, **self.node_options()} for node_id, args in small.items()}, large

    def node_options(self) -> dict[str, Any]:
        """What the nodes' half is told; all settings unless overridden."""
        return self.settings()


class MeanWithNodeHalf(WithNodeHalf, FedAverage):
    """The mean of the nodes' parameters, by samples; the algorithm's work is done on the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.aggregator_name = type(self).__name__
