"""What Scaffold needs of a plan, of its arguments and of the replies."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError
from fedbiomed.common.optimizers.native import NativeTorchOptimizer


def checked_server_lr(server_lr: Any) -> float:
    """A number other than 0.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    if isinstance(server_lr, bool) or not isinstance(server_lr, int | float) or not math.isfinite(server_lr) or server_lr == 0:
        raise FedbiomedAggregatorError(f"FB401: server_lr of Scaffold must be a number other than 0, not {server_lr!r:.80}")
    return float(server_lr)


def checked_updates(n_updates: Any) -> int:
    """An integer above 0.

    Raises:
        FedbiomedAggregatorError: it is not.
    """
    if isinstance(n_updates, bool) or not isinstance(n_updates, int) or n_updates < 1:
        raise FedbiomedAggregatorError(
            "FB401: Scaffold needs the training argument num_updates, an integer of 1 or more (epochs will not do: every node must make "
            f"as many steps); found {n_updates!r:.80}"
        )
    return n_updates


def check_plan(training_plan: Any) -> str:
    """Check that a plan is on torch, with an optimizer of torch.

    Returns:
        A warning, where the optimizer is not the paper's; else an empty string.

    Raises:
        FedbiomedAggregatorError: the plan is of another kind, or has another kind of optimizer.
    """
    if training_plan.type() is not TrainingPlans.TorchTrainingPlan:
        raise FedbiomedAggregatorError(f"FB401: Scaffold works with torch plans only, this one is a {training_plan.type()}")
    wrapper = training_plan.optimizer()
    if not isinstance(wrapper, NativeTorchOptimizer):
        raise FedbiomedAggregatorError(
            f"FB401: Scaffold works with the optimizers of torch only, that of this plan is a {type(wrapper).__name__}; with declearn's "
            "optimizers use its Scaffold modules"
        )
    import torch  # heavy; a torch plan has loaded it

    optimizer = wrapper.optimizer
    if not isinstance(optimizer, torch.optim.SGD):
        return f"Scaffold is made for torch.optim.SGD; with {type(optimizer).__name__} its controls are not the nodes' gradients"
    if any(group.get("momentum") for group in optimizer.param_groups):
        return "Scaffold is made for torch.optim.SGD without momentum; with it its controls are not the nodes' gradients"
    return ""


def parameter_names(training_plan: Any) -> frozenset[str]:
    """Names of the trainable parameters of a torch plan, of shared ones all names."""
    parameters = training_plan.model().named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in parameters if parameter.requires_grad)


def checked_rates(node_id: str, optimizer_args: Any, names: Iterable[str]) -> dict[str, float]:
    """Learning rates by parameter, out of a node's reply.

    Args:
        node_id: whose reply.
        optimizer_args: with `lr`, by parameter or one number for all.
        names: of the parameters.

    Raises:
        AggregationError: there are none, or one is not a number of 0 or more.
    """
    found = optimizer_args.get("lr") if isinstance(optimizer_args, Mapping) else None
    rates: Mapping[Any, Any] = found if isinstance(found, Mapping) else dict.fromkeys(names, found)
    if not rates or not all(_is_rate(rate) for rate in rates.values()):
        raise AggregationError(f"{node_id} does not tell its learning rates: optimizer_args['lr'] is {rates!r:.120}")
    return {str(name): float(rate) for name, rate in rates.items()}


def _is_rate(rate: Any) -> bool:
    return isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate) and rate >= 0
