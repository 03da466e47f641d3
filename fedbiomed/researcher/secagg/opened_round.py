"""The sum that was opened last, kept with the experiment until another one takes its place.

Between opening a sum and saving the round the researcher's process may die, or the new parameters may not be uploaded. If the nodes were
then asked once more, another set of them might answer, and two sums over sets that differ by one node tell that node's update. So
the opened mean is on the disk before it is used, and a round that is begun again in the same way takes it from there. Keeping the session's
key, the masked vectors and what was revealed instead was refused: they would put secrets on a disk for the same end.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.files import sha256_of_file, written_whole
from fedbiomed.common.params import Params
from fedbiomed.common.security.framing import joined
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.responses import TrainingReply
from fedbiomed.researcher.round_updates import RoundUpdates
from fedbiomed.researcher.secagg.round_sum import Means
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies.strategy import Strategy

logger = logging.getLogger(__name__)
_FILE = "secagg_opened.mpk"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRound:
    """A round whose sum is known.

    Args:
        means: of the sum.
        replies: of the nodes, without parameters.
        metrics: what they measured, by node.
        states: what the nodes keep of the round, by node.
    """

    means: Means
    replies: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, tuple[dict[str, Any], ...]]
    states: Mapping[str, str | None]


def begun_as(job: Job, round_: int, asked: Sequence[str], summed: str) -> str:
    """Names a round by all that its sum depends on here: job, parameters, plan, arguments, who is asked and what is summed."""
    digests = (sha256_of_file(Path(job.params_path)), sha256_of_file(Path(job.training_plan_file)))
    arguments = json.dumps(job.training_args, sort_keys=True, default=repr)
    return hashlib.sha256(joined(job.id, round_, *digests, arguments, summed, *sorted(asked))).hexdigest()


def keep(job: Job, begun: str, opened: OpenedRound) -> None:
    """Put an opened round in the place of the former one, on the disk when this returns; only its user may read it.

    Raises:
        OSError: it cannot be written.
    """
    replies = [reply.without_file() if isinstance(reply, TrainingReply) else dict(reply) for reply in opened.replies]
    metrics = {node: [dict(point) for point in points] for node, points in opened.metrics.items()}
    means = {"nodes": list(opened.means.nodes), "weight": opened.means.weight, "beside": dict(opened.means.beside)}
    told = {"replies": replies, "metrics": metrics, "states": dict(opened.states)}
    content = {"begun_as": begun, **means, "model_weights": opened.means.params, **told}
    with written_whole(_place(job), sync=True) as file:  # with mode 0600 from its first moment
        file.write(Serializer.dumps(content))


def kept(job: Job, begun: str) -> OpenedRound | None:
    """The round that was opened last, if it began in the same way."""
    try:
        content = Serializer.load(_place(job)) if _place(job).is_file() else {}
        if content.get("begun_as") != begun:
            return None
        replies = [TrainingReply(reply) for reply in content["replies"]]
        metrics = {node: tuple(points) for node, points in content["metrics"].items()}
        of_sum = {"weight": content["weight"], "params": content["model_weights"], "beside": content["beside"]}
        means = Means(nodes=tuple(content["nodes"]), **of_sum)
        return OpenedRound(means=means, replies=replies, metrics=metrics, states=content["states"])
    except (FedbiomedError, OSError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read and is not used: %s", _place(job), error)
        return None


class ReplayedRound(RoundUpdates):
    """A round of which the sum is known: no node is asked.

    Args:
        round_, sampled, strategy, aggregator, aux: see `RoundUpdates`.
        opened: what is known.
    """

    def __init__(  # noqa: PLR0917  those of the base class, and one
        self, round_: int, sampled: Sequence[str], strategy: Strategy, aggregator: Aggregator, aux: AuxTotal, opened: OpenedRound
    ) -> None:
        super().__init__(round_, sampled, strategy, aggregator, aux)
        self._opened = opened

    def collect(self, job: Job, ask: Callable[[], object]) -> None:
        """Take what was replied when the sum was opened."""
        logger.warning("round %d: its sum was opened before, and is taken again; no node is asked", self._round)
        job.failures[self._round] = {}
        self._good = job.take_replies(self._round, [dict(reply) for reply in self._opened.replies], dict(self._opened.metrics))
        job.node_states.put(self._opened.states)

    def aggregate(self, job: Job) -> Params:
        """Give the mean to the aggregator; see `RoundUpdates.aggregate`."""
        self.check(job)
        self._aggregator.hear_measures(self._measures(job, self._good))
        self._opened.means.hand_on(self._aggregator, self._aux, job.training_plan.get_model_params(only_trainable=True))
        return self._aggregator.finish()


def _place(job: Job) -> Path:
    return Path(job.training_plan_file).parent / _FILE
