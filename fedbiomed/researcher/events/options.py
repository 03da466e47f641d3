"""What may be chosen in every trainer."""

from dataclasses import dataclass, fields

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedUserInputError


@dataclass(slots=True)
class TrainerOptions:
    """Choices about a training.

    Args:
        skip_model_tests: no model tests of their own, but those asked for with `run_once(test_after=True)`.
        model_test_after_each_round: test each new global model; else only the last one.
        delete_local_models_after_aggregation: remove the nodes' result files once they are aggregated.

    Raises:
        FedbiomedUserInputError: one is not a bool.
    """

    skip_model_tests: bool = False
    model_test_after_each_round: bool = True
    delete_local_models_after_aggregation: bool = True

    def __post_init__(self) -> None:
        for option in fields(self):
            given = getattr(self, option.name)
            if not isinstance(given, bool):
                raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: {option.name} must be True or False, not {given!r:.80}")
