"""One-shot merging: the strategy with numbers worked out by hand, and a merge over real nodes in memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedExperimentError, FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.events import MergeTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import MergeEvaluation, MergeFit, ModelMergeStrategy
from tests.support.memory_federation import TAGS

NODES = ["node_0", "node_1", "node_2"]


def fits(**changes):
    one = MergeFit("a", {"w": np.array([1.0, 2.0])}, 10, {"accuracy": 1.0})
    other = MergeFit("b", {"w": np.array([3.0, 6.0])}, 30, {"accuracy": 0.5})
    return [one, other._replace(**changes)]


def mean_accuracy(found):
    return {"accuracy": sum(n * metrics["accuracy"] for n, metrics in found) / sum(n for n, _ in found)}


def test_models_count_by_their_test_samples():
    # (10 * 1 + 30 * 3) / 40 = 2.5, (10 * 2 + 30 * 6) / 40 = 5; metrics (10 * 1 + 30 * 0.5) / 40
    merged, metrics = ModelMergeStrategy(fit_metrics_aggregation_fn=mean_accuracy).aggregate_fit(0, fits(), [])
    assert (merged["w"].tolist(), metrics) == ([2.5, 5.0], {"accuracy": 0.625})
    assert ModelMergeStrategy().aggregate_fit(0, [tuple(fit) for fit in reversed(fits())], [])[0]["w"].tolist() == [2.5, 5.0]


def test_models_count_alike():
    merged, metrics = ModelMergeStrategy(weighted_aggregation=False).aggregate_fit(0, fits(), [])
    assert (merged["w"].tolist(), metrics) == ([2.0, 4.0], {})


def test_integers_become_floats():
    # counters 30 and 40 with 1 and 3 samples: (30 + 120) / 4
    results = [MergeFit("a", {"n": torch.tensor(30)}, 1, {}), MergeFit("b", {"n": torch.tensor(40)}, 3, {})]
    assert float(ModelMergeStrategy().aggregate_fit(0, results, [])[0]["n"]) == 37.5


@pytest.mark.parametrize(
    "changes",
    [{"params": {"v": np.zeros(2)}}, {"params": {"w": np.zeros((2, 1))}}, {"params": {"w": np.array([np.nan, 0])}}, {"num_examples": -1}],
    ids=["name", "shape", "nan", "negative"],
)
def test_models_that_do_not_fit(changes):
    with pytest.raises(AggregationError, match=r"\bb\b"):  # whose it is
        ModelMergeStrategy().aggregate_fit(0, fits(**changes), [])


def test_results_of_another_form():
    with pytest.raises(FedbiomedStrategyError, match="a tuple of node_id, params, num_examples, metrics"):
        ModelMergeStrategy().aggregate_fit(0, [({"w": np.zeros(1)}, 3, {})], [])
    with pytest.raises(FedbiomedStrategyError, match="a tuple of node_id, num_examples, metrics"):
        ModelMergeStrategy().aggregate_evaluate(0, [None], [])


def test_weights_that_are_all_zero():
    with pytest.raises(AggregationError, match="weights sum to 0"):
        ModelMergeStrategy().aggregate_fit(0, [fit._replace(num_examples=0) for fit in fits()], [])


def test_nothing_and_failures():
    assert ModelMergeStrategy().aggregate_fit(0, [], []) == (None, {})
    assert ModelMergeStrategy(accept_failures=False).aggregate_fit(0, fits(), {"c": "down"}) == (None, {})
    assert ModelMergeStrategy().aggregate_fit(0, fits(), {"c": "down"})[0]["w"].tolist() == [2.5, 5.0]


def test_a_merged_model_has_metrics_but_no_loss():
    found = [MergeEvaluation("a", 10, {"accuracy": 0.5}), ("b", 30, {"accuracy": 1.0})]
    # (10 * 0.5 + 30 * 1) / 40
    strategy = ModelMergeStrategy(evaluate_metrics_aggregation_fn=mean_accuracy, accept_failures=False)
    assert strategy.aggregate_evaluate(0, found, []) == (None, {"accuracy": 0.875})
    assert strategy.aggregate_evaluate(0, found, ["c"]) == (None, {})
    assert ModelMergeStrategy().aggregate_evaluate(0, found, []) == (None, {})


def test_central_evaluation():
    assert ModelMergeStrategy().evaluate(3, {}) is None
    assert ModelMergeStrategy(evaluate_fn=lambda round_, params, config: (round_ + params["w"], config)).evaluate(3, {"w": 0.5}) == (
        3.5,
        {},
    )
    assert ModelMergeStrategy(evaluate_fn=lambda *_: None).evaluate(3, {}) is None


@pytest.mark.parametrize(("available", "fraction", "least", "asked"), [(7, 0.5, 2, 3), (3, 0.0, 2, 2), (5, 1.0, 2, 5), (4, 0.1, 3, 3)])
def test_how_many_are_asked(available, fraction, least, asked):
    nodes = [f"n{i}" for i in range(available)]
    strategy = ModelMergeStrategy(fraction_fit=fraction, min_fit_clients=least, on_fit_config_fn=lambda round_: {"round": round_}, seed=3)
    found = strategy.configure_fit(1, None, nodes)
    assert len({node for node, _ in found}) == asked
    assert all(config == {"round": 1} for _, config in found)
    assert found == strategy.configure_fit(1, None, nodes)


def test_who_evaluates():
    nodes = ["a", "b", "c"]
    assert ModelMergeStrategy(fraction_evaluate=0).configure_evaluate(1, {}, nodes) == []
    assert [node for node, _ in ModelMergeStrategy().configure_evaluate(1, {}, nodes)] == nodes
    assert ModelMergeStrategy().initialize_parameters() is None


@pytest.mark.parametrize("changes", [{"min_available_clients": 4}, {"min_fit_nodes": 4}])
def test_too_few_nodes_are_an_error(changes):
    with pytest.raises(FedbiomedStrategyError, match=r"3 nodes are available \(a, b, c\), 4 are needed"):
        ModelMergeStrategy(**changes).configure_fit(0, None, ["a", "b", "c"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction_fit": 1.5},
        {"fraction_evaluate": True},
        {"min_fit_clients": -1},
        {"min_fit_clients": 3, "min_fit_nodes": 4},
        {"accept_failures": 1},
        {"evaluate_fn": 3},
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(FedbiomedUserInputError, match=next(iter(wrong)).removesuffix("_clients")):
        ModelMergeStrategy(**wrong)


def test_it_goes_on_from_a_breakpoint(caplog):
    strategy = ModelMergeStrategy(fraction_fit=0.5, min_evaluate_nodes=3, weighted_aggregation=False, evaluate_fn=print)
    again = ModelMergeStrategy()
    again.load_state_breakpoint(strategy.save_state_breakpoint())
    assert (again.fraction_fit, again.min_evaluate_clients, again.weighted_aggregation, again.evaluate_fn) == (0.5, 3, False, None)
    assert "goes on without evaluate_fn" in caplog.text


class OwnPlan(TorchTrainingPlan):
    """One step adds 1, 2, 3 to the weight on the nodes of 30, 40, 50 rows; a file `fails` beside the data makes its data fail."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821  declared above
            raise ValueError("in a bad mood")
        table = pd.read_csv(self.dataset_path)
        self.rows = len(table)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        return -self.model().weight.sum() * (self.rows / 10 - 2)


NODE_COUNT = 3


@pytest.fixture
def made(requests):
    args = {
        "num_updates": 1,
        "loader_args": {"batch_size": 8},
        "random_seed": 7,
        "test_on_global_updates": True,
        "test_metric": "MEAN_SQUARE_ERROR",
    }

    def make(ratio=0.2, **changes):
        given = {"tags": TAGS, "training_plan_class": OwnPlan, "training_args": {**args, "test_ratio": ratio}, "requests": requests}
        return Experiment(**{**given, "trainer": MergeTrainer(), "show_progress": False, **changes})

    return make


@pytest.fixture
def spoilt(federation):
    path = federation.data(1) / "fails"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_merge(made, weighted):
    experiment = made(round_limit=2)
    experiment.run()
    assert experiment.aggregated_params() == {}
    strategy = ModelMergeStrategy(weighted_aggregation=weighted, evaluate_fn=lambda _, params, config: (float(params["weight"]), config))
    result = experiment.merge_models(strategy)
    # two steps alone: 2, 4, 6; test samples are a fifth of 30, 40, 50 rows: (6 * 2 + 8 * 4 + 10 * 6) / 24; uniform: 4
    expected = (6 * 2 + 8 * 4 + 10 * 6) / 24 if weighted else 4.0
    assert float(result.params["weight"]) == pytest.approx(expected)
    assert float(experiment.training_plan().get_model_params()["weight"]) == pytest.approx(expected)
    assert float(experiment.aggregated_params()[1]["params"]["weight"]) == pytest.approx(expected)
    assert (result.loss, result.central, result.failures) == (None, (pytest.approx(expected), {}), ({}, {}))
    assert sorted(result.fits) == sorted(result.evaluations) == NODES
    assert all(result.fits.values())
    assert result.fits["node_0"] != result.evaluations["node_0"]
    assert experiment.job().node_params.paths() == {}
    assert set(experiment.history.query("round == 2")["node"]) == set(NODES)
    assert experiment.history_transitions()["event"].iloc[-1] == "models merged"
    with pytest.raises(
        FedbiomedStrategyError, match=r"no node holds a model of its own after 2 rounds; run some with trainer=MergeTrainer"
    ):
        experiment.merge_models()


def test_a_merge_without_a_node_that_failed(made, spoilt):
    experiment = made(node_selection_strategy=ModelMergeStrategy())
    experiment.run(rounds=1)
    spoilt.touch()
    with pytest.raises(FedbiomedStrategyError, match=r"2 of 3 nodes answered round 1, 3 are needed: node_1: .*bad mood"):
        experiment.merge_models(ModelMergeStrategy(accept_failures=False))
    assert sorted(experiment.job().node_params.paths()) == NODES
    assert sorted(experiment.training_replies()) == [0]
    result = experiment.merge_models()
    assert float(result.params["weight"]) == pytest.approx((6 * 1 + 10 * 3) / 16)
    assert [list(failed) for failed in result.failures] == [["node_1"], ["node_1"]]


def test_a_merge_without_test_samples(made):
    experiment = made(ratio=0.0)
    experiment.set_test_on_global_updates(False)
    experiment.run(rounds=1)
    with pytest.raises(FedbiomedStrategyError, match=r"no node .* has test samples"):
        experiment.merge_models()
    result = experiment.merge_models(ModelMergeStrategy(weighted_aggregation=False, fraction_evaluate=0.0))
    assert float(result.params["weight"]) == pytest.approx(2.0)
    assert result.evaluations == {}


def test_a_merge_by_something_else(made):
    experiment = made()
    experiment.run(rounds=1)
    with pytest.raises(FedbiomedExperimentError, match="strategy must be a ModelMergeStrategy"):
        experiment.merge_models(3)


class ConfiguredPlan(OwnPlan):
    """One step adds the number `step` of the round's configuration; a test measures its number `told`."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib", "from tests.researcher.test_model_merge import OwnPlan"]

    def training_data(self):
        return DataManager(dataset=torch.ones(10, 1).numpy(), target=torch.ones(10, 1).numpy())

    def training_step(self, data, target):
        return -self.model().weight.sum() * self.round_config().get("step", 100.0)

    def testing_step(self, data, target):
        return {"told": float(self.round_config().get("told", -1))}


def test_nodes_are_told_the_configuration_of_the_round(made):
    strategy = ModelMergeStrategy(
        on_fit_config_fn=lambda round_: {"step": 5.0 + round_, "told": round_}, on_evaluate_config_fn=lambda round_: {"told": 10 + round_}
    )
    experiment = made(training_plan_class=ConfiguredPlan, node_selection_strategy=strategy, round_limit=2)
    experiment.set_test_on_global_updates(False)
    experiment.run()
    experiment.set_test_on_global_updates(True)
    result = experiment.merge_models()
    assert float(result.params["weight"]) == pytest.approx(5.0 + 6.0), "the steps of rounds 0 and 1"
    assert (result.fits, result.evaluations) == ({node: {"told": 2.0} for node in NODES}, {node: {"told": 12.0} for node in NODES})
    without = made(training_plan_class=ConfiguredPlan)
    without.run(rounds=1)
    assert without.merge_models().fits == {node: {"told": -1.0} for node in NODES}


@pytest.mark.parametrize("wrong", [3, {"rate": float("nan")}, {"array": np.ones(2)}, {1: "key"}, None])
def test_a_configuration_that_is_not_json_is_refused(made, wrong):
    with pytest.raises(FedbiomedStrategyError, match=r"on_fit_config_fn gave .* for round 4; a dict of JSON values by name is needed"):
        ModelMergeStrategy(on_fit_config_fn=lambda _: wrong).configure_fit(4, None, NODES)
    with pytest.raises(FedbiomedStrategyError, match=r"on_evaluate_config_fn gave .* for round 4"):
        ModelMergeStrategy(on_evaluate_config_fn=lambda _: wrong).configure_evaluate(4, None, NODES)


def test_a_wrong_configuration_of_the_evaluation_leaves_the_experiment_as_it_was(made):
    experiment = made(round_limit=1)
    experiment.run()
    with pytest.raises(FedbiomedStrategyError, match="on_evaluate_config_fn"):
        experiment.merge_models(ModelMergeStrategy(on_evaluate_config_fn=lambda _: 3))
    assert sorted(experiment.job().node_params.paths()) == NODES
    assert experiment.aggregated_params() == {}
