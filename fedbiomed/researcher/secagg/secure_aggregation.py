"""`SecureAggregation`: whether, and how, the nodes' updates are summed without the researcher seeing any of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.researcher.secagg.context import (
    SecaggBiprimeContext,
    SecaggServkeyContext,
    checked_job_id,
    checked_parties,
    refuse_use,
)


class SecureAggregation:
    """Settings of secure aggregation; this version has no scheme behind them yet, so an active one stops an experiment with one error.

    Args:
        active: whether it is used.
        timeout: seconds in which the parties must agree.
        clipping_range: values are cut to plus and minus this before they are encrypted; None for the default of the scheme.

    Attributes:
        timeout, clipping_range: as given.

    Raises:
        FedbiomedSecureAggregationError: an argument is wrong.
    """

    def __init__(self, active: bool = True, timeout: int = 10, clipping_range: int | None = None) -> None:
        self._active = _flag(active)
        self.timeout = _count("timeout", timeout, least=0)
        self.clipping_range = None if clipping_range is None else _count("clipping_range", clipping_range, least=1)
        self._parties: list[str] | None = None
        self._job_id: str | None = None

    @property
    def active(self) -> bool:
        """Whether it is used."""
        return self._active

    @property
    def parties(self) -> list[str] | None:
        """Ids of the parties of the last set-up, the researcher's first; None before."""
        return None if self._parties is None else list(self._parties)

    @property
    def job_id(self) -> str | None:
        """The job of the last set-up; None before."""
        return self._job_id

    @property
    def biprime(self) -> SecaggBiprimeContext | None:
        """None before the first secure round."""
        return None

    @property
    def servkey(self) -> SecaggServkeyContext | None:
        """None before the first secure round."""
        return None

    def activate(self, status: bool) -> bool:
        """Switch it on or off; returns what was set."""
        self._active = _flag(status)
        return self._active

    def setup(self, parties: Sequence[str], job_id: str, force: bool = False) -> NoReturn:
        """Agree with all parties of a job.

        Args:
            parties: ids of all, the researcher's first.
            job_id: the job.
            force: agree anew even if they have agreed already.

        Raises:
            FedbiomedSecaggError: wrong parties or job.
            FedbiomedSecureAggregationError: always, in this version.
        """
        checked_parties(parties)
        checked_job_id(job_id)
        _flag(force, "force")
        refuse_use()

    def train_arguments(self) -> dict[str, Any]:
        """What an order tells the nodes about it: `secagg_servkey_id, secagg_biprime_id, secagg_random, secagg_clipping_range`."""
        return {
            "secagg_servkey_id": None,
            "secagg_biprime_id": None,
            "secagg_random": None,
            "secagg_clipping_range": self.clipping_range,
        }

    def aggregate(
        self,
        round_: int,
        total_sample_size: int,
        model_params: Mapping[str, Sequence[int]],
        encryption_factors: Mapping[str, Sequence[int] | None] | None = None,
    ) -> NoReturn:
        """Sum encrypted updates.

        Raises:
            FedbiomedSecureAggregationError: always, in this version.
        """
        refuse_use()

    def save_state_breakpoint(self) -> dict[str, Any]:
        """What a breakpoint keeps; no key material."""
        return {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "arguments": {"active": self._active, "timeout": self.timeout, "clipping_range": self.clipping_range},
            "attributes": {"_biprime": None, "_servkey": None, "_job_id": self._job_id, "_parties": self.parties},
        }

    @classmethod
    def load_state_breakpoint(cls, state: Mapping[str, Any]) -> Self:
        """The object that `save_state_breakpoint` told of.

        Raises:
            FedbiomedSecureAggregationError: it is not of that form.
        """
        arguments = state.get("arguments")
        if not isinstance(arguments, Mapping) or set(arguments) != {"active", "timeout", "clipping_range"}:
            raise _error(f"a breakpoint tells of active, timeout and clipping_range, not of {arguments!r:.120}")
        return cls(**arguments)

    def __repr__(self) -> str:
        return f"SecureAggregation(active={self._active}, timeout={self.timeout}, clipping_range={self.clipping_range})"


def secure_aggregation(given: Any) -> SecureAggregation:
    """An object of what an experiment was given: a bool, or such an object.

    Raises:
        FedbiomedSecureAggregationError: something else; or it is active, which no version can do yet.
    """
    made = SecureAggregation(active=given) if isinstance(given, bool) else given
    if not isinstance(made, SecureAggregation):
        raise _error(f"secagg must be True, False or a SecureAggregation, not {given!r:.120}")
    refuse_active(made)
    return made


def refuse_active(secagg: SecureAggregation) -> None:
    """Raise the one error where secure aggregation is switched on."""
    if secagg.active:
        refuse_use()


def _flag(given: Any, name: str = "active") -> bool:
    if not isinstance(given, bool):
        raise _error(f"{name} must be True or False, not {given!r:.120}")
    return given


def _count(name: str, given: Any, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise _error(f"{name} must be an integer of {least} or more, not {given!r:.120}")
    return given


def _error(reason: str) -> FedbiomedSecureAggregationError:
    return FedbiomedSecureAggregationError(f"{ErrorNumbers.FB417.value}: {reason}")
