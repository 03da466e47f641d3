"""`SecureAggregation`: the settings of secure aggregation, and the session that the parties agreed on."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.common.secagg.errors import setup_error as _setup_error
from fedbiomed.common.secagg.joye_libert_parties import LONG_S
from fedbiomed.common.secagg.quantise import better_clip
from fedbiomed.common.secagg.terms import Purpose, Scheme
from fedbiomed.common.secagg.wire import SecaggOrder
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg.context import SecaggBiprimeContext, SecaggServkeyContext, checked_job_id, checked_parties
from fedbiomed.researcher.secagg.joye_libert_session import with_keys
from fedbiomed.researcher.secagg.round_sum import Ranges
from fedbiomed.researcher.secagg.session import SecureSession, Wish, agreed

logger = logging.getLogger(__name__)
DEFAULT_CLIP = 16
_ARGUMENTS = ("active", "timeout", "clipping_range")
_OPTIONS = ("scheme", "allow_two_nodes", "minimum_nodes", "signed_survivors", "aux_clipping_range", "count_alike")
_RANGES = ("clip", "aux_clip")


class SecureAggregation:
    """Whether, and how, the researcher sees only the sum of the nodes' updates.

    Args:
        active: whether it is used.
        timeout: seconds in which the nodes must answer each step of the agreement, and reveal what opens a sum.
        clipping_range: values of updates are cut to plus and minus this before they are masked; None: 16 at first, and twice or four times
            as much in the next round where nodes had to cut more than one value in a thousand.
        scheme: how updates are hidden: `"lom"`, which is quick and bears the loss of nodes, or `"joye_libert"`, where only who holds a
            key of this session can open a sum, all nodes must answer, and a large model takes minutes (extra `joye-libert`).
        allow_two_nodes: consent to two nodes, where each learns the other's update from the sum; both nodes must allow it, too.
        minimum_nodes: how many nodes must be in a sum; None: more than half.
        signed_survivors: let nodes open a sum only when more than two thirds of them signed who is in it, so that a dishonest researcher
            cannot tell them different things; fewer nodes may be lost then.
        aux_clipping_range: the same as `clipping_range` for auxiliary variables, which go beside the updates.
        count_alike: let all nodes count alike, whatever their samples and the aggregator: then updates and auxiliary variables of
            optimizers are summed by the same weights, and no number of samples is in a sum.

    Attributes:
        timeout, clipping_range, aux_clipping_range: as given.

    Raises:
        FedbiomedSecureAggregationError: an argument is wrong.
    """

    def __init__(
        self,
        active: bool = True,
        timeout: int = 10,
        clipping_range: int | None = None,
        scheme: str = "lom",
        *,
        allow_two_nodes: bool = False,
        minimum_nodes: int | None = None,
        signed_survivors: bool = False,
        aux_clipping_range: int | None = None,
        count_alike: bool = False,
    ) -> None:
        self._active = _flag(active)
        self.timeout = _count("timeout", timeout, least=0)
        self.clipping_range = None if clipping_range is None else _count("clipping_range", clipping_range, least=1)
        self.aux_clipping_range = None if aux_clipping_range is None else _count("aux_clipping_range", aux_clipping_range, least=1)
        self.scheme = _scheme(scheme)
        self.allow_two_nodes = _flag(allow_two_nodes, "allow_two_nodes")
        self.minimum_nodes = None if minimum_nodes is None else _count("minimum_nodes", minimum_nodes, least=2)
        self.signed_survivors = _flag(signed_survivors, "signed_survivors")
        self.count_alike = _flag(count_alike, "count_alike")
        if self.signed_survivors and self.scheme == Scheme.JOYE_LIBERT:
            raise _error("signed_survivors is for the scheme 'lom': with 'joye_libert' all nodes are in a sum, there is nothing to sign")
        self._clip, self._aux_clip = float(clipping_range or DEFAULT_CLIP), float(aux_clipping_range or DEFAULT_CLIP)
        self._is_told = False
        self._session: SecureSession | None = None
        self._cost_told: bytes | None = None
        self._wanted: list[str] = []
        self._parties: list[str] | None = None
        self._job_id: str | None = None
        self._servkey: SecaggServkeyContext | None = None
        self._biprime: SecaggBiprimeContext | None = None

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
        """The arithmetic that the parties share; None before the first secure round."""
        return self._biprime

    @property
    def servkey(self) -> SecaggServkeyContext | None:
        """The session in which sums are opened; None before the first secure round."""
        return self._servkey

    @property
    def clip(self) -> float:
        """The clipping range of the next round."""
        return self._clip

    @property
    def ranges(self) -> Ranges:
        """The clipping ranges of the next round."""
        return Ranges(self._clip, self._aux_clip)

    def activate(self, status: bool) -> bool:
        """Switch it on or off; returns what was set."""
        self._active = _flag(status)
        return self._active

    def setup(self, parties: Sequence[str], job_id: str, force: bool = False, *, requests: Requests | None = None) -> bool:
        """Agree with all parties of a job; an experiment does it by itself before its rounds.

        Args:
            parties: ids of all, the researcher's first.
            job_id: the job.
            force: agree anew even if they have agreed already.
            requests: the line to the nodes; None: that of the process, `Requests()`.

        Returns:
            True.

        Raises:
            FedbiomedSecaggError: wrong parties or job, or a node does not agree: which one, why.
        """
        given, job_id = checked_parties(parties), checked_job_id(job_id)
        if _flag(force, "force"):
            self.forget_session()
        line = Requests() if requests is None else requests
        if given[0] != line.researcher_id:
            raise _setup_error(f"the first party must be this researcher, {line.researcher_id}, not {given[0]!r:.80}")
        absent = self._session_of(line, job_id, given[1:]).absent
        if absent:
            self.forget_session()
            raise _setup_error("; ".join(f"{node}: {reason}" for node, reason in sorted(absent.items())))
        return True

    def session_for(self, job: Job, nodes: Sequence[str], rows: int = 0) -> SecureSession:
        """The session of a round: the one that is there, or a new one where job or nodes are others.

        Args:
            job: whose round it is.
            nodes: that are asked.
            rows: of the largest dataset.

        Raises:
            FedbiomedSecaggError: the nodes do not agree: which ones, why.
        """
        return self._session_of(job.requests, job.id, nodes, rows)

    def _session_of(self, requests: Requests, job_id: str, nodes: Sequence[str], rows: int = 0) -> SecureSession:
        session, wanted = self._session, sorted(nodes)
        if session is not None:
            is_same = session.terms.experiment_id == job_id and self._wanted == wanted and session.requests is requests
            if is_same and not set(session.absent) & set(requests.online_nodes()):
                return session
            self.forget_session()
        wish = Wish(
            timeout_s=float(self.timeout),
            allows_two=self.allow_two_nodes,
            minimum_nodes=self.minimum_nodes,
            rows=rows,
            signs=self.signed_survivors,
            scheme=Scheme(self.scheme),
        )
        session = agreed(requests, job_id, nodes, wish)
        if wish.scheme is Scheme.JOYE_LIBERT:
            session = with_keys(session)
        self._session, self._wanted = session, wanted
        self._describe(session)
        return session

    def _describe(self, session: SecureSession) -> None:
        """Make the contexts anew, for their users; an id stays as long as parties and job do."""
        terms = session.terms
        parties = [terms.researcher_id, *terms.members]
        told = {"scheme": terms.scheme.value, "session": session.sid.hex(), "threshold": terms.threshold, "members": list(terms.members)}
        self._servkey = SecaggServkeyContext(parties, terms.experiment_id, told)
        self._biprime = SecaggBiprimeContext(parties, session.arithmetic())
        self._parties, self._job_id = parties, terms.experiment_id

    def tell_cost(self, round_: int, session: SecureSession, sizes: Mapping[Purpose, int]) -> None:
        """Log, once in a session, how long a round takes where the scheme is slow for a model of this size."""
        if self._cost_told != session.sid and (seconds := session.seconds(sizes)) >= LONG_S:
            limit_s = session.requests.connection.config.round_timeout_s
            logger.warning(
                "round %d: hiding %d values by %s takes each node about %.0f s a round on a machine like this one, and opening the sum as "
                "long here; scheme='lom' takes some milliseconds for each million%s",
                *(round_, sum(sizes.values()), self.scheme, seconds),
                f". Raise round_timeout_s, which is {limit_s:.0f}, in the researcher's etc/config.toml" if seconds > limit_s else "",
            )
        self._cost_told = session.sid

    def forget_session(self) -> None:
        """End the session, here and on the nodes; the next round begins with a new one."""
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def take_clipped(self, round_: int, clipped: Mapping[str, Mapping[Purpose, float]]) -> None:
        """Hear which fraction of its values each node had to cut in a round, and say which ranges would do."""
        of_values = [told.get(Purpose.WEIGHTS, 0.0) for told in clipped.values()]
        of_aux = [told.get(Purpose.AUX, 0.0) for told in clipped.values()]
        self._clip = self._better(round_, "clipping_range", self._clip, of_values, "values")
        self._aux_clip = self._better(round_, "aux_clipping_range", self._aux_clip, of_aux, "auxiliary variables")

    def _better(self, round_: int, argument: str, clip: float, fractions: Sequence[float], what: str) -> float:
        """The range of the next round: a wider one where that is needed and none was given."""
        proposed, is_given = better_clip(clip, fractions), getattr(self, argument) is not None
        if proposed > clip:
            advice = f"set it: SecureAggregation({argument}={proposed:g})" if is_given else "the next round has it"
            logger.warning(
                "round %d: a node cut %.2g of its %s to the clipping range %g; %g would do, %s",
                *(round_, max(fractions), what, clip, proposed, advice),
            )
        return clip if is_given else proposed

    def tell_weightings(self, round_: int) -> None:
        """Say once that two sums of different weights are opened."""
        if not self._is_told:
            logger.warning(
                "round %d: updates are summed by samples, auxiliary variables of agg_optimizer not: who knows the numbers of samples "
                "learns more from both sums than from one; SecureAggregation(count_alike=True) has one kind of weight",
                round_,
            )
        self._is_told = True

    def validation_arguments(self) -> dict[str, Any] | None:
        """What an order to validate tells; None where there is no session."""
        if not self._active or self._session is None:
            return None
        return SecaggOrder(sid=self._session.sid, attempt=0, layout="", parts=()).as_dict()

    def train_arguments(self) -> dict[str, Any]:
        """What an order tells the nodes about it: `secagg_servkey_id, secagg_biprime_id, secagg_random, secagg_clipping_range`.

        `secagg_random` is None: a value that the researcher knows, masked like the rest, would help to read the rest.
        """
        return {
            "secagg_servkey_id": None if self._servkey is None else self._servkey.secagg_id,
            "secagg_biprime_id": None if self._biprime is None else self._biprime.secagg_id,
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
        """Refuse: a sum opens only together with the nodes, within the round in which they masked it.

        Raises:
            FedbiomedSecureAggregationError: always.
        """
        raise _error(
            f"the sum of round {round_} cannot be opened here: it opens only with the nodes, in Experiment.run or run_once, and once"
        )

    def save_state_breakpoint(self) -> dict[str, Any]:
        """What a breakpoint keeps; no key material."""
        contexts = {"_biprime": self._biprime, "_servkey": self._servkey}
        return {
            "class": type(self).__name__,
            "module": type(self).__module__,
            "arguments": {name: getattr(self, name) for name in _ARGUMENTS},
            "options": {**{name: getattr(self, name) for name in _OPTIONS}, "clip": self._clip, "aux_clip": self._aux_clip},
            "attributes": {
                **{name: None if context is None else context.save_state_breakpoint() for name, context in contexts.items()},
                "_job_id": self._job_id,
                "_parties": self.parties,
            },
        }

    @classmethod
    def load_state_breakpoint(cls, state: Mapping[str, Any]) -> Self:
        """The object that `save_state_breakpoint` told of; the next secure round agrees on a new session.

        Raises:
            FedbiomedSecureAggregationError: it is not of that form.
            FedbiomedSecaggError: a context in it is not.
        """
        arguments, options, attributes = state.get("arguments"), state.get("options") or {}, state.get("attributes") or {}
        if not isinstance(arguments, Mapping) or set(arguments) != set(_ARGUMENTS):
            raise _error(f"a breakpoint tells of active, timeout and clipping_range, not of {arguments!r:.120}")
        if not isinstance(options, Mapping) or not isinstance(attributes, Mapping) or set(options) - {*_OPTIONS, *_RANGES}:
            raise _error(f"a breakpoint tells options and attributes by name, not {options!r:.120}")
        made = cls(**arguments, **{name: options[name] for name in _OPTIONS if name in options})
        made._clip = _range(options.get("clip", made._clip))
        made._aux_clip = _range(options.get("aux_clip", made._aux_clip))
        servkey, biprime = attributes.get("_servkey"), attributes.get("_biprime")
        made._servkey = None if servkey is None else SecaggServkeyContext.load_state_breakpoint(servkey)
        made._biprime = None if biprime is None else SecaggBiprimeContext.load_state_breakpoint(biprime)
        made._parties, made._job_id = (None if made._servkey is None else made._servkey.parties), attributes.get("_job_id")
        return made

    def __repr__(self) -> str:
        return f"SecureAggregation(active={self._active}, timeout={self.timeout}, clipping_range={self.clipping_range})"


def secure_aggregation(given: Any) -> SecureAggregation:
    """An object of what an experiment was given: a bool, or such an object.

    Raises:
        FedbiomedSecureAggregationError: something else.
    """
    made = SecureAggregation(active=given) if isinstance(given, bool) else given
    if not isinstance(made, SecureAggregation):
        raise _error(f"secagg must be True, False or a SecureAggregation, not {given!r:.120}")
    return made


def refuse_active(secagg: SecureAggregation, what: str) -> None:
    """Raise the one error where something needs single updates and secure aggregation is switched on."""
    if secagg.active:
        raise _error(f"{what} needs the models of single nodes, which secure aggregation hides; switch it off: set_secagg(False)")


def _range(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise _error(f"the clipping range in a breakpoint must be a number above 0, not {given!r:.80}")
    return float(given)


def _scheme(given: Any) -> str:
    if not isinstance(given, str) or given not in tuple(Scheme):
        raise _error(f"scheme must be one of {', '.join(Scheme)}, not {given!r:.80}")
    return given


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
