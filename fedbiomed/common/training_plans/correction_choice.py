"""Which corrections a training needs."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.plugins import load_member, member_names
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import corrections
from fedbiomed.common.training_plans.corrections.correction import Correction

_CONTRACT = "correction"
_BY_ARGUMENTS = ("fedprox", "swag", "travelling_optimizer")


def chosen_corrections(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> list[Correction]:
    """Those that arguments of the training or of the trainer ask for, then that of the aggregator.

    An aggregator called `Scaffold` has its node's half in `corrections/scaffold.py`; one without such a file has none. The name comes
    from the network: it is compared with the files that are there, and nothing else is loaded.

    Args:
        training_args: of the round.
        aggregator_args: what the aggregator told this node: `aggregator_name`, and whatever its node's half needs.

    Raises:
        FedbiomedTrainingPlanError: a correction was asked for without what it needs.
    """
    name = str(aggregator_args.get("aggregator_name", "")).lower()
    names = [*_BY_ARGUMENTS, *(member for member in member_names(corrections) if member == name != _CONTRACT)]
    made = [load_member(corrections, member).correction(training_args, aggregator_args) for member in dict.fromkeys(names)]
    return [correction for correction in made if correction is not None]
