"""Orders, plans and a node in one process, for tests of the node's engine."""

import queue
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.message import Message, Reply
from fedbiomed.common.messages.training import TrainReply, TrainRequest
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.transport.transport import FileStore, MessageBus

RESEARCHER = "researcher_test"
M = TypeVar("M", bound=Reply)
WEIGHTS = {"weight": np.zeros((1, 1), dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}
ARGS: dict[str, Any] = {"num_updates": 2, "loader_args": {"batch_size": 4}, "random_seed": 7}


def plan_source(step: str = "", *, data: str = "", top: str = "", routine: str = "") -> bytes:
    """A plan `LinePlan` of y = ax + b on csv columns x and y, with code put in at some places."""
    lines = [
        "import pandas as pd",
        "import torch",
        "import torch.nn as nn",
        "from fedbiomed.common.training_plans import TorchTrainingPlan",
        "from fedbiomed.common.data import DataManager",
        *top.splitlines(),
        "class LinePlan(TorchTrainingPlan):",
        "    def init_model(self):",
        "        return nn.Linear(1, 1)",
        "    def init_optimizer(self):",
        "        return torch.optim.SGD(self.model().parameters(), lr=0.1)",
        "    def training_data(self):",
        *(f"        {line}" for line in data.splitlines()),
        "        table = pd.read_csv(self.dataset_path)",
        "        return DataManager(dataset=table[['x']].to_numpy(), target=table[['y']].to_numpy())",
        "    def training_step(self, data, target):",
        *(f"        {line}" for line in step.splitlines()),
        "        return ((self.model()(data) - target) ** 2).mean()",
        *(["    def training_routine(self, history_monitor=None, node_args=None):"] if routine else []),
        *(f"        {line}" for line in routine.splitlines()),
    ]
    return "\n".join(lines).encode() + b"\n"


def write_line(path: Path, rows: int = 8) -> Path:
    """A csv of y = 2x + 1."""
    path.write_text("x,y\n" + "".join(f"{i / rows},{2 * i / rows + 1}\n" for i in range(rows)), encoding="utf-8")
    return path


def node_config(root: Path, **settings: Any) -> NodeConfig:
    """Settings of a node in a folder of its own."""
    config = NodeConfig(**{"root": root, "id": f"node_{uuid.uuid4()}", "plan_approval": False, **settings})
    for folder in (config.etc, config.var, config.log):
        folder.mkdir(parents=True, exist_ok=True)
    return config


def nowhere(size: int = 1) -> FileRef:
    """A reference to a file that no repository has."""
    return FileRef(key=uuid.uuid4().hex, sha256="0" * 64, size=size)


def train_request(node_id: str, dataset_id: str = "dataset_1", **changes: Any) -> TrainRequest:
    """An order of some test."""
    now = time.time()
    request = TrainRequest(
        request_id=f"request_{uuid.uuid4()}",
        researcher_id=RESEARCHER,
        issued_at=now,
        expires_at=now + 60,
        node_id=node_id,
        job_id="job_1",
        round=0,
        attempt=0,
        training=True,
        plan=nowhere(),
        plan_class="LinePlan",
        params=nowhere(),
        dataset_id=dataset_id,
        state_id=None,
        training_args=dict(ARGS),
        model_args={},
        aggregator_args={},
        aggregator_files={},
        aux_files=(),
        secagg=None,
    )
    return replace(request, **changes)


class Asker:
    """A researcher's line in its simplest form: sends messages to one node and keeps what it answers."""

    def __init__(self, bus: MessageBus, files: FileStore, node_id: str, folder: Path, researcher_id: str = RESEARCHER) -> None:
        self.bus, self.files, self.node_id, self.researcher_id = bus, files, node_id, researcher_id
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._heard: queue.Queue[Message] = queue.Queue()
        self.passed: list[Message] = []
        bus.subscribe(topics.replies("default", researcher_id, "+"), lambda _topic, payload: self._heard.put(decode(payload)))

    def put(self, content: bytes) -> FileRef:
        """Store bytes in the repository."""
        path = self._folder / uuid.uuid4().hex
        path.write_bytes(content)
        return self.files.put(path)

    def order(self, source: bytes, dataset_id: str, weights: dict[str, Any] = WEIGHTS, **changes: Any) -> TrainRequest:
        """An order whose files are in the repository."""
        params = self.put(Serializer.dumps({"researcher_id": self.researcher_id, "model_weights": weights}))
        changes = {"researcher_id": self.researcher_id, **changes}
        return train_request(self.node_id, dataset_id, plan=self.put(source), params=params, **changes)

    def send(self, message: Message) -> None:
        """Publish to the node."""
        self.bus.publish(topics.orders("default", self.node_id), encode(message))

    def hear(self, kind: type[M], request_id: str, timeout_s: float = 60.0) -> M:
        """The next answer of a kind to one request; others are put aside in `passed`."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._heard.get(timeout=max(0.01, deadline - time.monotonic()))
            if isinstance(message, kind) and message.request_id == request_id:
                return message
            self.passed.append(message)

    def train(self, request: TrainRequest) -> TrainReply:
        """Send an order and wait for its reply."""
        self.send(request)
        return self.hear(TrainReply, request.request_id)

    def result(self, reply: TrainReply) -> dict[str, Any]:
        """Content of a reply's file."""
        assert reply.result is not None, reply.msg
        path = self._folder / uuid.uuid4().hex
        self.files.get(reply.result, path)
        content: dict[str, Any] = Serializer.load(path)
        return content
