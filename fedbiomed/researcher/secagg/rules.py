"""What goes together with secure aggregation, and what needs to see single updates and so cannot."""

import inspect
from typing import Any

from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.strategies.strategy import Strategy

_REMEDY = "choose another one, or switch secure aggregation off: set_secagg(False)"


def check_parts(aggregator: Aggregator, strategy: Strategy, trainer: ModelTrainer, agg_optimizer: Any) -> None:
    """Check that the parts of an experiment work on the mean of all nodes.

    Raises:
        FedbiomedSecureAggregationError: which part needs single updates, and what to do.
    """
    if not aggregator.takes_sums:
        raise round_error(
            f"the aggregator {type(aggregator).__name__} needs the update of each single node, with secure aggregation there is only "
            f"their mean; {_REMEDY}"
        )
    for method in ("refine", "accept"):
        if inspect.getattr_static(type(strategy), method) is not inspect.getattr_static(Strategy, method):
            raise round_error(
                f"the strategy {type(strategy).__name__} judges single replies ({method}), which secure aggregation hides; {_REMEDY}"
            )
    if inspect.getattr_static(type(trainer), "updates") is not inspect.getattr_static(ModelTrainer, "updates"):
        raise round_error(f"the trainer {type(trainer).__name__} needs the models of single nodes; {_REMEDY}")
    try:
        if agg_optimizer is not None:
            agg_optimizer.summed_aux()
    except FedbiomedOptimizerError as error:
        raise round_error(f"{error}; with secure aggregation the researcher knows their sum only; {_REMEDY}") from error
