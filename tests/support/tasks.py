"""Round tasks for tests that train without a node."""

import uuid
from pathlib import Path
from typing import Any

from fedbiomed.common.serializer import Serializer
from fedbiomed.node.task import RoundTask
from tests.support.orders import ARGS, WEIGHTS, write_line


def round_task(folder: Path, **changes: Any) -> RoundTask:
    """A task on y = 2x + 1 whose files lie in a folder."""
    params = folder / "params.mpk"
    Serializer.dump({"researcher_id": "researcher_1", "model_weights": WEIGHTS}, params)
    content: dict[str, Any] = {
        "request_id": "request_1",
        "researcher_id": "researcher_1",
        "node_id": "node_1",
        "job_id": "job_1",
        "round": 0,
        "training": True,
        "plan_class": "LinePlan",
        "training_args": dict(ARGS),
        "model_args": {},
        "aggregator_args": {},
        "aggregator_files": {},
        "aux_files": [],
        "former_state": None,
        "state": str(folder / "state.mpk"),
        "params": str(params),
        "dataset_id": "dataset_1",
        "dataset_path": str(write_line(folder / "line.csv")),
        "state_id": f"node_state_{uuid.uuid4()}",
        "result": str(folder / "result.mpk"),
        "minimum_samples": 2,
        "node_args": {"gpu": False, "gpu_num": None, "gpu_only": False},
    }
    return RoundTask(**{**content, **changes})
