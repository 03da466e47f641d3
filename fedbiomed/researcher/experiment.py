"""`Experiment`: the loop of rounds. `run_once` is the table of contents of one of them."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import ExperimentStopped, FedbiomedExperimentError
from fedbiomed.common.params import Params
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.researcher import breakpoints, random_states, server_checkpoints, server_optimizer
from fedbiomed.researcher import experiment_checks as checks
from fedbiomed.researcher.aggregated_params import AggregatedParams
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.breakpoints import Breakpoint, BreakpointWriter
from fedbiomed.researcher.connect import open_config, tensorboard_folder
from fedbiomed.researcher.course import CollectedRound, CollectedTest, Step
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.experiment_merge import ExperimentMerge
from fedbiomed.researcher.experiment_state import folder_to_go_on_in, restored_aggregator, restored_strategy, restored_trainer, settled
from fedbiomed.researcher.history import History, Point, last_losses
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.monitor import Monitor
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.round_updates import reports, sample
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation
from fedbiomed.researcher.secagg.secure_round import Parts, updates_of
from fedbiomed.researcher.server_checkpoints import KeepsAggregatedModels
from fedbiomed.researcher.strategies.strategy import Strategy
from fedbiomed.researcher.tensorboard import EventFiles

if TYPE_CHECKING:
    from fedbiomed.common.optimizers.optimizer import Optimizer

logger = logging.getLogger(__name__)


class Experiment(KeepsAggregatedModels, ExperimentMerge):
    """A series of rounds on one training plan over the datasets of several nodes.

    Everything can be left out and set later; `info()` shows what is missing. A round that fails, or is interrupted, leaves the
    experiment as it was before that round.

    Args:
        tags: tags that a dataset must bear (one may stand alone); an empty list for any dataset, None for no search.
        nodes: nodes that are searched; None for all.
        training_data: nodes and datasets; None with tags: the network is searched now.
        aggregator: an object or a class; None for `FedAverage`.
        agg_optimizer: an `Optimizer` that takes the way from the former parameters to the aggregate as a gradient.
        node_selection_strategy: an object, or a class that takes the data set; None for `DefaultStrategy`.
        round_limit: how many rounds there shall be in all.
        training_plan_class: the plan; or its class name in the file of the next argument.
        training_plan_path: a Python file.
        model_args: for the plan's model; what JSON carries.
        training_args: see `TrainingArgs`.
        save_breakpoints: leave a breakpoint after each round.
        tensorboard: write the reported values for TensorBoard, into `environ["TENSORBOARD_RESULTS_DIR"]`; those of earlier experiments go.
        experimentation_folder: name of the folder for the experiment's files; None for `Experiment_<number>`.
        secagg: whether, and how, the researcher sees only the sum of the nodes' updates: a bool or a `SecureAggregation`.
        requests: the connection to the network; None: made, when first needed, with the settings of the working directory.
        show_progress: show the nodes' work on stderr (as a live table in a terminal or a notebook).
        trainer: what follows when a round has finished: an object or a class; None for the plain one.

    Raises:
        FedbiomedExperimentError: an argument is wrong, or no node offers such datasets.
        FedbiomedUserInputError: a training argument is wrong.
        FedbiomedSecureAggregationError: `secagg` is neither a bool nor a `SecureAggregation`.
        FedbiomedTrainingPlanError: the plan does not import or its model cannot be built.
        FedbiomedMessagingError, FedbiomedRepositoryError: the network cannot be reached.
    """

    def __init__(  # noqa: PLR0917  the public signature
        self,
        tags: Sequence[str] | str | None = None,
        nodes: Sequence[str] | None = None,
        training_data: FederatedDataSet | Mapping[str, Any] | None = None,
        aggregator: Aggregator | type[Aggregator] | None = None,
        agg_optimizer: "Optimizer | None" = None,
        node_selection_strategy: Strategy | type[Strategy] | None = None,
        round_limit: int | None = None,
        training_plan_class: type[BaseTrainingPlan] | str | None = None,
        training_plan_path: str | None = None,
        model_args: dict[str, Any] | None = None,
        training_args: TrainingArgs | Mapping[str, Any] | None = None,
        save_breakpoints: bool = False,
        tensorboard: bool = False,
        experimentation_folder: str | None = None,
        secagg: bool | SecureAggregation = False,
        *,
        requests: Requests | None = None,
        show_progress: bool = True,
        trainer: ModelTrainer | type[ModelTrainer] | None = None,
    ) -> None:
        super().__init__(requests, trainer, show_progress=show_progress)
        self._breakpoints = BreakpointWriter()
        self.set_secagg(secagg)
        self.set_tags(tags)
        self.set_nodes(nodes)
        self.set_model_args(model_args)
        self.set_training_args(training_args)
        self.set_save_breakpoints(save_breakpoints)
        self.set_tensorboard(tensorboard)
        self.set_aggregator(aggregator)
        self.set_agg_optimizer(agg_optimizer)
        self.set_round_limit(round_limit)
        self.set_training_plan_class(training_plan_class)
        self.set_training_plan_path(training_plan_path)
        self.set_training_data(training_data, from_tags=self._tags is not None)
        self.set_strategy(node_selection_strategy)
        self._begin_in(experimentation_folder)

    def run(self, rounds: int | None = None, increase: bool = False) -> int:
        """Run several rounds; when the round limit is reached and `test_on_global_updates` is set, the nodes validate once more.

        Args:
            rounds: how many; None for all that remain to the round limit.
            increase: raise the round limit where that many would pass it; else fewer are run, and the log says so.

        Returns:
            Rounds really run; fewer than asked for where `stop` ended them.

        Raises:
            FedbiomedExperimentError: something is missing (see `info`), another thread runs it, or a round failed: those before it stay.
        """
        planned, before = self._planned_rounds(rounds, increase), self._round_current
        with self._shown_progress():
            while self._round_current < before + planned and not self._stop.is_asked:
                self._play_round(are_tests_on=self.test_on_global_updates())
        return self._round_current - before

    def run_once(self, increase: bool = False, test_after: bool = False) -> int:
        """Run one round.

        Args:
            increase: raise the round limit where it is reached.
            test_after: let the nodes validate the new parameters at once.

        Returns:
            1, or 0 when the round limit is reached or `stop` ended the round.

        Raises:
            FedbiomedExperimentError: something is missing (see `info`), or the round failed: which nodes, why.
        """
        checks.flag("test_after", test_after)
        if not self._planned_rounds(1, increase):
            return 0
        before, is_due = self._round_current, self._trainer.options.model_test_after_each_round and self.test_on_global_updates()
        self._play_round(are_tests_on=is_due, is_test_asked=test_after)
        return self._round_current - before

    def stop(self) -> None:
        """End the run of this moment; may be called from another thread or from a callback.

        The round under way is given up and its nodes are told; the rounds before it stay, and `run` returns how many they are. The
        experiment is then as it was before that round: it can be run on, or saved. Without a run nothing happens.
        """
        if self._progress is None:
            logger.info("nothing to stop: the experiment is not running")
        else:
            self._stop.ask()

    @contextlib.contextmanager
    def _ended_by_stop(self) -> Iterator[None]:
        try:
            yield
        except ExperimentStopped:
            logger.warning("stopped; %d rounds are done, run() goes on from there", self._round_current)

    def _play_round(self, *, are_tests_on: bool, is_test_asked: bool = False) -> None:
        """One round, and what its trainer lets follow before the next one."""
        job, strategy, nodes = self._ready()
        trainer = self._trainer
        trainer.check(self._aggregator, strategy, self._agg_optimizer)
        trainer.begin(self._round_current, self._round_limit, are_tests_on=are_tests_on, is_test_asked=is_test_asked)
        with self._shown_progress(), self._ended_by_stop(), trainer.failures_noted():
            before = self._round_current
            self._require_scores(is_tested=self.test_on_global_updates())
            self._train(job, strategy, nodes)
            self._keep_new(before)
            self._keep_measured(before, self._rows())
            trainer.go_on()
            if self._save_breakpoints:
                self.breakpoint()
            if trainer.training.step is Step.TEST:
                self._validate(job)

    def _train(self, job: Job, strategy: Strategy, nodes: Sequence[str]) -> None:
        """One round, whole or not at all."""
        round_ = self._round_current
        trainer, undone = self._trainer, contextlib.ExitStack()
        with self._shown_progress() as progress, undone:
            undo = self._records_undone_on_failure(), self._aggregator.undone_on_failure(), job.undone_on_failure(round_)
            for part in (*undo, trainer.undone_on_failure(), server_optimizer.undone_on_failure(self._agg_optimizer)):
                undone.enter_context(part)
            job.nodes = sample(strategy, round_, nodes)
            aux = server_optimizer.AuxTotal(self._agg_optimizer)
            updates = undone.enter_context(updates_of(self._secagg, round_, job, self._parts(strategy, aux)))
            progress.begin_round(round_, self._round_limit, job.nodes)
            small, large = self._aggregator_args(job)
            args = trainer.args_for_nodes(job, strategy.configure(round_, small), large)
            aux_var = server_optimizer.aux_to_send(self._agg_optimizer)
            hearing = {"on_reply": updates.add, "on_progress": updates.hearing(job, progress.hear), "stop": self._stop}
            ask: Any = partial(job.start_nodes_training_round, round_, *args, updates.order, True, aux_var)
            updates.collect(job, partial(ask, **hearing))
            points = reports(round_, job, updates)
            progress.end_round(last_losses(points), updates.failures(job))
            step, keep = partial(self._stepped, job, aux=aux), partial(self._take_over, round_, job, points=points)
            trainer.round_finished(CollectedRound(round=round_, job=job, updates=updates, step=step, keep=keep))

    def _parts(self, strategy: Strategy, aux: server_optimizer.AuxTotal) -> Parts:
        return Parts(
            strategy=strategy,
            aggregator=self._aggregator,
            trainer=self._trainer,
            agg_optimizer=self._agg_optimizer,
            aux=aux,
            data=self._fds,
        )

    def _aggregator_args(self, job: Job) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What the nodes' half of the algorithm needs: small arguments, and large ones."""
        self._aggregator.set_fds(self._fds)
        self._aggregator.set_training_plan_type(job.training_plan.type())
        n_updates = self._training_args["num_updates"]
        is_cut_short = self._training_args["dry_run"] and n_updates
        self._aggregator.check_values(n_updates=1 if is_cut_short else n_updates, training_plan=job.training_plan)
        params = job.training_plan.get_model_params()
        shared = {name: value for name, value in params.items() if self._aggregator.travels(name)}
        job.keep_on_nodes(params.keys() - shared.keys())
        return self._aggregator.create_aggregator_args(shared, job.nodes)

    def _stepped(self, job: Job, aggregate: Params, aux: server_optimizer.AuxTotal) -> Params:
        """The next parameters: the aggregate, or what the optimizer makes of the way to it."""
        aux.hand_over()
        return server_optimizer.stepped(self._agg_optimizer, job.training_plan.get_model_params(only_trainable=True), aggregate)

    def _take_over(self, round_: int, job: Job, params: Params | None, points: list[Point]) -> None:
        """The end of a good round; without parameters, the nodes' models were not aggregated in it."""
        if params is not None:
            path, _ = job.update_parameters(params)
            self._aggregated_params[round_] = AggregatedParams(str(path))
        self._keep_reports(round_, points)
        self._round_current = round_ + 1

    def _validate(self, job: Job) -> None:
        """Let the nodes of the round just done validate its result; their replies stand under the index of the next round."""
        round_ = self._round_current
        with self._shown_progress() as progress:
            progress.begin_round(round_ - 1, self._round_limit, job.nodes, what="validation after round")
            small, _ = self._trainer.args_for_nodes(job, *self._aggregator_args(job))  # large ones are for training
            secagg = self._secagg.validation_arguments()
            job.start_nodes_training_round(round_, small, {}, secagg, do_training=False, on_progress=progress.hear, stop=self._stop)
            points = reports(round_, job)
            self._keep_reports(round_, points)
            progress.end_round({}, job.failures.get(round_, {}))
            # with secure aggregation sizes are hidden: all nodes count alike
            sizes = {reply["node_id"]: 1 if secagg else reply["test_sample_size"] for reply in job.training_replies[round_]}
            self._trainer.test_finished(CollectedTest(points=points, sizes=sizes))
        self._keep_measured(round_, self._rows())

    def _rows(self) -> dict[str, int]:
        return self._fds.shapes() if self._fds is not None and self._checkpointer is not None else {}

    def _planned_rounds(self, rounds: Any, increase: Any) -> int:
        """How many of these rounds the limit allows, after it was raised where that is wanted."""
        checks.flag("increase", increase)
        wanted = rounds if rounds is None else checks.count("rounds", rounds, least=1)
        if wanted is not None and increase and self._round_limit is not None:
            self._ready()  # a call that cannot run anything raises no limit
            self._round_limit = max(self._round_limit, self._round_current + wanted)
        if self._round_limit is None:
            if wanted is None:
                logger.warning("nothing to run: set a round limit, or say how many rounds: run(rounds=...)")
            return wanted or 0
        left = self._round_limit - self._round_current
        if not left:
            logger.warning("nothing to run: the round limit of %d is reached; run(rounds=..., increase=True) raises it", self._round_limit)
        elif wanted is not None and wanted > left:
            logger.warning("only %d of %d rounds are run: the round limit is %d", left, wanted, self._round_limit)
        return left if wanted is None else min(wanted, left)

    def _begin_in(self, folder: str | None) -> None:
        with self._folder_removed_on_failure(folder):
            self.set_job()
        event_files = EventFiles(tensorboard_folder(self._settings()))
        event_files.remove_earlier()
        self._monitor = Monitor(event_files)

    @contextlib.contextmanager
    def _folder_removed_on_failure(self, name: str | None) -> Iterator[None]:
        self.set_experimentation_folder(name)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # one that is not empty is not ours alone
                Path(self.experimentation_path()).rmdir()
            raise

    def breakpoint(self) -> None:
        """Write a breakpoint of the last round into the experiment's folder.

        Raises:
            FedbiomedExperimentError: no round is done yet, or something is missing.
            FedbiomedBreakpointError: it cannot be written.
        """
        self._ready()
        if not self._round_current:
            raise FedbiomedExperimentError(f"{ErrorNumbers.FB413.value}: no round is done yet; run() first")
        self._breakpoints.write(Path(self.experimentation_path()), self._round_current - 1, self._state)

    def _state(self, folder: Path) -> breakpoints.State:
        """Everything, with links to its files in a breakpoint's folder."""
        job, strategy, _ = self._ready()
        random_states.save(folder / "random_states.mpk")
        return {
            "training_data": self._fds.data() if self._fds else {},
            "training_args": self._training_args.dict(),
            "model_args": job.model_args,
            "training_plan_path": breakpoints.linked(job.training_plan_file, folder, f"model_{self._round_current - 1:04d}.py"),
            "training_plan_class": job.training_plan_name,
            "round_current": self._round_current,
            "round_limit": self._round_limit,
            "experimentation_folder": self._folder,
            "tags": self._tags,
            "aggregator": self._aggregator.save_state_breakpoint(folder),
            "agg_optimizer": server_optimizer.save(self._agg_optimizer, folder),
            "node_selection_strategy": strategy.save_state_breakpoint(),
            "aggregated_params": {
                str(round_): {"params_path": breakpoints.linked(params["params_path"], folder)}
                for round_, params in self._aggregated_params.items()
            },
            "job": job.save_state_breakpoint(folder),
            "trainer": self._trainer.save_state_breakpoint(folder),
            "secagg": self._secagg.save_state_breakpoint(),
            "checkpointer": server_checkpoints.save(self._checkpointer, Path(self.experimentation_path())),
            "history": self._history.save(),
            "random_states": str(folder / "random_states.mpk"),
        }

    @classmethod
    def load_breakpoint(
        cls, breakpoint_folder_path: str | Path | None = None, requests: Requests | None = None, *, show_progress: bool = True
    ) -> Self:
        """Make an experiment that goes on where a breakpoint was written.

        It goes on saving breakpoints, and draws the random numbers that it would have drawn then. A breakpoint that was moved into the
        reach of another experiment of the same name goes on in a new folder.

        Args:
            breakpoint_folder_path: its folder, or that of an experiment for its last one; None: the last one of the newest experiment.
            requests, show_progress: as for a new experiment.

        Raises:
            FedbiomedExperimentError: `breakpoint_folder_path` is no path.
            FedbiomedBreakpointError: there is none, files of it are missing or were changed, or it uses a class that is not defined here.
        """
        experiments = (open_config() if requests is None else requests.connection.config).experiments
        folder = breakpoints.newest(experiments) if breakpoint_folder_path is None else checks.folder(breakpoint_folder_path)
        saved = breakpoints.read(next(reversed(breakpoints.of_experiment(folder)), folder))
        return cls._resumed(saved, experiments, requests, show_progress=show_progress)

    @classmethod
    def _resumed(cls, saved: Breakpoint, experiments: Path, requests: Requests | None, *, show_progress: bool) -> Self:
        state = saved.state
        data, history = FederatedDataSet(state["training_data"]), History.load(state["history"])
        server_checkpoints.load(state.get("checkpointer"), saved.folder)  # refused before anything is made
        experiment = cls(
            tags=state["tags"],
            training_data=data,
            aggregator=restored_aggregator(state["aggregator"]),
            agg_optimizer=server_optimizer.load(state["agg_optimizer"]),
            node_selection_strategy=restored_strategy(state["node_selection_strategy"], data),
            round_limit=state["round_limit"],
            training_plan_class=state["training_plan_class"],
            training_plan_path=state["training_plan_path"],
            model_args=state["model_args"],
            training_args=state["training_args"],
            save_breakpoints=True,
            experimentation_folder=folder_to_go_on_in(saved.folder, experiments, checks.folder_name(state["experimentation_folder"])),
            secagg=SecureAggregation.load_state_breakpoint(state["secagg"]) if state.get("secagg") else False,
            requests=requests,
            show_progress=show_progress,
            trainer=restored_trainer(state.get("trainer"), state["round_current"]),
        )
        state = settled(state, Path(experiment.experimentation_path()))
        experiment._required_job().load_state_breakpoint(state["job"])
        experiment._aggregated_params = {int(r): AggregatedParams(p["params_path"]) for r, p in state["aggregated_params"].items()}
        experiment._history = history
        experiment._monitor.restore(history.points())
        experiment._round_current = state["round_current"]
        experiment._checkpointer = server_checkpoints.load(state.get("checkpointer"), Path(experiment.experimentation_path()))
        random_states.restore(Path(state["random_states"]))
        return experiment
