"""One round on one node: the order, what is heard of it on the way, and its result."""

from dataclasses import dataclass
from typing import Any

from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.message import Message, Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest(Request):
    """Order one node to train, or only to validate, for one round.

    Args:
        node_id: to whom.
        job_id: the exchange that it belongs to.
        round: from 0.
        attempt: from 0; another attempt of a round is another order.
        training: False: only validate the parameters.
        plan: source file of the training plan.
        plan_class: name of the plan's class in it.
        params: file with `model_weights`.
        dataset_id: which dataset of the node.
        state_id: the state that the node kept in the round before, if any.
        training_args: as validated by `TrainingArgs`.
        model_args: for the plan's model.
        aggregator_args: small arguments of the aggregator, by name.
        aggregator_files: large ones, by name.
        aux_files: auxiliary variables of the server's optimizer.
        secagg: arguments of secure aggregation, or None for none.
        got: ids of earlier orders whose results the researcher has, as by `OrderGot`.
    """

    node_id: str
    job_id: str
    round: int
    attempt: int
    training: bool
    plan: FileRef
    plan_class: str
    params: FileRef
    dataset_id: str
    state_id: str | None
    training_args: dict[str, Any]
    model_args: dict[str, Any]
    aggregator_args: dict[str, Any]
    aggregator_files: dict[str, FileRef]
    aux_files: tuple[FileRef, ...]
    secagg: dict[str, Any] | None
    got: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAccepted(Reply):
    """The order is stored on the node's disk."""

    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress(Reply):
    """Sent at most once a second and at least every 30 s while an order is open.

    Args:
        state: an `OrderState`.
        phase: a `Phase`.
        iteration: batches done in this phase.
        num_iterations: batches to do in it, 0 while unknown.
        epoch: from 1, None when trained by number of updates.
        metrics: last reported values by name.
        samples, num_samples: samples that this phase went over, and will in all; 0 while unknown.
    """

    state: str
    phase: str
    iteration: int
    num_iterations: int
    epoch: int | None
    metrics: dict[str, float]
    samples: int = 0
    num_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReply(Reply):
    """The result of an order; the node keeps it until the researcher has said `OrderGot`, by itself or with another order.

    Args:
        success: whether the round ended well on the node.
        msg: for users: what failed and what to do, or empty.
        state_id: the state kept on the node for the next round.
        result: file with the node's parameters; None when validation only, or failed.
        sample_size: length of the training subset, 0 when validation only.
        timing: seconds: `rtime_training`, `ptime_training`, `rtime_total`.
        metrics: reported values in their order: `phase`, `metric`, `value`, `iteration`, `epoch`.
        test_sample_size: length of the test subset.
        privacy: with `dp_args`, what this round cost (`sample_rate`, `noise_multiplier`, `steps`) and what the experiment has spent of this
            node's privacy so far (`epsilon`, the text `inf` where it is infinite, at `delta`).
    """

    job_id: str
    round: int
    success: bool
    msg: str
    dataset_id: str
    state_id: str | None
    result: FileRef | None
    sample_size: int
    timing: dict[str, float]
    metrics: tuple[dict[str, Any], ...]
    test_sample_size: int = 0
    privacy: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderGot(Message):
    """The researcher has the result: the node may forget it."""

    request_id: str
    researcher_id: str
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCancelled(Message):
    """The researcher does not want the result any more."""

    request_id: str
    researcher_id: str
    node_id: str
    reason: str
