"""One order, from the book to its reply, on the node's order thread.

    new -> fetched      the plan, the parameters and the aggregator's files are in the spool
        -> running      the plan is approved and the round runs in the training process
        -> trained      the result file is in the spool and the reply (but for the file's reference) in the book
        -> uploaded     the repository has the file (masked, where the order asks for secure aggregation), the book has the reply
        -> replied      the reply went out

After a restart an order goes on from its last state; a round that was running starts again, on the same files.
"""

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.constants import ID_PATTERN, OrderState
from fedbiomed.common.exceptions import (
    FedbiomedError,
    FedbiomedNodeStoreError,
    FedbiomedRepositoryError,
    FileStoreError,
    WorkerError,
    WorkerInterrupted,
)
from fedbiomed.common.files import FileRef, sha256_of_file
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.training import TrainReply, TrainRequest
from fedbiomed.common.transport.transport import FileStore
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.heartbeat import Heartbeat
from fedbiomed.node.orders import CLOCK_SKEW_S, OPEN_STATES, Order, OrderBook
from fedbiomed.node.plan_source import MAX_SOURCE_BYTES
from fedbiomed.node.privacy_ledger import PrivacyLedger
from fedbiomed.node.secagg import NodeSecagg
from fedbiomed.node.secagg_reports import share_done, without_counts
from fedbiomed.node.state import NodeStates, StateFile, new_state_id
from fedbiomed.node.task import RoundResult, RoundTask
from fedbiomed.node.worker import StopSignal, Worker

logger = logging.getLogger(__name__)
T = TypeVar("T")
INTERNAL_ERROR = "FB300: internal error, see the log of this node"
_FETCH_PATIENCE_S = 60.0
_SLOWEST_RETRY_S = 30.0
_CACHED_PLANS = 8
_MAX_REASON = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTools:
    """What it takes to carry out an order.

    Args:
        send: publishes an encoded message to a researcher.
    """

    config: NodeConfig
    book: OrderBook
    states: NodeStates
    datasets: DatasetRegistry
    plans: PlanRegistry
    files: FileStore
    worker: Worker
    heartbeat: Heartbeat
    ledger: PrivacyLedger
    secagg: NodeSecagg
    send: Callable[[str, bytes], None]


class OrderRunner:
    """Carries out orders, one at a time."""

    def __init__(self, tools: OrderTools) -> None:
        self._tools = tools
        self._spool = tools.config.var / "spool"
        self._lock = threading.Lock()
        self._current: tuple[str, StopSignal] | None = None
        self._is_closing = False
        self._interrupted = threading.Event()
        self._sources: dict[str, bytes] = {}

    def run(self, order: Order) -> bool:
        """Bring an open order to its end, whatever happens on the way.

        Returns:
            Whether it came to its end; if not, the disk took no answer, or the node stops: the order stays open.
        """
        stop = self._begin(order)
        try:
            self._carry_out(order, stop)
        except WorkerInterrupted as error:
            logger.info("order %s: %s", order.request_id, error)
        except FedbiomedNodeStoreError:
            logger.exception("order %s", order.request_id)
            self._fail(order, OrderState.FAILED, INTERNAL_ERROR)
        except FedbiomedError as error:
            self._fail(order, OrderState.FAILED, str(error))
        except Exception:  # the node lives on whatever one order does, and a trace may carry data
            logger.exception("order %s", order.request_id)
            self._fail(order, OrderState.FAILED, INTERNAL_ERROR)
        finally:
            is_ended = self._end(order, stop)
        return is_ended

    def interrupt(self, request_id: str | None = None) -> None:
        """End the round that runs, if it is this one (None: whichever it is); called from other threads."""
        with self._lock:
            if self._current is not None and request_id in (None, self._current[0]):
                self._current[1].set()
                self._interrupted.set()

    def close(self) -> None:
        """End the round that runs and start no other; the book keeps it open for the next start."""
        with self._lock:
            self._is_closing = True
        self.interrupt()

    def discard_files(self, request_id: str) -> None:
        """Remove what an order left in the spool."""
        shutil.rmtree(self._spool / request_id, ignore_errors=True)

    def tidy(self) -> None:
        """Let the book forget old orders, and remove from the spool what belongs to none that is kept."""
        self._spool.mkdir(parents=True, exist_ok=True)
        present = list(self._spool.iterdir())  # listed first: whatever comes later belongs to an order that the book has by then
        needed = set(self._tools.book.tidy())
        for path in present:
            if path.name not in needed:
                self.discard_files(path.name)

    def _carry_out(self, order: Order, stop: StopSignal) -> None:
        if order.state in (OrderState.NEW, OrderState.FETCHED, OrderState.RUNNING):
            if self._tools.book.is_expired(order.expires_at):
                self._fail(order, OrderState.EXPIRED, "FB314: the order expired before this node could begin; it was busy or away")
                return
            request = order.request
            answer = self._upload(order, request, self._train(order, request, stop))
        elif order.state == OrderState.TRAINED or order.answer is None:
            answer = self._upload(order, order.request, order.reply)
        else:
            answer = order.answer
        self._tools.send(order.researcher_id, answer)
        self._tools.book.advance(order.request_id, OrderState.REPLIED)  # unless the receipt has come already

    def _train(self, order: Order, request: TrainRequest, stop: StopSignal) -> TrainReply:
        began = time.monotonic()
        logger.info("order %s: round %d of %s begins", order.request_id, request.round, request.job_id)
        dataset = self._check(request)
        source, task = self._fetch(order, request, dataset)
        self._advance(order, OrderState.FETCHED)
        source = self._tools.plans.require_approved(source)
        self._advance(order, OrderState.RUNNING)
        limit_s = min(self._tools.config.worker_time_limit_s, request.expires_at + CLOCK_SKEW_S - time.time())
        result = self._tools.worker.run(
            task,
            source,
            stop=stop,
            limit_s=limit_s,
            on_progress=lambda report: self._tools.heartbeat.report(order, share_done(report) if request.secagg else report),
        )
        if task.state_id is not None:
            _require_file(Path(task.result), "result")
            self._tools.ledger.record(request, result.privacy)
            self._tools.states.save(task.state_id, request.job_id, request.round, _state_file(task, result))
        reply = self._draft(request, task, result, time.monotonic() - began)
        logger.info("order %s: %s is done after %.1f s", order.request_id, _spelled(request), time.monotonic() - began)
        self._advance(order, OrderState.TRAINED, encode(reply))
        return reply

    def _check(self, request: TrainRequest) -> dict[str, Any]:
        """Refuse what this node cannot or may not do, before anything is fetched; returns the row of the dataset."""
        self._tools.secagg.check(request)
        self._tools.ledger.require_private(request)
        if request.plan.size > MAX_SOURCE_BYTES:
            raise FileStoreError(f"FB300: a training plan of {request.plan.size} bytes, at most {MAX_SOURCE_BYTES} are read")
        if request.state_id is not None:
            self._tools.states.require(request.state_id, request.job_id)
        return self._tools.datasets.get(request.dataset_id)

    def _fetch(self, order: Order, request: TrainRequest, dataset: dict[str, Any]) -> tuple[bytes, RoundTask]:
        """Bring the order's files to the spool; those that are there from before a restart are not fetched again."""
        folder = self._spool / order.request_id
        folder.mkdir(parents=True, exist_ok=True)
        source = self._source(request.plan, folder / "plan.py")
        self._get(request.params, folder / "params.mpk")
        aggregator_files = {}
        for number, (name, ref) in enumerate(sorted(request.aggregator_files.items())):
            path = folder / f"aggregator_{number}.mpk"
            self._get(ref, path)
            aggregator_files[name] = str(path)
        for number, ref in enumerate(request.aux_files):
            self._get(ref, folder / f"aux_{number}.mpk")
        return source, self._task(request, dataset, folder, aggregator_files)

    def _task(self, request: TrainRequest, dataset: dict[str, Any], folder: Path, aggregator_files: dict[str, str]) -> RoundTask:
        config = self._tools.config
        former_state = None if request.state_id is None else self._tools.states.require(request.state_id, request.job_id)
        return RoundTask(
            request_id=request.request_id,
            researcher_id=request.researcher_id,
            node_id=config.id,
            job_id=request.job_id,
            round=request.round,
            training=request.training,
            plan_class=request.plan_class,
            training_args=request.training_args,
            model_args=request.model_args,
            aggregator_args=request.aggregator_args,
            aggregator_files=aggregator_files,
            aux_files=[str(folder / f"aux_{number}.mpk") for number in range(len(request.aux_files))],
            former_state=None if former_state is None else str(former_state),
            state=str(folder / "state.mpk"),
            params=str(folder / "params.mpk"),
            dataset_id=request.dataset_id,
            dataset_path=dataset["path"],
            dataset_parameters=dataset["dataset_parameters"],
            loading_plan=self._tools.datasets.loading_plan(dataset),
            state_id=new_state_id() if request.training else None,
            result=str(folder / "result.mpk"),
            minimum_samples=config.minimum_samples,
            node_args=_gpu_args(config.gpu, is_only=config.gpu_only),
            checkpoints=_checkpoint_folder(config, request.job_id),
            privacy=self._tools.ledger.statement(request),
        )

    def _source(self, ref: FileRef, path: Path) -> bytes:
        """The plan's source, whose SHA-256 is what the order says; kept between orders."""
        source = self._sources.get(ref.sha256)
        if source is None:
            self._get(ref, path)
            source = path.read_bytes()
            if hashlib.sha256(source).hexdigest() != ref.sha256:
                raise FileStoreError("FB300: the training plan was damaged on this node's disk")
            if len(self._sources) >= _CACHED_PLANS:
                del self._sources[next(iter(self._sources))]
            self._sources[ref.sha256] = source
        return source

    def _get(self, ref: FileRef, path: Path) -> None:
        if not (path.is_file() and sha256_of_file(path) == ref.sha256):
            self._patiently(lambda: self._tools.files.get(ref, path), _FETCH_PATIENCE_S)

    def _upload(self, order: Order, request: TrainRequest, reply: TrainReply) -> bytes:
        """Put the result into the repository; returns the encoded reply."""
        path = self._spool / order.request_id / "result.mpk"
        if request.secagg is not None:
            if reply.state_id is not None:
                path = self._tools.secagg.protect(request, path.parent, reply.sample_size, self._require_wanted)
            reply = without_counts(reply)
        if reply.state_id is not None:
            patience_s = max(_FETCH_PATIENCE_S, order.expires_at - time.time())
            readers = (order.researcher_id,)
            ref = self._patiently(lambda: self._tools.files.put(path, experiment=reply.job_id, readers=readers), patience_s)
            reply = replace(reply, result=ref)
        answer = encode(reply)
        self._advance(order, OrderState.UPLOADED, answer)
        return answer

    def _require_wanted(self) -> None:
        if self._interrupted.is_set():
            raise WorkerInterrupted("it was withdrawn, or the node stops")

    def _patiently(self, action: Callable[[], T], patience_s: float) -> T:
        """Try again while the repository cannot be reached; a refusal is final.

        Raises:
            WorkerInterrupted: the order was withdrawn, or the node stops.
            FedbiomedRepositoryError: not reachable for so long.
        """
        deadline, delay_s = time.monotonic() + patience_s, 1.0
        while True:
            try:
                return action()
            except FileStoreError:
                raise
            except FedbiomedRepositoryError as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise
                logger.warning("%s; trying again for %.0f s", error, left_s)
            self._interrupted.wait(min(delay_s, left_s))
            self._require_wanted()
            delay_s = min(2 * delay_s, _SLOWEST_RETRY_S)

    def _draft(self, request: TrainRequest, task: RoundTask, result: RoundResult, total_s: float) -> TrainReply:
        return _reply(
            request,
            self._tools.config.id,
            success=True,
            msg=self._for_researcher(result.msg),
            state_id=task.state_id,
            sample_size=result.sample_size,
            timing={**result.timing, "rtime_total": total_s},
            metrics=result.metrics,
            test_sample_size=result.test_sample_size,
            privacy=result.privacy,
        )

    def _fail(self, order: Order, state: OrderState, reason: str) -> None:
        """Answer that it did not work; an order that was withdrawn meanwhile is not answered."""
        logger.warning("order %s of %s: %s", order.request_id, order.researcher_id, reason)
        try:
            reply = failed_reply(order.request, self._tools.config.id, self._for_researcher(reason))
            answer = encode(reply)
            if self._tools.book.close(order.request_id, state, answer, reply.msg):
                self._tools.send(order.researcher_id, answer)
        except FedbiomedError:
            logger.exception("order %s cannot be answered", order.request_id)

    def _advance(self, order: Order, state: OrderState, answer: bytes | None = None) -> None:
        if not self._tools.book.advance(order.request_id, state, answer):
            raise WorkerInterrupted("the researcher does not want it any more")

    def _begin(self, order: Order) -> StopSignal:
        stop = StopSignal()
        with self._lock:
            self._current = (order.request_id, stop)
            self._interrupted.clear()
            if self._is_closing:
                stop.set()
                self._interrupted.set()
        return stop

    def _end(self, order: Order, stop: StopSignal) -> bool:
        with self._lock:
            self._current = None
            stop.close()
        kept = self._tools.book.get(order.request_id)
        if kept is None or kept.state in (OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED, OrderState.DONE):
            self.discard_files(order.request_id)
        return kept is None or kept.state not in OPEN_STATES

    def _for_researcher(self, text: str) -> str:
        """A text in which it cannot be read where the node lies."""
        return text.replace(str(self._tools.config.root), "<node>")


def failed_reply(request: TrainRequest, node_id: str, reason: str) -> TrainReply:
    """The reply to an order that was refused or did not work."""
    return _reply(request, node_id, success=False, msg=reason[:_MAX_REASON], state_id=None, sample_size=0, timing={}, metrics=())


def _reply(request: TrainRequest, node_id: str, **content: Any) -> TrainReply:
    return TrainReply(
        request_id=request.request_id,
        researcher_id=request.researcher_id,
        node_id=node_id,
        job_id=request.job_id,
        round=request.round,
        dataset_id=request.dataset_id,
        result=None,
        **content,
    )


def _spelled(request: TrainRequest) -> str:
    return "training" if request.training else "validation"


def _require_file(path: Path, what: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise WorkerError(f"FB314: the training process left no {what} file")


def _state_file(task: RoundTask, result: RoundResult) -> StateFile | None:
    """What the training process left for the next round."""
    if not result.has_state:
        return None
    _require_file(Path(task.state), "state")
    return StateFile(result.optimizer_type, Path(task.state))


def _checkpoint_folder(config: NodeConfig, job_id: str) -> str | None:
    """Where a plan keeps models and states of a job; an id that is no plain name gets no folder."""
    return str(config.var.absolute() / "checkpoints" / job_id) if ID_PATTERN.fullmatch(job_id) else None


def _gpu_args(setting: str, *, is_only: bool) -> dict[str, Any]:
    """What a plan is told of GPUs by the node's settings: `auto`, `none` or the number of a device, and whether it is used unasked."""
    number = int(setting) if setting.isdecimal() else None
    return {"gpu": setting != "none", "gpu_num": number, "gpu_only": is_only}
