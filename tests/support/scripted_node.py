"""A node that answers as a test tells it: a real component on a real bus, with real files, but without any training."""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedbiomed.common.constants import OrderState, Phase
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.approval import PlanApproveReply, PlanApproveRequest, PlanStatusReply, PlanStatusRequest
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Message, Request
from fedbiomed.common.messages.presence import Hello, Presence
from fedbiomed.common.messages.training import OrderAccepted, TrainProgress, TrainReply, TrainRequest
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.transport import FileStore, MessageBus

TIMEOUT_S = 10.0
M = TypeVar("M", bound=Message)
Answer = Callable[["ScriptedNode", TrainRequest], None]


class ScriptedNode:
    """Answers questions like a node, and orders as `answer` says.

    Args:
        bus: connected.
        files: the repository.
        node_id: its id.
        folder: for its files.
        datasets: what it offers.
        answer: what it does with an order, see the functions below; `answer_again`, which a test may set, with one that came before.
        federation: where it is.
    """

    def __init__(
        self,
        bus: MessageBus,
        files: FileStore,
        node_id: str,
        folder: Path,
        *,
        datasets: Sequence[Mapping[str, Any]] = (),
        answer: Answer | None = None,
        federation: str = "default",
    ) -> None:
        self.bus, self.files, self.node_id = bus, files, node_id
        self.datasets, self.answer = tuple(dict(dataset) for dataset in datasets), answer or trained()
        self.answer_again: Answer = silent
        self.part_size, self.is_mute, self.plan_status = 100, False, "Approved"
        self._folder, self._federation = folder, federation
        self._changed = threading.Condition()
        self.heard: list[Message] = []
        folder.mkdir(parents=True, exist_ok=True)
        bus.subscribe(topics.orders(federation, node_id), self._on_message)
        bus.subscribe(topics.broadcast(federation), self._on_message)
        self.appear()

    def appear(self, *, is_online: bool = True) -> None:
        """Retain a presence."""
        self.is_there = is_online
        presence = Presence(component_id=self.node_id, boot_id=uuid.uuid4().hex, is_online=is_online, name=self.node_id)
        self.bus.publish(topics.presence(self._federation, self.node_id), encode(presence), retain=True)

    def say(self, message: Message, researcher_id: str) -> None:
        """Publish to a researcher."""
        self.bus.publish(topics.replies(self._federation, researcher_id, self.node_id), encode(message))

    def hello(self, researcher_id: str, *open_orders: str) -> None:
        """Say which orders it holds."""
        self.say(Hello(request_id="boot", researcher_id=researcher_id, node_id=self.node_id, open_orders=open_orders), researcher_id)

    def all_heard(self, kind: type[M]) -> list[M]:
        """What came of one kind."""
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def wait_for(self, kind: type[M], count: int = 1) -> list[M]:
        """As `all_heard`, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all_heard(kind)) >= count, TIMEOUT_S), (
                f"{len(self.all_heard(kind))} {kind.__name__} came, {count} are awaited; heard: {self.heard!r:.2000}"
            )
            return self.all_heard(kind)

    def accept(self, order: TrainRequest) -> None:
        """Say that the order is stored."""
        self.say(OrderAccepted(**_reply_to(order, self.node_id), state=OrderState.NEW.value), order.researcher_id)

    def progress(self, order: TrainRequest, iteration: int = 1) -> None:
        """Say how far it has come."""
        message = TrainProgress(
            **_reply_to(order, self.node_id),
            state=OrderState.RUNNING.value,
            phase=Phase.TRAINING.value,
            iteration=iteration,
            num_iterations=10,
            epoch=1,
            metrics={"Loss": 1.0 / iteration},
        )
        self.say(message, order.researcher_id)

    def put(self, order: TrainRequest, params: Mapping[str, Any], **changes: Any) -> FileRef:
        """Store a result."""
        record = {
            "researcher_id": order.researcher_id,
            "job_id": order.job_id,
            "state_id": f"state_{order.round}",
            "node_id": self.node_id,
            "model_weights": dict(params),
            "optimizer_args": {"lr": 0.1},
            "optim_aux_var": {},
            "encrypted": False,
            "encryption_factor": None,
        }
        path = self._folder / f"{uuid.uuid4().hex}.mpk"
        Serializer.dump({**record, **changes}, path)
        return self.files.put(path, experiment=order.job_id, readers=[order.researcher_id])

    def reply(self, order: TrainRequest, result: FileRef | None = None, **changes: Any) -> TrainReply:
        """A good reply to an order, with changes."""
        reply = TrainReply(
            **_reply_to(order, self.node_id),
            job_id=order.job_id,
            round=order.round,
            success=True,
            msg="",
            dataset_id=order.dataset_id,
            state_id=f"node_state_{self.node_id}_{order.round}" if order.training else None,
            result=result,
            sample_size=10 if order.training else 0,
            timing={"rtime_training": 0.1, "ptime_training": 0.1, "rtime_total": 0.2},
            metrics=({"phase": Phase.TRAINING.value, "metric": "Loss", "value": 0.5, "iteration": 1, "epoch": 1},),
        )
        return replace(reply, **changes)

    def _on_message(self, _topic: str, payload: bytes) -> None:
        message = decode(payload)
        is_new = message not in self.heard
        with self._changed:
            self.heard.append(message)
            self._changed.notify_all()
        if isinstance(message, TrainRequest):
            (self.answer if is_new else self.answer_again)(self, message)
        elif isinstance(message, Request) and not self.is_mute:
            for reply in self._answers(message):
                self.say(reply, message.researcher_id)

    def _answers(self, request: Request) -> list[Message]:
        about = _reply_to(request, self.node_id)
        if isinstance(request, PingRequest):
            return [PingReply(**about, node_name=self.node_id)]
        if isinstance(request, ListRequest | SearchRequest):
            tags = set(request.tags) if isinstance(request, SearchRequest) else set()
            return self._dataset_replies(about, [d for d in self.datasets if tags <= set(d["tags"])])
        if isinstance(request, PlanStatusRequest) and self.plan_status == "Error":
            return [ErrorReply(**about, errnum="FB300", msg="internal error, see the log of this node")]
        if isinstance(request, PlanStatusRequest):
            about["job_id"] = request.job_id
            return [PlanStatusReply(**about, success=True, approval_obligation=True, status=self.plan_status, msg="as it is")]
        if isinstance(request, PlanApproveRequest):
            path = self._folder / "plan.py"
            self.files.get(request.plan, path)
            return [PlanApproveReply(**about, success=True, status="Pending", msg="")]
        return []

    def _dataset_replies(self, about: dict[str, Any], datasets: list[dict[str, Any]]) -> list[Message]:
        parts = [datasets[i : i + self.part_size] for i in range(0, len(datasets), self.part_size)] or [[]]
        return [
            DatasetsReply(**about, databases=tuple(part), count=len(datasets), part=number, parts=len(parts))
            for number, part in enumerate(parts)
        ]


def _reply_to(request: Request, node_id: str) -> dict[str, Any]:
    return {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": node_id}


def trained(params: Mapping[str, Any] | None = None, *, record: Mapping[str, Any] | None = None, **changes: Any) -> Answer:
    """Accept, report progress, and reply.

    Args:
        params: the result; None for those of the order.
        record: what else shall be different in the result file.
        changes: what shall be different in the reply.
    """

    def answer(node: ScriptedNode, order: TrainRequest) -> None:
        node.accept(order)
        node.progress(order)
        result = node.put(order, _params_of(node, order) if params is None else params, **(record or {})) if order.training else None
        node.say(node.reply(order, **{"result": result, **changes}), order.researcher_id)

    return answer


def _params_of(node: ScriptedNode, order: TrainRequest) -> dict[str, Any]:
    path = node._folder / f"{uuid.uuid4().hex}.mpk"
    node.files.get(order.params, path)
    params: dict[str, Any] = Serializer.load(path)["model_weights"]
    return {name: np.asarray(value) for name, value in params.items()}


def silent(node: ScriptedNode, order: TrainRequest) -> None:
    """Say nothing."""


def accepting(node: ScriptedNode, order: TrainRequest) -> None:
    """Accept and say nothing more."""
    node.accept(order)


def failing(message: str) -> Answer:
    """Reply that the round failed."""
    return lambda node, order: node.say(node.reply(order, success=False, msg=message, state_id=None, sample_size=0), order.researcher_id)


def erring(message: str) -> Answer:
    """Reply with an error."""
    return lambda node, order: node.say(ErrorReply(**_reply_to(order, node.node_id), errnum="FB300", msg=message), order.researcher_id)
