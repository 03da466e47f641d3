"""Rounds of an aggregator and plans in one process, without any network: each step is what the researcher and the nodes do."""

from collections.abc import Callable, Mapping
from typing import Any

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.researcher.aggregators.aggregator import Aggregator

ArgsOf = Callable[[int, int], Mapping[str, Any]]


class LocalRounds:
    """A plan, its data by node, and an aggregator.

    Args:
        plan_class: whose `training_data` reads what `dataset_path` is.
        paths: what each node's plan finds as `dataset_path`.
        aggregator: how updates become the next parameters.
        model_args: for the plan's model.
        args_of: training arguments of a round (from 0) and a node (its place in `paths`); those of round 0, node 0 make the first model.
    """

    def __init__(
        self, plan_class: Any, paths: Mapping[str, Any], aggregator: Aggregator, model_args: Mapping[str, Any], args_of: ArgsOf
    ) -> None:
        self._plan_class, self._paths, self._aggregator = plan_class, paths, aggregator
        self._model_args, self._args_of = model_args, args_of
        self.plan = self._built(args_of(0, 0), {})
        self.round = 0

    def run(self, rounds: int, nodes: list[str] | None = None) -> None:
        """Run rounds on some nodes, all by default."""
        for _ in range(rounds):
            self._run_once(list(self._paths) if nodes is None else nodes)
            self.round += 1

    def _run_once(self, nodes: list[str]) -> None:
        params, aggregator = self.plan.get_model_params(), self._aggregator
        aggregator.begin(self.round)
        aggregator.check_values(n_updates=self._args_of(self.round, 0).get("num_updates"), training_plan=self.plan)
        small, large = aggregator.create_aggregator_args(params, nodes)
        for number, node_id in enumerate(nodes):
            plan = self._built(self._args_of(self.round, number), {**small[node_id], **large[node_id]})
            plan.set_model_params(params)
            samples = self._attach(plan, node_id)
            plan.training_routine()
            aggregator.hear(node_id, {"optimizer_args": plan.optimizer_args(), "sample_size": samples})
            aggregator.add(node_id, plan.after_training_params(), samples)
        self.plan.set_model_params(aggregator.finish())

    def _built(self, args: Mapping[str, Any], aggregator_args: Mapping[str, Any]) -> Any:
        plan = self._plan_class()
        plan.post_init(self._model_args, TrainingArgs(args, only_required=False), aggregator_args)
        return plan

    def _attach(self, plan: Any, node_id: str) -> int:
        plan.set_dataset_path(self._paths[node_id])
        manager = plan.training_data()
        manager.extend_loader_args(plan.loader_args())
        manager.load(tp_type=plan.type())
        plan.set_data_loaders(*manager.split(0.0))
        return len(plan.training_data_loader.dataset)
