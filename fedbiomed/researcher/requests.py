"""`Requests`: the researcher's questions to nodes. Who is there, with which datasets, and may this plan run?"""

import logging
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from fedbiomed.common.argument_rules import refused
from fedbiomed.common.config import ResearcherConfig
from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.exceptions import FedbiomedUserInputError
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.approval import PlanApproveReply, PlanApproveRequest, PlanStatusReply, PlanStatusRequest
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest, SearchRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Request
from fedbiomed.common.messages.training import TrainRequest
from fedbiomed.researcher.connect import Connection, connect, open_config
from fedbiomed.researcher.exchange import Exchange, OnProgress, Patience
from fedbiomed.researcher.inbox import Inbox
from fedbiomed.researcher.loose_messages import LooseMessages, told_of_progress
from fedbiomed.researcher.prepared_plan import readable_source
from fedbiomed.researcher.question import Question
from fedbiomed.researcher.responses import Responses

logger = logging.getLogger(__name__)

# Inside the class the word `list` is a method.
NodeIds = list[str]
Datasets = dict[str, list[dict[str, Any]]]
MonitorCallback = Callable[[dict[str, Any]], None]
_GRID = ("name", "data_type", "tags", "description", "shape", "dataset_id")


class Stamp(TypedDict):
    """What every request begins with; see `Request`."""

    request_id: str
    researcher_id: str
    issued_at: float
    expires_at: float


class _OnePerSettings(type):
    """`Requests()` gives the same object as long as it is open and the settings are the same."""

    _shared: "weakref.WeakValueDictionary[ResearcherConfig, Requests]" = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __call__(cls, connection: Connection | None = None) -> Any:
        if connection is not None:
            return super().__call__(connection)
        settings = open_config()
        with cls._lock:
            found = cls._shared.get(settings)
            if found is None or found.is_closed:
                found = cls._shared[settings] = super().__call__()
            return found


class Requests(metaclass=_OnePerSettings):
    """Asks nodes and collects their answers; returns as soon as every node that is there has answered.

    A process has one line to the network for each researcher's settings: `Requests()` gives the same object again, until it is closed or
    nobody holds it any more. Each question gets the answers to itself and no others, whoever asks at the same time.

    Args:
        connection: how to reach them; it stays the caller's to close. None: connect as `open_config` says, and close with this object.

    Raises:
        FedbiomedMessagingError: no broker there.
        FedbiomedConfigError: the researcher's settings are wrong.
    """

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection if connection is not None else connect(open_config())
        self._end = weakref.finalize(self, self.connection.close if connection is None else _leave_open)
        config = self.connection.config
        self._inbox = Inbox(self.connection.bus, config.federation, config.id)
        self.connection.before_close.append(self._inbox.receipts.flush)
        self._loose = LooseMessages(weakref.proxy(self))
        self._monitor_callback: MonitorCallback | None = None

    @property
    def researcher_id(self) -> str:
        """Who asks."""
        return self.connection.config.id

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return not self._end.alive

    def close(self) -> None:
        """End the connection if it was made here; a second call does nothing."""
        self._end()

    def send_message(self, msg: Mapping[str, Any], client: str | None = None, add_sequence: bool = False) -> int | None:
        """Send a question as a dict; `get_responses` collects the answers.

        Args:
            msg: `{"command": "ping"}`, `{"command": "list"}` or `{"command": "search", "tags": [...]}`.
            client: id of a node, None for all.
            add_sequence: number the question; its answers bear the number as `sequence`.

        Returns:
            That number, or None.

        Raises:
            FedbiomedUserInputError: another command, or wrong fields.
        """
        _nodes(None if client is None else [client])
        return self._loose.send(msg, client, add_sequence=add_sequence)

    def get_messages(self, commands: Sequence[str] = ()) -> Responses:
        """Answers of these kinds (`pong`, `list`, `search`, `error`; none for all) that have come by now; waits for nothing."""
        return self._loose.collect(_ids("commands", commands) or (), 0.0, only_successful=False, while_responses=False)

    def get_responses(
        self,
        look_for_commands: Sequence[str],
        timeout: float | None = None,
        only_successful: bool = True,
        while_responses: bool = True,
    ) -> Responses:
        """Answers to what was sent by `send_message`; returns as soon as all known nodes have answered.

        Args:
            look_for_commands: kinds of answers: `pong`, `list`, `search`, and `error` to see those, too. Others stay to be collected.
            timeout: seconds to wait, None for `answer_timeout_s` of the settings.
            only_successful: leave out what tells of a failure.
            while_responses: each answer gives the others that time anew; False: it is the time for all together.

        Raises:
            FedbiomedUserInputError: wrong arguments.
        """
        return self._loose.collect(
            _ids("look_for_commands", look_for_commands) or (),
            self.connection.config.answer_timeout_s if timeout is None else _seconds(timeout),
            only_successful=only_successful,
            while_responses=while_responses,
        )

    def add_monitor_callback(self, callback: "MonitorCallback") -> None:
        """Have a function called with what nodes report while they train, as a dict (command `add_scalar`, node_id, metric, iteration ...).

        It is called by the thread that runs the experiment, at most once a second per node; what it raises ends the round. There is one: a
        second takes the place of the first.

        Raises:
            FedbiomedUserInputError: it cannot be called.
        """
        if not callable(callback):
            raise refused(f"a monitor callback is a function of one dict, not {callback!r:.80}")
        self._monitor_callback = callback

    def remove_monitor_callback(self) -> None:
        """End what `add_monitor_callback` began; without one nothing happens."""
        self._monitor_callback = None

    def online_nodes(self) -> NodeIds:
        """Ids of the nodes that are connected now, sorted, without asking them."""
        return self._inbox.online_nodes()

    def ping_nodes(self) -> NodeIds:
        """Ids of the nodes that answer, sorted."""
        with self.ask(PingRequest(**self.stamp())) as question:
            return sorted(reply.node_id for reply in question if isinstance(reply, PingReply))

    def list(self, nodes: Sequence[str] | None = None, verbose: bool = False) -> Datasets:
        """All datasets of the nodes.

        Args:
            nodes: whom to ask, None for everyone.
            verbose: also log a table per node; where the log does not show such records, it is printed.

        Returns:
            `{node_id: [description]}`, a node without datasets having an empty list.

        Raises:
            FedbiomedUserInputError: `nodes` is not a list of ids.
        """
        found = self._datasets(ListRequest(**self.stamp()), _nodes(nodes))
        if verbose:
            for node_id, datasets in found.items():
                _show("datasets of node %s\n%s", node_id, _grid(datasets))
        return {
            node_id: [{key: value for key, value in entry.items() if key != "dtypes"} for entry in datasets]
            for node_id, datasets in found.items()
        }

    def search(self, tags: Sequence[str] | str, nodes: Sequence[str] | None = None) -> Datasets:
        """Datasets that bear all of these tags; an empty list of tags asks for any.

        Returns:
            `{node_id: [description]}`; nodes without such a dataset are not in it.

        Raises:
            FedbiomedUserInputError: `tags` is not a list of tags, or `nodes` not one of ids.
        """
        if tags is None:
            raise refused("tags must be a list of strings, an empty one for any dataset, not None")
        wanted = tuple(_ids("tags", [tags] if isinstance(tags, str) else tags) or ())
        found = self._datasets(SearchRequest(**self.stamp(), tags=wanted), _nodes(nodes))
        counts = ", ".join(f"{len(datasets)} on {node_id}" for node_id, datasets in found.items() if datasets)
        logger.info("search for %s: %s", ", ".join(wanted) or "any dataset", counts or "nothing")
        return {node_id: datasets for node_id, datasets in found.items() if datasets}

    def plan_status(self, job_id: str, plan: FileRef, nodes: Sequence[str]) -> dict[str, PlanStatusReply | ErrorReply]:
        """What the operators of these nodes decided about a plan, by node; who did not answer is not in it."""
        with self.ask(PlanStatusRequest(**self.stamp(), job_id=job_id, plan=plan), nodes) as question:
            return {reply.node_id: reply for reply in question if isinstance(reply, PlanStatusReply | ErrorReply)}

    def training_plan_approve(
        self, training_plan: object, description: str = "no description provided", nodes: Sequence[str] = (), timeout: float = 5
    ) -> dict[str, bool]:
        """Lay a plan before the operators of nodes.

        Args:
            training_plan: the plan's class, an instance, or the path of a file.
            description: for the operator: what it does and why it is wanted.
            nodes: whom to ask, none for everyone.
            timeout: seconds.

        Returns:
            `{node_id: True}` where the plan now lies before the operator (approved it is not yet), False where not. A plan that cannot
            be read gives an empty dict and a line in the log.

        Raises:
            FedbiomedUserInputError: `description` is no text, `nodes` no list of ids, or `timeout` no number of seconds.
        """
        nodes = _nodes(nodes) or ()
        if not isinstance(description, str):
            raise refused(f"description must be text for the nodes' operators, not {description!r:.80}")
        timeout = _seconds(timeout)
        try:
            plan = self._upload_source(readable_source(training_plan), nodes)
        except FedbiomedUserInputError as error:
            logger.error("the plan was not sent for approval: %s", error)
            return {}
        request = PlanApproveRequest(**self.stamp(timeout), description=description, plan=plan)
        delivered = dict.fromkeys(nodes, False)
        with self.ask(request, nodes or None, timeout) as question:
            for reply in question:
                delivered[reply.node_id] = isinstance(reply, PlanApproveReply) and reply.success
                if not delivered[reply.node_id]:
                    logger.warning("node %s did not take the plan: %s", reply.node_id, getattr(reply, "msg", "unknown answer"))
        return {**dict.fromkeys(question.silent_nodes(), False), **delivered}

    def ask(self, request: Request, nodes: Sequence[str] | None = None, timeout_s: float | None = None) -> Question:
        """Ask several nodes the same; a context manager whose iteration gives the replies, see `Question`.

        Args:
            request: made with `stamp`.
            nodes: whom, None for everyone.
            timeout_s: None for `answer_timeout_s` of the settings.
        """
        config = self.connection.config
        limit_s = config.answer_timeout_s if timeout_s is None else timeout_s
        return Question(self.connection.bus, self._inbox, config.federation, request, nodes=nodes, timeout_s=limit_s)

    def exchange(self, orders: Sequence[TrainRequest], on_progress: OnProgress | None = None) -> Exchange:
        """Order nodes to train; a context manager, see `Exchange`."""
        config = self.connection.config
        hear = told_of_progress(orders, lambda: self._monitor_callback, on_progress)
        return Exchange(self.connection.bus, self._inbox, config.federation, orders, patience=Patience.of(config), on_progress=hear)

    def stamp(self, timeout_s: float | None = None) -> Stamp:
        """The fields that every request begins with: a new id, who asks, from when till when.

        Args:
            timeout_s: how long the answer is wanted, None for `answer_timeout_s` of the settings.
        """
        now = time.time()
        limit_s = self.connection.config.answer_timeout_s if timeout_s is None else timeout_s
        return Stamp(request_id=f"request_{uuid.uuid4()}", researcher_id=self.researcher_id, issued_at=now, expires_at=now + limit_s)

    def _datasets(self, request: ListRequest | SearchRequest, nodes: Sequence[str] | None) -> Datasets:
        parts: dict[str, dict[int, DatasetsReply]] = {}
        with self.ask(request, nodes) as question:
            for reply in question:
                if isinstance(reply, DatasetsReply):
                    parts.setdefault(reply.node_id, {})[reply.part] = reply
                elif isinstance(reply, ErrorReply):
                    logger.warning("node %s could not answer: %s: %s", reply.node_id, reply.errnum, reply.msg)
        for node_id in question.silent_nodes():
            logger.warning("node %s did not answer", node_id)
        return {node_id: [dict(d) for _, reply in sorted(parts[node_id].items()) for d in reply.databases] for node_id in sorted(parts)}

    def _upload_source(self, source: bytes, nodes: Sequence[str]) -> FileRef:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "training_plan.py"
            path.write_bytes(source)
            return self.connection.files.put(path, readers=tuple(nodes) or ("*",))


def _ids(what: str, given: Any) -> NodeIds | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name for name in given):
        raise refused(f"{what} must be a list of strings, not {given!r:.80}")
    return list(given)


def _nodes(given: Any) -> NodeIds | None:
    found = _ids("nodes", given)
    wrong = [name for name in found or () if not ID_PATTERN.fullmatch(name)]
    if wrong:
        raise refused(f"nodes: {wrong[0]!r:.80} is not an id (letters, digits, '_', '.' and '-'); ping_nodes() tells the ids")
    return found


def _seconds(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise refused(f"timeout must be a number of seconds above 0, not {given!r:.80}")
    return float(given)


def _leave_open() -> None:
    """The connection is somebody else's."""


def _show(text: str, *args: str) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(text, *args)
    else:
        print(text % args)  # noqa: T201  who asks for it wants to see it


def _grid(datasets: Sequence[Mapping[str, Any]]) -> str:
    if not datasets:
        return "(none)"
    rows = [_GRID, *(tuple(str(entry.get(key, "")) for key in _GRID) for entry in datasets)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_GRID))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
