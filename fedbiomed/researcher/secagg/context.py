"""What the parties of secure aggregation agreed on, as a user sees it; no key is in it."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecaggError

MIN_PARTIES = 3


def checked_parties(parties: Any) -> list[str]:
    """A copy of the ids of all parties, the researcher's first.

    Raises:
        FedbiomedSecaggError: fewer than three, one twice, or not ids.
    """
    if not isinstance(parties, list | tuple) or not all(isinstance(party, str) and party for party in parties):
        raise _error(f"parties must be a list of ids, the researcher's first, not {parties!r:.120}")
    if len(set(parties)) < MIN_PARTIES or len(set(parties)) < len(parties):
        raise _error(f"at least {MIN_PARTIES} different parties are needed (the researcher and two nodes), not {list(parties)!r:.120}")
    return list(parties)


def checked_job_id(job_id: Any) -> str:
    """The id of a job.

    Raises:
        FedbiomedSecaggError: it is not one.
    """
    if not isinstance(job_id, str) or not job_id:
        raise _error(f"job_id must be the id of a job, not {job_id!r:.120}")
    return job_id


class SecaggContext:
    """Something that all parties of secure aggregation share; use one of the classes below.

    Args:
        parties: ids of all, the researcher's first, at least three.
        job_id: the job that it belongs to, None for none.
        context: what they agreed on, JSON; None before.

    Raises:
        FedbiomedSecaggError: wrong parties or job.
    """

    def __init__(self, parties: Sequence[str], job_id: str | None = None, context: Mapping[str, Any] | None = None) -> None:
        self._parties = checked_parties(parties)
        self._job_id = None if job_id is None else checked_job_id(job_id)
        self._secagg_id = f"secagg_{uuid.uuid4()}"
        self._context = None if context is None else dict(context)

    @property
    def parties(self) -> list[str]:
        """Ids of all parties."""
        return list(self._parties)

    @property
    def secagg_id(self) -> str:
        """Its own id."""
        return self._secagg_id

    @property
    def job_id(self) -> str | None:
        """The job that it belongs to."""
        return self._job_id

    @property
    def status(self) -> bool:
        """Whether all parties have agreed."""
        return self._context is not None

    @property
    def context(self) -> dict[str, Any] | None:
        """What they agreed on; None before. Keys stay where they are used."""
        return None if self._context is None else dict(self._context)

    def save_state_breakpoint(self) -> dict[str, Any]:
        """What a breakpoint keeps; no key material."""
        return {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "arguments": {"parties": self.parties, "job_id": self._job_id},
            "attributes": {"_secagg_id": self._secagg_id, "_status": self.status, "_context": self.context},
        }

    @classmethod
    def load_state_breakpoint(cls, state: Mapping[str, Any]) -> Self:
        """The context that `save_state_breakpoint` told of.

        Raises:
            FedbiomedSecaggError: it is not of that form.
        """
        try:
            arguments, attributes = state["arguments"], state["attributes"]
            made = cls.__new__(cls)
            SecaggContext.__init__(made, arguments["parties"], arguments["job_id"], attributes["_context"])
            made._secagg_id = str(attributes["_secagg_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise _error(f"a breakpoint tells parties, job_id, id and context of a context, not {state!r:.120}") from error
        return made


class SecaggServkeyContext(SecaggContext):
    """What opens the sums of one job: which session, of whom, how many must take part."""

    def __init__(self, parties: Sequence[str], job_id: str, context: Mapping[str, Any] | None = None) -> None:
        super().__init__(parties, checked_job_id(job_id), context)


class SecaggBiprimeContext(SecaggContext):
    """The arithmetic that all parties share: scheme, bits and ring; it belongs to no job."""

    def __init__(self, parties: Sequence[str], context: Mapping[str, Any] | None = None) -> None:
        super().__init__(parties, None, context)


def _error(reason: str) -> FedbiomedSecaggError:
    return FedbiomedSecaggError(f"{ErrorNumbers.FB415.value}: {reason}")
