"""Rounds of an aggregator and plans in one process, without any network: each step is what the researcher and the nodes do."""

from collections.abc import Mapping
from typing import Any

from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.researcher.aggregators.aggregator import Aggregator


class LocalRounds:
    """A plan, its data by node, and an aggregator.

    Args:
        plan_class: whose `training_data` reads what `dataset_path` is.
        paths: what each node's plan finds as `dataset_path`.
        aggregator: how updates become the next parameters.
        model_args: for the plan's model.
        args: training arguments; `random_seed` changes from round to round and node to node, so that batches differ.
    """

    def __init__(
        self, plan_class: Any, paths: Mapping[str, Any], aggregator: Aggregator, model_args: Mapping[str, Any], **args: Any
    ) -> None:
        self._plan_class, self._paths, self._aggregator = plan_class, paths, aggregator
        self._model_args, self._args = model_args, args
        self._seed = args.pop("random_seed")
        self.plan = self._built(self._seed, {})
        self.round = 0

    def run(self, rounds: int, nodes: list[str] | None = None) -> None:
        """Run rounds on some nodes, all by default."""
        for _ in range(rounds):
            self._run_once(list(self._paths) if nodes is None else nodes)
            self.round += 1

    def _run_once(self, nodes: list[str]) -> None:
        params, aggregator = self.plan.get_model_params(), self._aggregator
        aggregator.begin(self.round)
        aggregator.check_values(n_updates=self._args.get("num_updates"), training_plan=self.plan)
        small, large = aggregator.create_aggregator_args(params, nodes)
        for number, node_id in enumerate(nodes):
            plan = self._built(10_000 * self._seed + 100 * self.round + number, {**small[node_id], **large[node_id]})
            plan.set_model_params(params)
            samples = self._attach(plan, node_id)
            plan.training_routine()
            aggregator.hear(node_id, {"optimizer_args": plan.optimizer_args(), "sample_size": samples})
            aggregator.add(node_id, plan.after_training_params(), samples)
        self.plan.set_model_params(aggregator.finish())

    def _built(self, seed: int, aggregator_args: Mapping[str, Any]) -> Any:
        plan = self._plan_class()
        plan.post_init(self._model_args, TrainingArgs({**self._args, "random_seed": seed}, only_required=False), aggregator_args)
        return plan

    def _attach(self, plan: Any, node_id: str) -> int:
        plan.set_dataset_path(self._paths[node_id])
        manager = plan.training_data()
        manager.extend_loader_args(plan.loader_args())
        manager.load(tp_type=plan.type())
        plan.set_data_loaders(*manager.split(0.0))
        return len(plan.training_data_loader.dataset)
