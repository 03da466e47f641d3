"""What a node answers to questions; orders to train go elsewhere (see `node.py`)."""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import (
    FedbiomedError,
    FedbiomedMessageError,
    FedbiomedNodeStoreError,
    FedbiomedTrainingPlanSecurityManagerError,
)
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.approval import PlanApproveReply, PlanApproveRequest, PlanStatusReply, PlanStatusRequest
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.transport.transport import FileStore
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.datasets import DatasetRegistry, public_view
from fedbiomed.node.plan_source import MAX_SOURCE_BYTES

logger = logging.getLogger(__name__)

# Leaves room for the message around the list within 64 KB.
_MAX_PART_BYTES = 60_000
_MAX_TEXT = 4000
_INTERNAL = "internal error, see the log of this node"
_CODE = re.compile(r"(FB\d{3}): ")
AnyRequest = TypeVar("AnyRequest", bound=Request)


class Handlers:
    """Answers `PingRequest`, `ListRequest`, `SearchRequest`, `PlanStatusRequest` and `PlanApproveRequest`.

    Args:
        node_id, node_name: who answers.
        datasets, plans: what is asked about.
        files: from where a plan is fetched.
        spool: folder for files that live as long as one question.
        more: what answers further kinds of requests.
    """

    def __init__(
        self,
        node_id: str,
        node_name: str,
        datasets: DatasetRegistry,
        plans: PlanRegistry,
        *,
        files: FileStore,
        spool: Path,
        more: Mapping[type[Request], Callable[[Any], list[Reply]]] | None = None,
    ) -> None:
        self._node_id, self._node_name = node_id, node_name
        self._datasets, self._plans = datasets, plans
        self._files, self._spool = files, spool
        self._table: dict[type[Request], Callable[[Any], list[Reply]]] = {
            PingRequest: self._ping,
            ListRequest: self._list,
            SearchRequest: self._search,
            PlanStatusRequest: self._plan_status,
            PlanApproveRequest: self._plan_approve,
            **(more or {}),
        }

    @property
    def request_types(self) -> tuple[type[Request], ...]:
        """What can be answered here."""
        return tuple(self._table)

    def handle(self, request: Request) -> list[Reply]:
        """Answer one question; never raises, for one question must not end the thread that answers all.

        Returns:
            The replies in the order in which they are to be sent: one, or the parts of a long list. What went wrong is an `ErrorReply`
            with the text of a `FedbiomedError`; of anything else the trace stays in this node's log, since it may hold data or paths.
        """
        try:
            handler = self._table.get(type(request))
            if handler is None:
                raise FedbiomedMessageError(f"FB601: a node does not answer {type(request).__name__}")
            return handler(request)
        except FedbiomedNodeStoreError:
            logger.exception("cannot answer %s %s", type(request).__name__, request.request_id)
            return [self._failure(request, _INTERNAL)]
        except FedbiomedError as error:
            logger.info("refused %s %s: %s", type(request).__name__, request.request_id, error)
            return [self._failure(request, self._told(error))]
        except Exception:  # the thread that answers must live on
            logger.exception("cannot answer %s %s", type(request).__name__, request.request_id)
            return [self._failure(request, _INTERNAL)]

    def _ping(self, request: PingRequest) -> list[Reply]:
        return [PingReply(**self._envelope(request), node_name=self._node_name)]

    def _list(self, request: ListRequest) -> list[Reply]:
        rows = [{key: value for key, value in public_view(row).items() if key != "dtypes"} for row in self._datasets.all()]
        return self._dataset_replies(request, rows)

    def _search(self, request: SearchRequest) -> list[Reply]:
        return self._dataset_replies(request, [public_view(row) for row in self._datasets.search(request.tags)])

    def _dataset_replies(self, request: Request, rows: Sequence[Mapping[str, Any]]) -> list[Reply]:
        parts = _parts(rows)
        return [
            DatasetsReply(**self._envelope(request), databases=tuple(part), count=len(rows), part=number, parts=len(parts))
            for number, part in enumerate(parts)
        ]

    def _plan_status(self, request: PlanStatusRequest) -> list[Reply]:
        answer: dict[str, Any] = {
            **self._envelope(request),
            "job_id": request.job_id,
            "approval_obligation": self._plans.approval_required,
        }
        try:
            decision = self._plans.check(self._fetch(request.plan))
        except FedbiomedNodeStoreError:
            raise
        except FedbiomedError as error:
            return [PlanStatusReply(**answer, success=False, status="Error", msg=self._told(error))]
        return [PlanStatusReply(**answer, success=True, status=decision.status, msg=_short(decision.msg))]

    def _plan_approve(self, request: PlanApproveRequest) -> list[Reply]:
        try:
            source = self._fetch(request.plan)
            self._plans.request(source, request.description, request.researcher_id)
            decision = self._plans.check(source)
        except FedbiomedNodeStoreError:
            raise
        except FedbiomedError as error:
            return [PlanApproveReply(**self._envelope(request), success=False, status="Error", msg=self._told(error))]
        logger.info("%s asks for approval of training plan %s", request.researcher_id, decision.training_plan_id)
        return [PlanApproveReply(**self._envelope(request), success=True, status=decision.status, msg=_short(decision.msg))]

    def _fetch(self, plan: FileRef) -> bytes:
        if plan.size > MAX_SOURCE_BYTES:
            raise FedbiomedTrainingPlanSecurityManagerError(
                f"FB606: a training plan of {plan.size} bytes, at most {MAX_SOURCE_BYTES} are read"
            )
        with tempfile.TemporaryDirectory(prefix="plan_", dir=self._spool) as folder:
            path = Path(folder) / "plan.py"
            self._files.get(plan, path)
            return path.read_bytes()

    def _told(self, error: FedbiomedError) -> str:
        """What a researcher may read of an error: not where the node lies."""
        return _short(str(error).replace(str(self._spool), "<node>"))

    def _failure(self, request: Request, text: str) -> ErrorReply:
        code = _CODE.match(text)
        return ErrorReply(**self._envelope(request), errnum=code[1] if code else ErrorNumbers.FB300.name, msg=_short(text))

    def _envelope(self, request: Request) -> dict[str, str]:
        return {"request_id": request.request_id, "researcher_id": request.researcher_id, "node_id": self._node_id}


def _parts(rows: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split descriptions into lists that fit a message each, at least one; a table of too many columns loses its `dtypes`."""
    parts: list[list[dict[str, Any]]] = [[]]
    filled = 0
    for row in rows:
        fitting = dict(row) if _size(row) <= _MAX_PART_BYTES else {**row, "dtypes": []}
        size = _size(fitting)
        if parts[-1] and filled + size > _MAX_PART_BYTES:
            parts.append([])
            filled = 0
        parts[-1].append(fitting)
        filled += size
    return parts


def _size(row: Mapping[str, Any]) -> int:
    return len(json.dumps(row, separators=(",", ":"))) + 1


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
