"""What the parties of secure aggregation agree on before a round; in this version it can be described, not negotiated."""

import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecaggError, FedbiomedSecureAggregationError

MIN_PARTIES = 3


def refuse_use() -> NoReturn:
    """Raise the one error for whatever would need secure aggregation to work."""
    raise FedbiomedSecureAggregationError(
        f"{ErrorNumbers.FB417.value}: this version does not have secure aggregation; leave it out, or switch it off: set_secagg(False)"
    )


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

    Raises:
        FedbiomedSecaggError: wrong parties or job.
    """

    def __init__(self, parties: Sequence[str], job_id: str | None = None) -> None:
        self._parties = checked_parties(parties)
        self._job_id = None if job_id is None else checked_job_id(job_id)
        self._secagg_id = f"secagg_{uuid.uuid4()}"

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
        return False

    @property
    def context(self) -> dict[str, Any] | None:
        """What they agreed on; None before."""
        return None

    def setup(self, timeout: float = 0) -> NoReturn:
        """Agree with all parties.

        Raises:
            FedbiomedSecureAggregationError: always, in this version.
        """
        refuse_use()


class SecaggServkeyContext(SecaggContext):
    """The key with which the researcher decrypts a sum, made for one job."""

    def __init__(self, parties: Sequence[str], job_id: str) -> None:
        super().__init__(parties, checked_job_id(job_id))


class SecaggBiprimeContext(SecaggContext):
    """The public modulus; it belongs to no job."""

    def __init__(self, parties: Sequence[str]) -> None:
        super().__init__(parties)


def _error(reason: str) -> FedbiomedSecaggError:
    return FedbiomedSecaggError(f"{ErrorNumbers.FB415.value}: {reason}")
