"""States of optimizers that go with their models: what nodes sent in a round, judged, and handed on.

A state lies in the node's result file, and then in a file of its own that only its next node may read; it is in memory one at a time. A
state that would not fit is left out together with its model, before another node gets it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import AggregationError, FedbiomedOptimizerError, FedbiomedTrainerError, FedbiomedUserInputError
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.travelling import STATE_KEY, TRAVELS_KEY
from fedbiomed.common.params import Params
from fedbiomed.researcher.course import CollectedRound
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.responses import read_result

logger = logging.getLogger(__name__)
Args = Mapping[str, Mapping[str, Any]]


class RoundStates:
    """The states that come with the replies of one round.

    Args:
        optimizer: of the researcher's copy of the plan, to which states must fit; None: no state travels.
    """

    def __init__(self, optimizer: BaseOptimizer | None = None) -> None:
        self.optimizer = optimizer
        self._givers: set[str] = set()

    def take(self, node_id: str, reply: Mapping[str, Any]) -> None:
        """Judge the state of a reply, if it brings one.

        Raises:
            AggregationError: it does not fit to the plan's optimizer.
            FedbiomedResponsesError: its file is gone.
        """
        state = None if self.optimizer is None else state_in(reply)
        if self.optimizer is None or state is None:
            return
        try:
            if not isinstance(state, Mapping):
                raise FedbiomedOptimizerError(f"it is a {type(state).__name__}")
            self.optimizer.check_travelling_state(state)
        except FedbiomedOptimizerError as error:
            raise AggregationError(f"the optimizer's state of {node_id} cannot go on with its model: {error}") from error
        self._givers.add(node_id)

    def keep(self, collected: CollectedRound, params: Params | None, order: Mapping[str, str], *, others_keep: bool) -> None:
        """End a round, and give each receiver the state that goes with its model; where that brought none, the receiver has none.

        Args:
            collected: the round.
            params: the next ones of all nodes; None: there are none.
            order: `{receiver: giver}`.
            others_keep: whether a node that receives no model keeps the state that it has.

        Raises:
            FedbiomedRepositoryError: something cannot be uploaded.
        """
        optimizers = collected.job.node_params.optimizers
        if self.optimizer is None:
            optimizers.clear()
        else:
            replies = {str(reply["node_id"]): reply for reply in collected.job.training_replies[collected.round]}
            given = ((receiver, state_in(replies[giver])) for receiver, giver in order.items() if giver in self._givers)
            kept = {node: path for node, path in optimizers.paths().items() if others_keep and node not in order}
            optimizers.renew(kept, given)
        ready = optimizers.own_state()
        collected.keep(params)  # the last thing that may fail; new parameters for all nodes clear what single nodes have
        optimizers.put_back_own(ready)


def state_in(reply: Mapping[str, Any]) -> Any:
    """The state that a reply brings; None: none."""
    sent = read_result(Path(reply["params_path"])).get("sent")
    return sent.get(TRAVELS_KEY) if isinstance(sent, dict) else None


def is_wanted(name: str, with_optimizer: bool | None, job: Job) -> bool:
    """Whether states travel, with the plan and the training arguments of a job.

    Args:
        name: of the trainer.
        with_optimizer: True: they must; False: they do not; None: where they can.
        job: which is about to ask its nodes.

    Raises:
        FedbiomedTrainerError: they must, but cannot: why.
    """
    if with_optimizer is False:
        return False
    reason = job.training_plan.why_optimizer_stays()
    if reason is None:
        return True
    if with_optimizer:
        raise FedbiomedTrainerError(
            f"{ErrorNumbers.FB411.value}: {name}: the optimizer's state cannot go with its model: {reason}; give with_optimizer=False"
        )
    logger.info("models go without the state of their optimizer: %s", reason)
    return False


def args_with_states(job: Job, small: Args, *, is_training: bool) -> dict[str, dict[str, Any]]:
    """The nodes' small arguments, and what tells them that states travel, and where theirs is.

    Args:
        job: which is about to ask its `nodes`.
        small: of the aggregator.
        is_training: in a test no state is needed.
    """
    optimizers = job.node_params.optimizers
    args = {node_id: dict(small.get(node_id, {})) for node_id in job.nodes}
    for node_id in job.nodes if is_training else ():
        args[node_id][TRAVELS_KEY] = True
        url = optimizers.url(node_id)
        if url is not None:
            args[node_id][STATE_KEY] = {"arg_name": STATE_KEY, "filename": optimizers.paths()[node_id], "url": url}
    return args


def checked_option(with_optimizer: Any) -> bool | None:
    """The option as it was given.

    Raises:
        FedbiomedUserInputError: it is none.
    """
    if with_optimizer is not None and not isinstance(with_optimizer, bool):
        raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: with_optimizer must be True, False or None, not {with_optimizer!r:.80}")
    return with_optimizer
