"""One merge round: the nodes test their own models, these are averaged, sent back, and tested again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbiomed.common.constants import ErrorNumbers, Phase
from fedbiomed.common.exceptions import FedbiomedStrategyError
from fedbiomed.common.params import Params
from fedbiomed.researcher.aggregated_params import read_params
from fedbiomed.researcher.history import Point
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.round_updates import reports
from fedbiomed.researcher.strategies.model_merge import MergeEvaluation, MergeFit, ModelMergeStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a merge gave.

    Args:
        params: the merged model.
        params_path: its file.
        fits: what each node's own model reached on its test samples, by node.
        evaluations: what the merged model reached there, by node.
        fit_metrics, evaluate_metrics: common ones, by the strategy's functions.
        loss: always None: losses of nodes are not averaged.
        central: loss and metrics by the strategy's `evaluate_fn`; None without it.
        failures: why nodes did not take part: of the models, then of the evaluation.
    """

    params: Params
    params_path: str
    fits: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    fit_metrics: Mapping[str, Any]
    evaluate_metrics: Mapping[str, Any]
    loss: None
    central: tuple[float, Mapping[str, Any]] | None
    failures: tuple[Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Tested:
    sizes: dict[str, int]
    metrics: dict[str, dict[str, float]]
    failures: dict[str, str]


def merge(job: Job, strategy: ModelMergeStrategy, round_: int, ask: Callable[[Mapping[str, dict[str, Any]]], None]) -> MergeResult:
    """Merge the models that the nodes of a job hold; the job has the merged one then.

    Args:
        job: whose nodes hold models of their own (`job.node_params`).
        strategy: who takes part, and how it is merged.
        round_: under which the tests are reported.
        ask: lets these nodes test the model that each would get now, each with its configuration.

    Raises:
        FedbiomedStrategyError: too few nodes hold a model or answered, or failures are not accepted: which nodes, why.
        FedbiomedAggregatorError: the models do not fit together.
    """
    paths = job.node_params.paths()
    if not paths:
        raise FedbiomedStrategyError(
            f"{ErrorNumbers.FB402.value}: no node holds a model of its own after {round_} rounds; run some with trainer=MergeTrainer()"
        )
    asked = dict(strategy.configure_fit(round_, available=list(paths)))
    tested = _test(job, round_, asked, ask)
    strategy.check_round(round_, list(asked), list(tested.sizes), tested.failures)
    fits = [MergeFit(node_id, read_params(paths[node_id]), size, tested.metrics[node_id]) for node_id, size in tested.sizes.items()]
    if strategy.weighted_aggregation and not sum(tested.sizes.values()):
        raise FedbiomedStrategyError(
            f"{ErrorNumbers.FB402.value}: merge after round {round_}: no node of {', '.join(asked)} has test samples to be weighted by; "
            "set_test_ratio(0.2) keeps some, ModelMergeStrategy(weighted_aggregation=False) does without"
        )
    params, fit_metrics = strategy.aggregate_fit(round_, fits, tested.failures)
    if params is None:
        raise FedbiomedStrategyError(f"{ErrorNumbers.FB402.value}: merge after round {round_}: nothing was merged: {tested.failures}")
    testers = dict(strategy.configure_evaluate(round_, params, available=list(paths)))
    path, _ = job.update_parameters(params)
    after = _test(job, round_, testers, ask) if testers else _Tested({}, {}, {})
    found = [MergeEvaluation(node_id, size, after.metrics[node_id]) for node_id, size in after.sizes.items()]
    loss, evaluate_metrics = strategy.aggregate_evaluate(round_, found, after.failures)
    return MergeResult(
        params=params,
        params_path=path,
        fits=tested.metrics,
        evaluations=after.metrics,
        fit_metrics=fit_metrics,
        evaluate_metrics=evaluate_metrics,
        loss=loss,
        central=strategy.evaluate(round_, params),
        failures=(tested.failures, after.failures),
    )


def _test(job: Job, round_: int, nodes: Mapping[str, dict[str, Any]], ask: Callable[[Mapping[str, dict[str, Any]]], None]) -> _Tested:
    ask(nodes)
    replies = {str(reply["node_id"]): reply for reply in job.training_replies[round_]}
    points = reports(round_, job)
    sizes = {node_id: int(reply["test_sample_size"]) for node_id, reply in replies.items()}
    return _Tested(sizes, {node_id: _metrics(points, node_id) for node_id in replies}, dict(job.failures.get(round_, {})))


def _metrics(points: Sequence[Point], node_id: str) -> dict[str, float]:
    return {point.metric: point.value for point in points if point.node == node_id and point.phase == Phase.TEST_GLOBAL}
