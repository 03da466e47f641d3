"""Rounds on a node with a personal model: which model is tested, kept as a checkpoint, and sent."""

import pytest

from fedbiomed.common.checkpointing import LatestCheckpointer
from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import FedbiomedRoundError
from fedbiomed.common.serializer import Serializer
from fedbiomed.node.round import PlanCache, Round
from tests.support.tasks import round_task

PLAN = b"""
import pandas as pd
import torch
import torch.nn as nn
from fedbiomed.common.checkpointing import ClientCheckpointAndStateModule, LatestCheckpointer
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.data import DataManager
class LinePlan(TorchTrainingPlan):
    def init_model(self):
        return nn.Linear(1, 1)
    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)
    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[['x']].to_numpy(), target=table[['y']].to_numpy())
    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()
    def testing_step(self, data, target):
        return {'slope': self.model().weight.item()}
    def checkpointing(self):
        return ClientCheckpointAndStateModule(pre_aggregation=LatestCheckpointer(self.checkpoint_dir, 'latest'))
"""
ARGS = {
    "num_updates": 2,
    "loader_args": {"batch_size": 4},
    "random_seed": 1,
    "test_ratio": 0.25,
    "test_on_global_updates": True,
    "test_on_local_updates": True,
}


def run(folder, **changes):
    folder.mkdir(exist_ok=True)
    options = {"training_args": ARGS, "aggregator_args": {"aggregator_name": "Ditto", "lambda_": 1.0}, "checkpoints": str(folder / "kept")}
    task = round_task(folder, **{**options, **changes})
    return Round(task, PlanCache(PLAN), lambda _report: None).run(), task


def measured(result, phase, metric):
    return next(point["value"] for point in result.metrics if (point["phase"], point["metric"]) == (str(phase), metric))


def slope(task):
    return Serializer.load(task.state)["kept"]["ditto"]["model"]["weight"].item()


def sent(task):
    return Serializer.load(task.result)["model_weights"]["weight"].item()


def test_the_personal_model_is_tested_and_kept_and_the_shared_one_sent(tmp_path):
    first, task = run(tmp_path / "0")
    assert first.has_state
    assert first.optimizer_type is None
    assert first.msg == "kept latest.mpk (pre_aggregation)"
    assert slope(task) != sent(task)
    assert measured(first, Phase.TEST_LOCAL, "slope") == pytest.approx(slope(task))
    assert measured(first, Phase.TEST_LOCAL, "shared_slope") == pytest.approx(sent(task))
    latest = LatestCheckpointer(tmp_path / "0" / "kept", "latest").load_checkpoint()
    assert latest["weight"].item() == slope(task)
    assert "kept" not in Serializer.load(task.result)

    second, later = run(tmp_path / "1", former_state=task.state)
    assert second.msg == "kept latest.mpk (pre_aggregation)"
    assert measured(second, Phase.TEST_GLOBAL, "slope") == pytest.approx(slope(task))
    assert measured(second, Phase.TEST_GLOBAL, "shared_slope") == 0.0
    assert sent(later) == sent(task)  # both rounds were sent the same
    assert slope(later) != slope(task)

    tested, _ = run(tmp_path / "2", former_state=task.state, training=False)
    assert measured(tested, Phase.TEST_GLOBAL, "slope") == pytest.approx(slope(task))


@pytest.mark.parametrize(
    "content", [None, [1], {"optimizer_type": None, "state": None, "kept": {"ditto": 3}}], ids=["gone", "list", "form"]
)
def test_a_personal_model_does_not_begin_anew_unsaid(tmp_path, content):
    former = tmp_path / "former.mpk"
    if content is not None:
        Serializer.dump(content, former)
    with pytest.raises(FedbiomedRoundError, match="what this node kept in the round before"):
        run(tmp_path / "0", former_state=str(former))


def test_a_state_of_another_algorithm_is_passed_over(tmp_path):
    _, task = run(tmp_path / "0")
    result, later = run(tmp_path / "1", former_state=task.state, aggregator_args={"aggregator_name": "FedAverage"})
    assert result.msg == "kept latest.mpk (pre_aggregation)"
    assert not result.has_state
    assert sent(later) == sent(task)
