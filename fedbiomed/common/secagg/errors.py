"""The two errors of secure aggregation, with their codes."""

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecaggError, FedbiomedSecureAggregationError


def setup_error(reason: str) -> FedbiomedSecaggError:
    """What is agreed on before the rounds is wrong, or one party does not accept it."""
    return FedbiomedSecaggError(f"{ErrorNumbers.FB415.value}: {reason}")


def round_error(reason: str) -> FedbiomedSecureAggregationError:
    """A round cannot be protected or opened, or a node refuses what it was asked."""
    return FedbiomedSecureAggregationError(f"{ErrorNumbers.FB417.value}: {reason}")
