"""What comes back in one round: results are fetched as they come, and handed on in the order of the nodes.

The order matters: a sum of floats depends on it, and a run must give the same bits whichever node was faster. So a result that comes
before its turn waits as a file; it is read when it is handed on, and forgotten after.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedRepositoryError, FedbiomedResponsesError
from fedbiomed.common.messages.training import TrainReply
from fedbiomed.researcher.exchange import Exchange
from fedbiomed.researcher.job_files import JobFiles
from fedbiomed.researcher.responses import TrainingReply

logger = logging.getLogger(__name__)

OnReply = Callable[[dict[str, Any]], None]


class RoundReceipt:
    """The replies of one round, the reasons against the others, and what was measured.

    Args:
        nodes: who was asked; the order in which replies are handed on.
        files: where results go.
        training: whether results are expected, or only measurements.
        masked: whether a result is a masked update: it is not read here, and the reply keeps no file.
        on_reply: called with each good reply, its parameters in memory for the time of the call.
    """

    def __init__(
        self, nodes: Sequence[str], files: JobFiles, *, training: bool, masked: bool = False, on_reply: OnReply | None = None
    ) -> None:
        self._waiting = list(nodes)
        self._files, self._training, self._masked, self._on_reply = files, training, masked, on_reply
        self._fetched: dict[str, tuple[TrainReply, Path | None]] = {}
        self.replies: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self.metrics: dict[str, tuple[dict[str, Any], ...]] = {}

    def take(self, node_id: str, answer: TrainReply | str, exchange: Exchange) -> None:
        """Take a node's answer, and hand on those whose turn has come."""
        if isinstance(answer, str):
            self._leave_out(node_id, answer)
        else:
            self._fetch(answer, exchange)
        while self._waiting and (self._waiting[0] in self._fetched or self._waiting[0] in self.failures):
            first = self._waiting.pop(0)
            if first in self._fetched:
                self._hand_on(*self._fetched.pop(first))

    def _fetch(self, reply: TrainReply, exchange: Exchange) -> None:
        path = None
        try:
            if self._training:
                path = self._result(reply)
        except (FedbiomedRepositoryError, FedbiomedResponsesError) as error:
            exchange.give_up(reply.node_id, "its result could not be fetched")
            self._leave_out(reply.node_id, f"its result could not be fetched: {error}")
        else:
            exchange.got(reply.node_id)
            self._fetched[reply.node_id] = reply, path

    def _result(self, reply: TrainReply) -> Path:
        if reply.result is None:
            raise FedbiomedResponsesError("it replied without one")
        return self._files.fetch(reply.result, "node_params")

    def _hand_on(self, reply: TrainReply, path: Path | None) -> None:
        kept = TrainingReply(
            {
                **{key: getattr(reply, key) for key in ("success", "msg", "dataset_id", "node_id", "state_id", "sample_size")},
                "test_sample_size": reply.test_sample_size,
                "timing": dict(reply.timing),
                "params_path": None if path is None or self._masked else str(path),
                **({} if reply.privacy is None else {"privacy": reply.privacy}),
            }
        )
        try:
            if path is not None and not self._masked:
                _check_origin(kept.load(), reply)
        except FedbiomedResponsesError as error:
            self._leave_out(reply.node_id, str(error))
            return
        self.metrics[reply.node_id] = reply.metrics
        self.replies.append(kept)
        if self._on_reply is not None:
            self._on_reply({**kept, "params_path": str(path)} if self._masked else kept)
        kept.release()

    def _leave_out(self, node_id: str, reason: str) -> None:
        logger.warning("node %s is left out of the round: %s", node_id, reason)
        self.failures[node_id] = reason


def _check_origin(record: dict[str, Any], reply: TrainReply) -> None:
    for key in ("researcher_id", "job_id", "node_id"):
        if record.get(key) != getattr(reply, key):
            raise FedbiomedResponsesError(f"its result is that of {key} {record.get(key)!r:.80}, not of {getattr(reply, key)}")
    if record.get("encrypted"):
        raise FedbiomedResponsesError("its result is encrypted, which was not asked for")
