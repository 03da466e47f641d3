"""What the node's daemon and its training process say to each other: JSON in frames over a private line, never pickle.

The training process runs code that came from elsewhere, so the daemon checks every field of what it hears from there.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import WorkerError
from fedbiomed.common.messages.message import is_json, read_json

MAX_FRAME_BYTES = 160 << 10
SOURCE_PIECE_BYTES = 64 << 10
_MAX_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTask:
    """One round as the training process is told of it: local paths instead of references.

    Args:
        request_id: of the order.
        params: file with `model_weights`.
        aggregator_files: files whose content stands for an argument of the aggregator, by its name.
        dataset_path: what the plan finds as `self.dataset_path`; None where the data lie at no path.
        dataset_parameters: what the operator said of the dataset beside the path.
        loading_plan: plan and blocks, as `DataLoadingPlan.serialize` gives them.
        aux_files: auxiliary variables of the researcher's optimizer.
        former_state: file of what was kept in the round before, if there is one: the optimizer's state, and that of the node's half.
        state: where that of this round shall lie.
        state_id: goes into the result file; None for a validation.
        result: where the result file shall lie.
        minimum_samples: refuse to train on fewer.
        node_args: `gpu`, `gpu_num`, `gpu_only`.
        checkpoints: folder of what the plan keeps of this job; None: it cannot keep anything.
        privacy: what was spent and may be spent, see `PrivacyLedger.statement`; empty without differential privacy.
    """

    request_id: str
    researcher_id: str
    node_id: str
    job_id: str
    round: int
    training: bool
    plan_class: str
    training_args: dict[str, Any]
    model_args: dict[str, Any]
    aggregator_args: dict[str, Any]
    aggregator_files: dict[str, str]
    aux_files: list[str]
    former_state: str | None
    state: str
    params: str
    dataset_id: str
    dataset_path: str | None
    state_id: str | None
    result: str
    minimum_samples: int
    node_args: dict[str, Any]
    dataset_parameters: dict[str, Any] = field(default_factory=dict)
    loading_plan: tuple[dict[str, Any], list[dict[str, Any]]] | None = None
    checkpoints: str | None = None
    privacy: dict[str, Any] = field(default_factory=dict)

    def without_places(self, text: str) -> str:
        """A text for the researcher, in which it cannot be read where the data lie."""
        places = [self.dataset_path, *(value for value in self.dataset_parameters.values() if isinstance(value, str))]
        known = {place for place in places if place and place.startswith("/") and Path(place) != Path("/")}
        for place in sorted(known | {str(Path(place).parent) for place in known} - {"/"}, key=len, reverse=True):
            text = text.replace(place, "<dataset>")
        return text.replace(self.checkpoints, "<checkpoints>") if self.checkpoints else text


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """How far a round has come; see `TrainProgress`."""

    phase: str
    iteration: int
    num_iterations: int
    epoch: int | None
    metrics: dict[str, float]
    samples: int = 0
    num_samples: int = 0

    def __post_init__(self) -> None:
        _check(self.phase in tuple(Phase) and type(self.iteration) is int and type(self.num_iterations) is int, "progress")
        _check(self.epoch is None or type(self.epoch) is int, "progress")
        _check(type(self.samples) is int and type(self.num_samples) is int, "progress")
        _check(_are_numbers(self.metrics), "progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a round gave, beside the file.

    Args:
        sample_size: rows trained on.
        msg: for users: what did not go well without ending the round.
        timing: seconds: `rtime_training`, `ptime_training`.
        metrics: as in `TrainReply`.
        has_state: whether there is a file for the next round.
        optimizer_type: whose state is in it; None: it has none.
        test_sample_size: rows kept for tests.
        privacy: what the round cost, see `TrainReply`; None without differential privacy.
    """

    sample_size: int
    msg: str
    timing: dict[str, float]
    metrics: tuple[dict[str, Any], ...]
    has_state: bool = False
    optimizer_type: str | None = None
    test_sample_size: int = 0
    privacy: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check(self.privacy is None or _is_cost(self.privacy), "result")
        _check(self.optimizer_type is None or (isinstance(self.optimizer_type, str) and len(self.optimizer_type) <= _MAX_NAME), "result")
        _check(type(self.sample_size) is int and self.sample_size >= 0 and isinstance(self.msg, str), "result")
        _check(type(self.has_state) is bool and (self.has_state or self.optimizer_type is None), "result")
        _check(type(self.test_sample_size) is int and self.test_sample_size >= 0, "result")
        _check(_are_numbers(self.timing), "result")
        _check(all(isinstance(point, dict) and is_json(point) for point in self.metrics), "result")


def task_to_bytes(task: RoundTask) -> bytes:
    """Write a task; characters as they are, so that it is hardly longer than the order."""
    content = {field.name: getattr(task, field.name) for field in fields(task)}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def task_from_bytes(frame: bytes) -> RoundTask:
    """Read a task, which came from our own daemon."""
    return RoundTask(**json.loads(frame))


def to_bytes(kind: str, content: object) -> bytes:
    """Write a frame of the training process: `progress`, `result`, or `failed` with a sentence."""
    value = content if isinstance(content, str) else asdict(content)  # type: ignore[call-overload]
    return json.dumps({"kind": kind, "content": value}, separators=(",", ":")).encode()


def from_bytes(frame: bytes) -> RoundReport | RoundResult | str:
    """Read a frame of the training process; a sentence is the reason of a failure.

    Raises:
        WorkerError: it is none of them.
    """
    try:
        message = read_json(frame)
        kind, content = message["kind"], message["content"]
        if kind == "failed" and isinstance(content, str):
            return content
        return _result(content) if kind == "result" else _report(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WorkerError(f"FB300: the training process sent nonsense ({type(error).__name__})") from error


def _result(content: Mapping[str, Any]) -> RoundResult:
    return RoundResult(**{**content, "metrics": tuple(content["metrics"])})


def _report(content: Mapping[str, Any]) -> RoundReport:
    return RoundReport(**{field.name: content[field.name] for field in fields(RoundReport)})


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(
        isinstance(name, str) and type(value) in (int, float) and math.isfinite(value) for name, value in values.items()
    )


def _is_cost(told: Mapping[str, Any]) -> bool:
    if not isinstance(told, dict) or told.keys() != {"sample_rate", "noise_multiplier", "steps", "epsilon", "delta"}:
        return False
    is_counted = type(told["steps"]) is int and 0 <= told["steps"] < 2**53
    finite = {name: value for name, value in told.items() if name != "epsilon" or value != "inf"}
    return is_counted and _are_numbers(finite) and 0 < told["sample_rate"] <= 1 and told["noise_multiplier"] >= 0


def _check(is_right: object, what: str) -> None:
    if not is_right:
        raise ValueError(what)
