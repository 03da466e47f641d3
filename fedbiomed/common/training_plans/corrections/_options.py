"""Options that an aggregator sends to its node's half: they came over a network, so they are checked here, too."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError


def sent_number(args: Mapping[str, Any], name: str, *, within: tuple[float, float]) -> float:
    """A number of a closed interval, which may have no upper end.

    Args:
        args: of the aggregator.
        name: of the option.
        within: its least and its largest value; infinity where there is none.

    Raises:
        FedbiomedTrainingPlanError: it did not come, or is something else.
    """
    value, (low, high) = args.get(name), within
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        interval = f"of {low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise FedbiomedTrainingPlanError(f"FB605: {args.get('aggregator_name')} must send {name!r}, a number {interval}, not {value!r:.80}")
    return float(value)


def sent_flag(args: Mapping[str, Any], name: str) -> bool:
    """A bool.

    Raises:
        FedbiomedTrainingPlanError: it did not come, or is something else.
    """
    value = args.get(name)
    if not isinstance(value, bool):
        raise FedbiomedTrainingPlanError(f"FB605: {args.get('aggregator_name')} must send {name!r}, True or False, not {value!r:.80}")
    return value


def sent_choice(args: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """One of some words.

    Raises:
        FedbiomedTrainingPlanError: it did not come, or is something else.
    """
    value = args.get(name)
    if not isinstance(value, str) or value not in known:
        raise FedbiomedTrainingPlanError(
            f"FB605: {args.get('aggregator_name')} must send {name!r}, {' or '.join(known)}, not {value!r:.80}"
        )
    return value
