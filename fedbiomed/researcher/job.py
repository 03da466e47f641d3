"""`Job`: the training part of an experiment. It has one plan, one data set, and the parameters of the moment."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedJobError, FedbiomedValueError
from fedbiomed.common.messages.training import TrainProgress, TrainRequest
from fedbiomed.common.params import Params
from fedbiomed.common.secagg.wire import secagg_of
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher import aux_vars, job_state, plan_verdicts, prepared_plan
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.job_files import JobFiles
from fedbiomed.researcher.local_job import localJob
from fedbiomed.researcher.node_params import NodeParams
from fedbiomed.researcher.node_state_agent import NodeStateAgent
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.responses import Responses, read_result
from fedbiomed.researcher.round_receipt import RoundReceipt
from fedbiomed.researcher.stop_switch import StopSwitch

__all__ = ["Job", "localJob"]

logger = logging.getLogger(__name__)

ArgsByNode = Mapping[str, Mapping[str, Any]]
_NOT_A_FILE = "aggregator_name"
_MINIMAL = ("training_plan_url", "training_plan_class", "params_url")


class Job:
    """Sends a plan and parameters to nodes, and receives what they made of them.

    Args:
        reqs: the line to the nodes; None: a new one as `Requests()` makes it.
        training_plan_class: the plan's class, an instance of it, or the name of the class in `training_plan_path`.
        training_plan_path: a `.py` file.
        training_args: None for all defaults.
        model_args: for the plan's model.
        data: which dataset of which node.
        keep_files_dir: where the job's files stay; None: a temporary folder that goes with the process.

    Attributes:
        nodes: whom the next round asks; after a round, those that answered well.
        training_replies: `{round: Responses}`.
        failures: `{round: {node_id: reason}}` of the nodes that did not answer well.
        reported_metrics: `{round: {node_id: (value, ...)}}`, each value with `phase`, `metric`, `value`, `iteration`, `epoch`.
        last_msg: the fields of the order that was sent last.
        staying: names of parameters that do not travel; the plan's model here has them as they were made.
        node_states: which state each node kept last.
        node_params: parameters that single nodes get in place of the job's, until new ones of the job are set.

    Raises:
        NameError: there is no plan, or it is not a class or instance.
        FedbiomedTrainingPlanError: the plan does not import, or its model cannot be made.
        FedbiomedRepositoryError, FedbiomedMessagingError: not reachable. Nothing is left behind in any of these cases.
    """

    def __init__(  # noqa: PLR0917  the public signature
        self,
        reqs: Requests | None = None,
        training_plan_class: type | str | object | None = None,
        training_plan_path: str | None = None,
        training_args: TrainingArgs | None = None,
        model_args: Mapping[str, Any] | None = None,
        data: FederatedDataSet | None = None,
        keep_files_dir: str | None = None,
    ) -> None:
        plan_class = prepared_plan.plan_class_of(training_plan_class, training_plan_path)
        self.id = f"job_{uuid.uuid4()}"
        self.training_plan_name = plan_class.__name__
        self._training_args = _full(training_args)
        self._model_args = dict(model_args or {})
        self._data = FederatedDataSet({}) if data is None else data
        self.nodes = self._data.node_ids()
        self.aggregator_args: dict[str, dict[str, Any]] = {}
        self.training_replies: dict[int, Responses] = {}
        self.failures: dict[int, dict[str, str]] = {}
        self.reported_metrics: dict[int, dict[str, tuple[dict[str, Any], ...]]] = {}
        self.last_msg: dict[str, Any] | None = None
        self.staying: frozenset[str] = frozenset()
        self._attempts: dict[int, int] = {}
        self.node_states = NodeStateAgent(self.nodes)
        self.requests = Requests() if reqs is None else reqs
        self.repo = self.requests.connection.files
        self._files = JobFiles(self.repo, self.id, keep_files_dir, self.nodes)
        self.node_params = NodeParams(self._files, self.requests.researcher_id)
        try:
            self._prepare(plan_class)
        except BaseException:
            self._files.abandon()
            raise

    def _prepare(self, plan_class: type[BaseTrainingPlan]) -> None:
        path = self._files.new_path("my_model", ".py")
        prepared_plan.write_source(plan_class, path)
        self.training_plan = prepared_plan.load_back(path, self.training_plan_name, self._model_args, self._training_args)
        self.training_plan_file = str(path)
        self._plan_url = self._files.upload(path)
        self._params_path, self._params_url = self.update_parameters()
        self.validate_minimal_arguments(self._repository_args(), _MINIMAL)

    @property
    def params_path(self) -> str:
        """File of the parameters that the next round sends."""
        return self._params_path

    @property
    def training_args(self) -> dict[str, Any]:
        """The training arguments with all defaults, a copy; may be set to a `TrainingArgs` or a dict."""
        return self._training_args.dict()

    @training_args.setter
    def training_args(self, training_args: TrainingArgs | Mapping[str, Any]) -> None:
        self._training_args = _full(training_args)

    def check_training_plan_is_approved_by_nodes(self) -> Responses:
        """Ask every node of the data set what its operator decided about the plan.

        Each decision, and who did not answer, stands in the log too.

        Returns:
            One reply per node that answered: researcher_id, node_id, job_id, success, approval_obligation, status, msg, training_plan_url.
        """
        replies = self.requests.plan_status(self.id, self._files.ref(self._plan_url), self._data.node_ids())
        responses = Responses()
        for node_id in self._data.node_ids():
            reply = replies.get(node_id)
            logger.info("training plan on node %s: %s", node_id, plan_verdicts.verdict(reply))
            if reply is not None:
                responses.append({**plan_verdicts.as_dict(reply), "job_id": self.id, "training_plan_url": self._plan_url})
        return responses

    def start_nodes_training_round(  # noqa: PLR0917  the public signature
        self,
        round_: int,
        aggregator_args_thr_msg: ArgsByNode,
        aggregator_args_thr_files: ArgsByNode,
        secagg_arguments: Mapping[str, Any] | None = None,
        do_training: bool = True,
        optim_aux_var: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        on_reply: Callable[[dict[str, Any]], None] | None = None,
        on_progress: Callable[[str, TrainProgress | str], None] | None = None,
        stop: StopSwitch | None = None,
    ) -> list[str]:
        """Order each of `nodes` to train, or only to validate, and wait for the replies.

        Args:
            round_: counted from 0.
            aggregator_args_thr_msg: `{node_id: {...}}`, small arguments that travel in the order itself.
            aggregator_args_thr_files: the same for large ones, which travel by files.
            secagg_arguments: of secure aggregation, see `SecaggOrder.as_dict`; None, or all of them None, for none. `on_reply` then finds
                a masked update in the file `params_path`, and no parameters.
            do_training: False: only validate the parameters.
            optim_aux_var: `{module: {...}}` of the server's optimizer.
            on_reply: called with each good reply in the order of `nodes`, its parameters being in memory for the time of the call.
            on_progress: called with a node's id and its progress, or a word about it.
            stop: ends the round when it is asked to.

        Returns:
            The nodes that answered well, in the order of `nodes`; why the others did not stands in `failures[round_]`.

        Raises:
            FedbiomedJobError: there is no node to ask.
            ExperimentStopped: `stop` was asked to.
            FedbiomedSecureAggregationError: `secagg_arguments` are malformed.
            FedbiomedRepositoryError: the arguments cannot be uploaded.
            FedbiomedMessageError: an order is too large, or holds what cannot travel.
        """
        secagg = secagg_of(secagg_arguments)
        self._files.drop_before(self._params_url)
        self.node_params.tidy()
        args = self.upload_aggregator_args(aggregator_args_thr_msg, aggregator_args_thr_files)
        orders = self._orders(round_, args, do_training, optim_aux_var, secagg)
        receipt = RoundReceipt(self.nodes, self._files, training=do_training, masked=secagg is not None, on_reply=on_reply)
        self.failures[round_] = receipt.failures
        with self.requests.exchange(orders, on_progress) as exchange, (stop or StopSwitch()).wakes(exchange):
            for node_id, answer in exchange.answers():
                receipt.take(node_id, answer, exchange)
        return self.take_replies(round_, receipt.replies, receipt.metrics)

    def take_replies(self, round_: int, replies: list[dict[str, Any]], metrics: dict[str, tuple[dict[str, Any], ...]]) -> list[str]:
        """Take over what the nodes of a round replied and measured; returns who they are."""
        self.training_replies[round_] = Responses(replies)
        self.reported_metrics[round_] = metrics
        self.node_states.update_node_states(self.nodes, replies)
        self.nodes = [reply["node_id"] for reply in replies]
        return list(self.nodes)

    def update_parameters(self, params: Params | None = None, filename: str | None = None) -> tuple[str, str]:
        """Take new parameters, and upload them for the next round.

        Args:
            params: given to the plan's model. None, without a filename: the model's own.
            filename: a file with `model_weights`, from which they are read.

        Returns:
            The file that holds them, and its URL.

        Raises:
            ValueError: both were given.
            FedbiomedResponsesError: the file holds no parameters.
            FedbiomedRepositoryError: it cannot be uploaded.
        """
        if params is not None and filename is not None:
            raise FedbiomedValueError("update_parameters takes params or filename, not both")
        if filename is not None:
            prepared_plan.assign(self.training_plan, read_result(Path(filename))["model_weights"], self.staying)
            path = Path(filename)
        else:
            if params is not None:
                prepared_plan.assign(self.training_plan, params, self.staying)
            weights = self.training_plan.get_model_params() if params is None else params
            path = self._files.dump("aggregated_params", {"researcher_id": self.requests.researcher_id, "model_weights": dict(weights)})
        self._params_path, self._params_url = str(path), self._files.upload_params(path)
        self.node_params.clear()
        return self._params_path, self._params_url

    def upload_aggregator_args(self, args_thr_msg: ArgsByNode, args_thr_files: ArgsByNode) -> dict[str, dict[str, Any]]:
        """Upload large arguments; a content that several nodes get is uploaded once.

        Returns:
            `args_thr_msg` with `{'arg_name', 'filename', 'url'}` in the place of each argument of `args_thr_files`.
        """
        completed = {node_id: dict(args) for node_id, args in args_thr_msg.items()}
        for node_id, args in args_thr_files.items():
            for name, value in args.items():
                if name != _NOT_A_FILE:
                    completed.setdefault(node_id, {})[name] = self._files.upload_argument(name, value)
        self.aggregator_args = completed
        return completed

    def upload_agg_optimizer_aux_var(self, aux_var: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, dict[str, str]]:
        """Upload auxiliary variables of the server's optimizer, one file for all nodes and one for each that has its own.

        Returns:
            The URL of the shared ones, None where there are none, and `{node_id: url}`.
        """
        shared, by_node = self._prepare_agg_optimizer_aux_var(aux_var, self.nodes)
        url = self._files.upload_for_round(self._files.dump("aux_var_shared", shared)) if shared else None
        urls = {
            node_id: self._files.upload_for_round(self._files.dump(f"aux_var_node_{node_id}", own), readers=(node_id,))
            for node_id, own in by_node.items()
        }
        return url, urls

    def _prepare_agg_optimizer_aux_var(
        self, aux_var: Mapping[str, Mapping[str, Any]], nodes: Iterable[str]
    ) -> tuple[aux_vars.AuxVar, dict[str, aux_vars.AuxVar]]:
        return aux_vars.split_by_reader(aux_var, nodes, self.node_states.get_last_node_states())

    def extract_received_optimizer_aux_var_from_round(self, round_id: int) -> dict[str, dict[str, dict[str, Any]]]:
        """What the nodes' optimizers sent in a round: `{module: {node_id: {...}}}`."""
        return aux_vars.collate(self.training_replies[round_id])

    @contextlib.contextmanager
    def undone_on_failure(self, round_: int) -> Iterator[None]:
        """Put everything back as it was when the block raises: nodes, their states, replies, parameters; `failures` stay to be read."""
        nodes, states, params = list(self.nodes), self.node_states.save_state_breakpoint(), (self._params_path, self._params_url)
        replies, metrics = self.training_replies.get(round_), self.reported_metrics.get(round_)
        own = self.node_params.state()
        try:
            yield
        except BaseException:
            self.nodes = nodes
            self.node_states.load_state_breakpoint(states)
            job_state.put_back(self.training_replies, round_, replies)
            job_state.put_back(self.reported_metrics, round_, metrics)
            self._params_path, self._params_url = params
            self.node_params.put_back(own)
            former = read_result(Path(self._params_path))["model_weights"]
            prepared_plan.assign(self.training_plan, former, self.staying)  # an upload may have failed after it
            raise

    def save_state_breakpoint(self, breakpoint_path: str | Path) -> dict[str, Any]:
        """Link the job's files into a breakpoint's folder.

        Returns:
            `researcher_id, job_id, model_params_path, training_replies` (a list by round, without parameters), `node_state`, `node_params`,
            `node_optimizers`, `failures` and `attempts`, with the paths of the links.
        """
        folder = Path(breakpoint_path)
        return {
            "researcher_id": self.requests.researcher_id,
            "job_id": self.id,
            "model_params_path": job_state.link(self._params_path, folder, "aggregated_params_current.mpk"),
            "training_replies": job_state.saved_replies(self.training_replies, folder),
            "node_state": self.node_states.save_state_breakpoint(),
            "node_params": job_state.linked(self.node_params.paths(), folder),
            "node_optimizers": job_state.linked(self.node_params.optimizers.paths(), folder),
            "failures": {str(round_): reasons for round_, reasons in self.failures.items()},
            "attempts": {str(round_): count for round_, count in self._attempts.items()},
        }

    def load_state_breakpoint(self, saved_state: Mapping[str, Any]) -> None:
        """Take over what `save_state_breakpoint` gave, its paths being those of files that exist.

        Raises:
            FedbiomedJobError: a key is missing.
            FedbiomedResponsesError: a file is missing or is not what it should be.
        """
        self.validate_minimal_arguments(saved_state, job_state.KEYS)
        if saved_state["researcher_id"] != self.requests.researcher_id:
            logger.warning("this breakpoint was made by %s; the nodes will know the orders as yours", saved_state["researcher_id"])
        self.id = saved_state["job_id"]
        self.training_replies = job_state.loaded_replies(saved_state["training_replies"])
        self.node_states.load_state_breakpoint(saved_state["node_state"])
        self.failures = {int(round_): dict(reasons) for round_, reasons in saved_state.get("failures", {}).items()}
        self._attempts = {int(round_): count for round_, count in saved_state.get("attempts", {}).items()}
        self.update_parameters(filename=saved_state["model_params_path"])
        self.node_params.set_paths(saved_state.get("node_params", {}))
        self.node_params.optimizers.set_paths(saved_state.get("node_optimizers", {}))

    def waiting_for_nodes(self, responses: Responses) -> bool:
        """Whether one of `nodes` has no entry in the responses yet."""
        return any(responses.get_index_from_node_id(node_id) is None for node_id in self.nodes)

    @staticmethod
    def validate_minimal_arguments(obj: Mapping[str, Any], fields: Iterable[str]) -> None:
        """Check that every field is there, and is a URL where its name holds `url`.

        Raises:
            FedbiomedJobError: which field, and what was found.
        """
        for field in fields:
            if field not in obj:
                raise FedbiomedJobError(f"{ErrorNumbers.FB410.value}: {field} is missing among {', '.join(obj) or 'no fields at all'}")
            if "url" in field and not _is_url(obj[field]):
                raise FedbiomedJobError(f"{ErrorNumbers.FB410.value}: {field} must be a URL like http://host/path, not {obj[field]!r:.120}")

    def close(self) -> None:
        """Take the job's files out of the repository; those in `keep_files_dir` stay."""
        self._files.discard()

    def _repository_args(self) -> dict[str, str]:
        return {
            "training_plan_url": self._plan_url,
            "training_plan_class": self.training_plan_name,
            "params_url": self._params_url,
        }

    def _orders(
        self,
        round_: int,
        args: ArgsByNode,
        training: bool,
        optim_aux_var: Mapping[str, Mapping[str, Any]] | None,
        secagg: dict[str, Any] | None,
    ) -> list[TrainRequest]:
        datasets, states = self._data.data(), self.node_states.get_last_node_states()
        if not self.nodes or not set(self.nodes) <= datasets.keys():
            raise FedbiomedJobError(
                f"{ErrorNumbers.FB411.value}: round {round_} asks {self.nodes or 'no node'}, the training data is on "
                f"{', '.join(datasets) or 'no node at all'}; search again with tags that nodes have"
            )
        shared, own = self.upload_agg_optimizer_aux_var(optim_aux_var or {})
        self._attempts[round_] = self._attempts.get(round_, -1) + 1
        same: dict[str, Any] = {"round": round_, "attempt": self._attempts[round_], "training": training, "secagg": secagg}
        orders = []
        for node_id in self.nodes:
            small, large = self._files.split_arguments(args.get(node_id, {}))
            order = TrainRequest(
                **self.requests.stamp(self.requests.connection.config.round_timeout_s),
                node_id=node_id,
                job_id=self.id,
                **same,
                plan=self._files.ref(self._plan_url),
                plan_class=self.training_plan_name,
                params=self._files.ref(self.node_params.url(node_id) or self._params_url),
                dataset_id=datasets[node_id]["dataset_id"],
                state_id=states.get(node_id),
                training_args=self._training_args.dict(),
                model_args=self._model_args,
                aggregator_args=small,
                aggregator_files=large,
                aux_files=tuple(self._files.ref(url) for url in (shared, own.get(node_id)) if url is not None),
            )
            orders.append(order)
        self.last_msg = {"command": "train", **asdict(orders[-1])}
        return orders


def _full(training_args: TrainingArgs | Mapping[str, Any] | None) -> TrainingArgs:
    values = training_args.dict() if isinstance(training_args, TrainingArgs) else training_args
    return TrainingArgs(values, only_required=False)


def _is_url(value: object) -> bool:
    parts = urlsplit(value) if isinstance(value, str) else None
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
