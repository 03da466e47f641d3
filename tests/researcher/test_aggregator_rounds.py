"""Every aggregator over three real nodes and a real training process; only the transports are in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.aggregators import DynamicLayers, FedAvgM, FedDGGA, FedNova, Median, SparseExchange, TrimmedMean
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.aggregators import CASES
from tests.support.plans import SidePlan

ARGS = {
    "num_updates": 2,
    "loader_args": {"batch_size": 8},
    "random_seed": 7,
    "test_ratio": 0.2,
    "test_on_global_updates": True,
    "test_on_local_updates": True,
    "test_metric": "MEAN_SQUARE_ERROR",
}


class NormPlan(TorchTrainingPlan):
    """y = ax + b over columns x, y, with buffers."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.05)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class TwoExtractorsPlan(TorchTrainingPlan):
    """y = ax + b over columns x, y, by the features of two extractors."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.models import FendaModel"]

    def init_model(self):
        return FendaModel(nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3)), nn.Linear(1, 3), nn.Linear(6, 1))  # noqa: F821

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.05)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class AllAtTheEnd(DefaultStrategy):
    """Judges the replies at the end, as strategies of users may."""

    def refine(self, training_replies, round_i):
        params = {reply["node_id"]: reply["params"] for reply in training_replies}
        return params, {node_id: 1 / len(params) for node_id in params}, 1, {}


NODE_COUNT = 3
EXPERIMENT = {"training_plan_class": NormPlan, "training_args": dict(ARGS), "save_breakpoints": True}


def weights(experiment, round_):
    return {name: np.asarray(value) for name, value in experiment.aggregated_params()[round_]["params"].items()}


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.suits_any_model], ids=lambda c: c.__name__)
def test_a_round_and_another_from_the_breakpoint_are_two(made, requests, kind):
    plan = TwoExtractorsPlan if CASES[kind].needs_extractors else NormPlan
    unbroken = made(aggregator=CASES[kind].make(), training_plan_class=plan)
    assert unbroken.run(rounds=2) == 2
    first = Path(unbroken.experimentation_path()) / "breakpoint_0000"
    resumed = Experiment.load_breakpoint(first, requests=requests, show_progress=False)
    assert type(resumed.aggregator()) is kind
    assert resumed.run(rounds=1) == 1
    expected, result = weights(unbroken, 1), weights(resumed, 1)
    assert {name: value.tobytes() for name, value in result.items()} == {name: value.tobytes() for name, value in expected.items()}
    assert all(np.isfinite(value).all() for value in expected.values())
    assert any(not np.array_equal(value, weights(unbroken, 0)[name]) for name, value in expected.items())
    assert [reply["optimizer_args"]["num_updates"] for reply in unbroken.training_replies()[1]] == [2, 2, 2]


@pytest.mark.parametrize("aggregator", [DynamicLayers(1.0), SparseExchange(1.0)], ids=lambda a: type(a).__name__)
def test_whoever_sends_all_is_averaged_as_ever(made, aggregator):
    plain, parts = made(), made(aggregator=aggregator)
    for experiment in (plain, parts):
        experiment.run(rounds=1)
    expected = weights(plain, 0)
    first = parts.training_replies()[0][0]["params"]
    for name, value in first.items():
        sent = value["values"] if isinstance(value, dict) else value
        assert sent.numel() == expected[name].size
    assert first.keys() == expected.keys()
    assert all(np.allclose(value, expected[name], rtol=1e-6) for name, value in weights(parts, 0).items())


def test_numbers_of_steps_come_from_epochs_too(made):
    # 30, 40, 50 rows, a fifth for testing: 24, 32, 40 in batches of 8
    experiment = made(aggregator=FedNova, training_args={**ARGS, "num_updates": None, "epochs": 2})
    experiment.run(rounds=1)
    assert [reply["optimizer_args"]["num_updates"] for reply in experiment.training_replies()[0]] == [6, 8, 10]


@pytest.mark.parametrize("aggregator", [FedAvgM, FedNova, Median, FedDGGA], ids=lambda c: c.__name__)
def test_plans_of_scikit_learn_and_strategies_that_judge_at_the_end(made, aggregator):
    experiment = made(
        aggregator=aggregator,
        node_selection_strategy=AllAtTheEnd,
        training_plan_class=SidePlan,
        model_args={"n_features": 2, "n_classes": 2, "loss": "log_loss"},
        training_args={**ARGS, "test_metric": "ACCURACY"},
    )
    assert experiment.run(rounds=2) == 2
    assert not np.array_equal(weights(experiment, 1)["coef_"], weights(experiment, 0)["coef_"])
    assert [reply["optimizer_args"]["num_updates"] for reply in experiment.training_replies()[1]] == [2, 2, 2]


def test_too_few_nodes_end_the_round_and_change_nothing(made):
    experiment = made(aggregator=TrimmedMean(0.2))
    with pytest.raises(AggregationError, match=r"leaves out no node of 3 \(node_0, node_1, node_2\): it needs 5 or more"):
        experiment.run(rounds=1)
    assert experiment.round_current() == 0
    experiment.set_aggregator(TrimmedMean(0.34))
    assert experiment.run(rounds=1) == 1
