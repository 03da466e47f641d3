"""When SWAG looks at the weights in the course of a local training; the same words on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from fedbiomed.common.exceptions import FedbiomedUserInputError

# Of an aggregator's arguments, the one that carries a schedule to the nodes; and of a result file, the key of the moments.
SWAG_KEY = "swag"
UNITS = ("steps", "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SwagSchedule:
    """When snapshots are taken, within each round's local training.

    Args:
        start: the first snapshot is taken after so many units, 1 or more.
        every: units from one snapshot to the next, 1 or more.
        unit: `steps` (of the optimizer), or `epochs` (needs the training argument `epochs`).
        max_snapshots: none is taken after so many; None: as many as the training has.
        max_rank: how many of the last deviations are kept for the low-rank part of the covariance: 0 for none, else 2 or more.

    Raises:
        FedbiomedUserInputError: one is wrong.

    Examples:
        >>> schedule = SwagSchedule(start=4, every=2, max_snapshots=3)
        >>> [step for step in range(1, 13) if schedule.is_due(step)]
        [4, 6, 8]
    """

    start: int = 1
    every: int = 1
    unit: str = "steps"
    max_snapshots: int | None = None
    max_rank: int = 20

    def __post_init__(self) -> None:
        _check("start", self.start, least=1)
        _check("every", self.every, least=1)
        _check("max_rank", self.max_rank, least=0)
        if self.max_snapshots is not None:
            _check("max_snapshots", self.max_snapshots, least=1)
        if self.max_rank == 1:
            raise FedbiomedUserInputError("max_rank of SWAG must be 0 or at least 2: one deviation has no covariance")
        if self.unit not in UNITS:
            raise FedbiomedUserInputError(f"unit of SWAG must be one of {', '.join(UNITS)}, not {self.unit!r:.80}")

    def is_due(self, count: int) -> bool:
        """Whether a snapshot is taken after so many units, counted from 1."""
        passed = count - self.start
        if passed < 0 or passed % self.every:
            return False
        return self.max_snapshots is None or passed // self.every < self.max_snapshots

    def save(self) -> dict[str, Any]:
        """JSON that `load` reads."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, saved: Any) -> Self:
        """The schedule that `save` gave.

        Raises:
            FedbiomedUserInputError: it is not of that form.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(saved, Mapping) or not set(saved) <= known:
            raise FedbiomedUserInputError(f"a schedule of SWAG has the keys {sorted(known)}, this is {saved!r:.200}")
        return cls(**saved)


def _check(name: str, given: Any, least: int) -> None:
    if type(given) is not int or given < least:
        raise FedbiomedUserInputError(f"{name} of SWAG must be an integer of {least} or more, not {given!r:.80}")
