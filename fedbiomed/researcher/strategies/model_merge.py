"""Models that nodes trained alone are averaged once, sent back and tested."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from fedbiomed.common.constants import ROUND_CONFIG_KEY, ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.common.messages.message import is_json
from fedbiomed.common.params import Params, RunningMean
from fedbiomed.researcher.strategies.strategy import Strategy, TrainingData

logger = logging.getLogger(__name__)

Config = dict[str, Any]
Metrics = dict[str, Any]
OnConfig = Callable[[int], Config]
OnEvaluate = Callable[[int, Params, Config], tuple[float, Metrics] | None]
OnMetrics = Callable[[list[tuple[int, Metrics]]], Metrics]
_Rule = tuple[float, int, OnConfig | None]
_FUNCTIONS = ("evaluate_fn", "on_fit_config_fn", "on_evaluate_config_fn", "fit_metrics_aggregation_fn", "evaluate_metrics_aggregation_fn")
_NUMBERS = ("fraction_fit", "fraction_evaluate", "min_fit_nodes", "min_evaluate_nodes", "min_available_nodes")
_FLAGS = ("accept_failures", "weighted_aggregation")


class MergeFit(NamedTuple):
    """A node's own model.

    Args:
        node_id: whose it is.
        params: by name.
        num_examples: samples that the node tested it on.
        metrics: that it reached there.
    """

    node_id: str
    params: Mapping[str, Any]
    num_examples: int
    metrics: Metrics


class MergeEvaluation(NamedTuple):
    """What a node found of the merged model; a loss is not among it.

    Args:
        node_id: who tested it.
        num_examples: samples that the node tested it on.
        metrics: that it reached there.
    """

    node_id: str
    num_examples: int
    metrics: Metrics


_Result = TypeVar("_Result", MergeFit, MergeEvaluation)


class ModelMergeStrategy(Strategy):
    """Says who takes part in a merge of models that nodes trained alone, and merges (Zinkevich et al. 2010, NIPS). Exchanged: parameters,
    numbers of test samples, metrics, and to the nodes a small configuration. Stays on the nodes: data.

    As the strategy of rounds, it asks the nodes that it would ask for their models.

    `min_fit_nodes` and so on may be given in place of `min_fit_clients` and so on.

    Args:
        data: the nodes and their datasets; may be set later.
        fraction_fit, fraction_evaluate: share of the nodes that is asked for models, and to test the merged one (0: nobody).
        min_fit_clients, min_evaluate_clients: at least so many are asked.
        min_available_clients: with fewer nodes there is no merge.
        evaluate_fn: tests the merged model here: gets round, parameters and `{}`; gives loss and metrics, or None.
        on_fit_config_fn, on_evaluate_config_fn: get the round and give a small configuration for the nodes, a dict of JSON values by name;
            none: `{}`. Plans find it by `self.round_config()`: that of the fit while a node tests its own model for a merge (and while it
            trains, where this is the strategy of rounds), that of the evaluation while it tests the merged one.
        accept_failures: go on without nodes that failed; else nothing is merged.
        fit_metrics_aggregation_fn, evaluate_metrics_aggregation_fn: make common metrics from a list of `(num_examples, metrics)`.
        weighted_aggregation: models count by their node's number of test samples; else all alike.
        seed: of the draw where not all nodes are asked; each round has its own stream.

    Raises:
        FedbiomedUserInputError: an argument is wrong, or one was given in both spellings.
    """

    def __init__(
        self,
        data: TrainingData | None = None,
        *,
        fraction_fit: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_fit_clients: int = 2,
        min_evaluate_clients: int = 2,
        min_available_clients: int = 2,
        evaluate_fn: OnEvaluate | None = None,
        on_fit_config_fn: OnConfig | None = None,
        on_evaluate_config_fn: OnConfig | None = None,
        accept_failures: bool = True,
        fit_metrics_aggregation_fn: OnMetrics | None = None,
        evaluate_metrics_aggregation_fn: OnMetrics | None = None,
        weighted_aggregation: bool = True,
        min_fit_nodes: int | None = None,
        min_evaluate_nodes: int | None = None,
        min_available_nodes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(data)
        self.fraction_fit, self.fraction_evaluate = _share("fraction_fit", fraction_fit), _share("fraction_evaluate", fraction_evaluate)
        self.min_fit_nodes = _least("min_fit", min_fit_clients, min_fit_nodes)
        self.min_evaluate_nodes = _least("min_evaluate", min_evaluate_clients, min_evaluate_nodes)
        self.min_available_nodes = _least("min_available", min_available_clients, min_available_nodes)
        self.accept_failures = _flag("accept_failures", accept_failures)
        self.weighted_aggregation = _flag("weighted_aggregation", weighted_aggregation)
        self.evaluate_fn = _function("evaluate_fn", evaluate_fn)
        self.on_fit_config_fn = _function("on_fit_config_fn", on_fit_config_fn)
        self.on_evaluate_config_fn = _function("on_evaluate_config_fn", on_evaluate_config_fn)
        self.fit_metrics_aggregation_fn = _function("fit_metrics_aggregation_fn", fit_metrics_aggregation_fn)
        self.evaluate_metrics_aggregation_fn = _function("evaluate_metrics_aggregation_fn", evaluate_metrics_aggregation_fn)
        self.seed = _count("seed", seed)
        self._asked: tuple[int, dict[str, Config]] = (-1, {})

    @property
    def min_fit_clients(self) -> int:
        """Another name of `min_fit_nodes`."""
        return self.min_fit_nodes

    @property
    def min_evaluate_clients(self) -> int:
        """Another name of `min_evaluate_nodes`."""
        return self.min_evaluate_nodes

    @property
    def min_available_clients(self) -> int:
        """Another name of `min_available_nodes`."""
        return self.min_available_nodes

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the nodes bring their own models."""

    def configure_fit(self, round: int, parameters: Any = None, available: Sequence[str] | None = None) -> list[tuple[str, Config]]:
        """Who is asked for its model, each with the configuration of the round; whatever parameters there are do not travel.

        Args:
            round: counted from 0.
            parameters: not used.
            available: the nodes there are; None: those of the data set.

        Raises:
            FedbiomedStrategyError: there are too few, or the configuration is no dict of JSON values.
        """
        return self._configured(round, "fit", (self.fraction_fit, self.min_fit_nodes, self.on_fit_config_fn), available)

    def configure_evaluate(self, round: int, parameters: Any = None, available: Sequence[str] | None = None) -> list[tuple[str, Config]]:
        """Who tests the merged model, each with the configuration of the round; nobody where `fraction_evaluate` is 0.

        Args:
            round: counted from 0.
            parameters: the merged model.
            available: the nodes there are; None: those of the data set.

        Raises:
            FedbiomedStrategyError: there are too few, or the configuration is no dict of JSON values.
        """
        if not self.fraction_evaluate:
            return []
        rule = self.fraction_evaluate, self.min_evaluate_nodes, self.on_evaluate_config_fn
        return self._configured(round, "evaluate", rule, available)

    def aggregate_fit(
        self, round: int, results: Sequence[Any], failures: Sequence[Any] | Mapping[str, Any]
    ) -> tuple[Params | None, Metrics]:
        """Merge models.

        Args:
            round: counted from 0.
            results: `MergeFit`s, or tuples of that form.
            failures: those that there are.

        Returns:
            The mean, by number of test samples or uniform, and common metrics; `(None, {})` without results, or with failures that are
            not accepted. Arrays are averaged by name in float64; integers and bools become floats.

        Raises:
            AggregationError: names or shapes differ, a value is not finite, or all numbers of samples are 0: of which nodes.
            FedbiomedStrategyError: a result is not of that form.
        """
        found = _sorted(MergeFit, results)
        if not found or (failures and not self.accept_failures):
            return None, {}
        mean = RunningMean()
        for fit in found:
            mean.add(fit.params, fit.num_examples if self.weighted_aggregation else 1, source=str(fit.node_id))
        return mean.mean(), _common(self.fit_metrics_aggregation_fn, [(fit.num_examples, fit.metrics) for fit in found])

    def aggregate_evaluate(self, round: int, results: Sequence[Any], failures: Sequence[Any] | Mapping[str, Any]) -> tuple[None, Metrics]:
        """Common metrics of the merged model; the loss is always None.

        Args:
            round: counted from 0.
            results: `MergeEvaluation`s, or tuples of that form.
            failures: those that there are.

        Returns:
            None and the metrics: `{}` without results, or with failures that are not accepted.

        Raises:
            FedbiomedStrategyError: a result is not of that form.
        """
        found = _sorted(MergeEvaluation, results)
        if not found or (failures and not self.accept_failures):
            return None, {}
        return None, _common(self.evaluate_metrics_aggregation_fn, [(one.num_examples, one.metrics) for one in found])

    def evaluate(self, round: int, params: Params) -> tuple[float, Metrics] | None:
        """Loss and metrics of the merged model as `evaluate_fn` finds them; None without it, or where it gives None."""
        return None if self.evaluate_fn is None else self.evaluate_fn(round, params, {})

    def sample_nodes(self, round_i: int) -> list[str]:
        """Those of `configure_fit`."""
        self._asked = round_i, dict(self.configure_fit(round_i))
        return list(self._asked[1])

    def configure(self, round_i: int, args: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """See `Strategy.configure`: adds the configuration of the fit."""
        asked, configs = self._asked
        return with_configs(args, configs) if asked == round_i else args

    def check_round(self, round_i: int, sampled: Sequence[str], answered: Sequence[str], failures: Mapping[str, str]) -> None:
        """At the close of a round: `min_fit_nodes` of good replies, or all of them where failures are not accepted.

        Raises:
            FedbiomedStrategyError: not enough; names the nodes and reasons.
        """
        needed = min(self.min_fit_nodes, len(sampled)) if self.accept_failures else len(sampled)
        self._require(round_i, sampled, answered, failures, needed=needed)

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """Take over numbers and flags; functions do not go into a breakpoint."""
        super().load_state_breakpoint(state)
        kept = dict(state.get("parameters") or {})
        lost = kept.pop("functions", [])
        if lost:
            logger.warning("ModelMergeStrategy goes on without %s: functions are not kept in a breakpoint", ", ".join(lost))
        known = {name: kept[name] for name in (*_NUMBERS, *_FLAGS, "seed") if name in kept}
        vars(self).update(vars(type(self)(self._data, **known)))

    def _parameters(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in (*_NUMBERS, *_FLAGS, "seed")}
        return {**kept, "functions": [name for name in _FUNCTIONS if getattr(self, name) is not None]}

    def _configured(self, round_: int, what: str, rule: _Rule, available: Sequence[str] | None) -> list[tuple[str, Config]]:
        fraction, least, on_config = rule
        nodes = list(available) if available is not None else [] if self._data is None else self._data.node_ids()
        if len(nodes) < max(self.min_available_nodes, least, 1):
            raise FedbiomedStrategyError(
                f"{ErrorNumbers.FB402.value}: {what} of merge round {round_}: {len(nodes)} nodes are available ({', '.join(nodes)}), "
                f"{max(self.min_available_nodes, least, 1)} are needed; lower min_available_nodes or min_{what}_nodes, or search more nodes"
            )
        wanted = max(math.floor(fraction * len(nodes)), least)
        config = {} if on_config is None else _checked_config(f"on_{what}_config_fn", round_, on_config(round_))
        drawn = np.random.default_rng([self.seed, round_]).permutation(len(nodes))[:wanted]
        return [(nodes[place], dict(config)) for place in sorted(drawn)]


def with_configs(args: Mapping[str, Mapping[str, Any]], configs: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """Small arguments by node, with the configurations that plans find by `round_config`; an empty one is left out."""
    told = {node_id: dict(own) for node_id, own in args.items()}
    for node_id, config in configs.items():
        if config:
            told.setdefault(node_id, {})[ROUND_CONFIG_KEY] = config
    return told


def _checked_config(name: str, round_: int, config: Any) -> Config:
    try:
        is_fit = isinstance(config, dict) and is_json(config) and bool(json.dumps(config, allow_nan=False))
    except ValueError:  # a number that is not finite
        is_fit = False
    if not is_fit:
        raise FedbiomedStrategyError(
            f"{ErrorNumbers.FB402.value}: {name} gave {config!r:.120} for round {round_}; a dict of JSON values by name is needed: None, "
            "bools, finite numbers, texts, lists and dicts of them"
        )
    return dict(config)


def _sorted(form: type[_Result], results: Sequence[Any]) -> list[_Result]:
    """Results by the ids of their nodes: one order of summation."""
    try:
        found = [form(*result) for result in results]
    except TypeError as error:
        raise FedbiomedStrategyError(
            f"{ErrorNumbers.FB402.value}: a result of a merge is a tuple of {', '.join(form._fields)}: {error}"
        ) from error
    return sorted(found, key=lambda result: str(result.node_id))


def _common(on_metrics: OnMetrics | None, found: list[tuple[int, Metrics]]) -> Metrics:
    return {} if on_metrics is None else on_metrics(found)


def _share(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        _refuse(name, given, "a number from 0 to 1")
    return float(given)


def _count(name: str, given: Any) -> int:
    if type(given) is not int or given < 0:
        _refuse(name, given, "an integer of 0 or more")
    return int(given)


def _least(name: str, clients: Any, nodes: Any) -> int:
    default = 2
    if nodes is None:
        return _count(f"{name}_clients", clients)
    if clients not in (default, nodes):
        _refuse(f"{name}_nodes", nodes, f"the same as {name}_clients = {clients}, or one of them left out")
    return _count(f"{name}_nodes", nodes)


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        _refuse(name, given, "True or False")
    return bool(given)


def _function(name: str, given: Any) -> Any:
    if given is not None and not callable(given):
        _refuse(name, given, "a function or None")
    return given


def _refuse(name: str, given: Any, allowed: str) -> NoReturn:
    raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: {name} must be {allowed}, not {given!r:.80}")
