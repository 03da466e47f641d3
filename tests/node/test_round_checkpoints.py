"""What a round keeps on the node when its plan asks for it."""

import pytest
import torch

from fedbiomed.common.checkpointing import BestLossCheckpointer, LatestCheckpointer
from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.serializer import Serializer
from fedbiomed.node.round import PlanCache, Round
from tests.support.tasks import round_task

ARGS = {"num_updates": 2, "loader_args": {"batch_size": 4}, "test_ratio": 0.25, "random_seed": 3}
PLAN = """
import os
import pandas as pd
import torch
from fedbiomed.common.checkpointing import *
from fedbiomed.common.data import DataManager
from fedbiomed.common.training_plans import FedSGDRegressor, TorchTrainingPlan

class Rows:
    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def checkpointing(self):
        HOOK

class LinePlan(Rows, TorchTrainingPlan):
    def init_model(self, model_args):
        return torch.nn.Linear(1, 1)

    def init_optimizer(self, optimizer_args):
        optimizer = torch.optim.Adam(self.model().parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
        return optimizer

    def training_step(self, data, target):
        if self.model().training and self.total_steps():
            self.scheduler.step()
        return ((torch.nn.functional.dropout(self.model()(data), 0.2, self.model().training) - target) ** 2).mean()

    def testing_step(self, data, target):
        return {"error": float(((self.model()(data) - target) ** 2).mean())}

class SidePlan(Rows, FedSGDRegressor):
    pass
"""
MODELS = """return ClientCheckpointAndStateModule(
            [
                BestLossCheckpointer(self.checkpoint_dir, "best"),
                BestMetricCheckpointer(self.checkpoint_dir, "metric", "error", maximize=False),
            ],
            LatestCheckpointer(self.checkpoint_dir, "latest"))"""
STATE = """return ClientCheckpointAndStateModule(
            state_checkpointer=PerRoundStateCheckpointer(self.checkpoint_dir, ["scheduler"]))"""


def run(folder, hook, round_=0, **changes):
    settings = {"training_args": ARGS, "checkpoints": str(folder / "kept"), "round": round_, **changes}
    task = round_task(folder, **settings)
    source = PLAN.replace("HOOK", hook).encode()
    return Round(task, PlanCache(source), lambda _report: None).run(), task


def weights_of(task):
    return Serializer.load(task.result)["model_weights"]


def test_the_best_model_is_kept_before_and_the_latest_after_aggregation(tmp_path):
    result, task = run(tmp_path, MODELS)
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == {"best.mpk", "metric.mpk"}  # nothing was aggregated before round 0
    assert "kept best.mpk, loss " in result.msg
    assert "kept metric.mpk, error " in result.msg
    trained = weights_of(task)
    best = BestLossCheckpointer(kept, "best")
    assert all(torch.equal(best.load_checkpoint()[name], value) for name, value in trained.items())
    # the two testing rows come in one batch: the mean of the plan's testing_step is its one value, and that of training_step is the same
    errors = [point["value"] for point in result.metrics if point["metric"] == "error" and point["phase"] == Phase.TEST_LOCAL]
    assert errors == [pytest.approx(best.best_score)]
    result, _ = run(tmp_path, MODELS, round_=1)
    assert "kept latest.mpk (post_aggregation)" in result.msg
    params = Serializer.load(tmp_path / "params.mpk")["model_weights"]
    latest = LatestCheckpointer(kept, "latest").load_checkpoint()
    assert all(torch.equal(latest[name], torch.as_tensor(value)) for name, value in params.items())
    assert str(tmp_path) not in result.msg


def test_a_round_of_validation_keeps_the_aggregated_model(tmp_path):
    args = {**ARGS, "test_on_global_updates": True}
    result, _ = run(tmp_path, MODELS, round_=3, training=False, state_id=None, training_args=args)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["latest.mpk"]
    assert result.msg == "kept latest.mpk (post_aggregation)"


def test_a_plan_on_scikit_learn(tmp_path):
    hook = """return ClientCheckpointAndStateModule(
            BestLossCheckpointer(self.checkpoint_dir, "best"), None, PerRoundStateCheckpointer(self.checkpoint_dir))"""
    start = {"intercept_": torch.zeros(1).double().numpy(), "coef_": torch.zeros(1).double().numpy()}
    for round_ in (0, 1):
        folder = tmp_path / str(round_)
        folder.mkdir()
        task_params = {"plan_class": "SidePlan", "model_args": {"n_features": 1}, "checkpoints": str(tmp_path / "kept")}
        task = round_task(folder, training_args=ARGS, round=round_, **task_params)
        Serializer.dump({"researcher_id": "researcher_1", "model_weights": start}, task.params)
        result = Round(task, PlanCache(PLAN.replace("HOOK", hook).encode()), lambda _report: None).run()
        assert "FB314" not in result.msg
    state = Serializer.load(tmp_path / "kept" / "state_round_000001.mpk")["state"]
    assert state["training"]["counters"]["value"] == {"steps": 13.0}  # from 1, two rounds of 6 of the 8 rows
    assert BestLossCheckpointer(tmp_path / "kept", "best").load_checkpoint().keys() == {"intercept_", "coef_"}


def three_rounds(root, stop_after=None):
    """Weights of the last round; each round gets what the one before gave. After one of them everything but the files is new."""
    root.mkdir()
    weights, task = None, None
    source = PLAN.replace("HOOK", STATE).encode()
    plans = PlanCache(source)
    for round_ in range(3):
        task = round_task(root, training_args={**ARGS, "random_seed": None}, checkpoints=str(root / "kept"), round=round_)
        if weights is not None:
            Serializer.dump({"researcher_id": "researcher_1", "model_weights": weights}, task.params)
        result = Round(task, plans, lambda _report: None).run()
        assert result.msg == ""
        weights = weights_of(task)
        if round_ == stop_after:
            torch.manual_seed(12345)
            plans = PlanCache(source)
    state = Serializer.load(root / "kept" / "state_round_000002.mpk")["state"]
    return weights, state


def test_two_rounds_a_restart_and_one_more_equal_three(tmp_path):
    torch.manual_seed(1)
    weights, state = three_rounds(tmp_path / "unbroken")
    torch.manual_seed(1)
    again, state_again = three_rounds(tmp_path / "restarted", stop_after=1)
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    # the test samples of a job are drawn by its id, which is the same; Python's and numpy's numbers are not drawn here
    for part in ("optimizers", "counters", "model"):
        assert Serializer.dumps(state["training"][part]) == Serializer.dumps(state_again["training"][part])
    assert torch.equal(state["training"]["random"]["torch"], state_again["training"]["random"]["torch"])
    assert state["training"]["counters"]["value"] == {"total_steps": 6}
    rates = [group["lr"] for group in state["training"]["optimizers"]["value"]["param_groups"]]
    assert rates == [0.05]  # 5 steps of a scheduler that halves every 3


def test_an_order_that_is_carried_out_again_begins_with_the_state_before_it(tmp_path):
    torch.manual_seed(1)
    for round_ in (0, 1, 1):
        run(tmp_path, STATE, round_=round_)
    state = Serializer.load(tmp_path / "kept" / "state_round_000001.mpk")["state"]
    assert state["training"]["counters"]["value"] == {"total_steps": 4}


def test_the_last_twenty_states_stay(tmp_path):
    for round_ in range(22):
        run(tmp_path, STATE, round_=round_)
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert (len(names), names[0], names[-1]) == (20, "state_round_000002.mpk", "state_round_000021.mpk")


def test_a_damaged_state_is_told_and_the_training_begins_anew(tmp_path):
    run(tmp_path, STATE)
    (tmp_path / "kept" / "state_round_000000.mpk").write_bytes(b"nonsense")
    result, _ = run(tmp_path, STATE, round_=1)
    assert "FB314: the state of round 0 is not used, the training begins anew" in result.msg
    assert str(tmp_path) not in result.msg


def test_without_testing_samples_nothing_can_be_the_best(tmp_path):
    result, _ = run(tmp_path, MODELS, training_args={**ARGS, "test_ratio": 0.0})
    assert "judged without a loss" in result.msg
    assert not (tmp_path / "kept").exists()


def test_a_loss_that_is_no_number_is_told(tmp_path):
    hook = f"{MODELS}\n\n    def validation_loss(self):\n        return 'low'"
    result, _ = run(tmp_path, hook, plan_class="SidePlan", model_args={"n_features": 1}, params=str(start_of_side(tmp_path)))
    assert "judged without a loss" in result.msg


def start_of_side(folder):
    start = {"intercept_": torch.zeros(1).double().numpy(), "coef_": torch.zeros(1).double().numpy()}
    Serializer.dump({"researcher_id": "researcher_1", "model_weights": start}, folder / "side.mpk")
    return folder / "side.mpk"


def test_what_fails_in_a_checkpoint_does_not_undo_the_training(tmp_path):
    hook = 'return ClientCheckpointAndStateModule(FunctionCheckpointer(self.checkpoint_dir, "f", lambda loss, metrics: 1 / 0))'
    result, task = run(tmp_path, hook)
    assert "pre_aggregation checkpoint: ZeroDivisionError" in result.msg
    assert weights_of(task)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("return 3", "must return a ClientCheckpointAndStateModule"),
        ('return ClientCheckpointAndStateModule(LatestCheckpointer("/tmp/elsewhere", "a"))', "lie in self.checkpoint_dir"),
        ('return ClientCheckpointAndStateModule(LatestCheckpointer(self.checkpoint_dir + "/..", "a"))', "lie in self.checkpoint_dir"),
        ('return ClientCheckpointAndStateModule(state_checkpointer=PerRoundStateCheckpointer("."))', "lie in self.checkpoint_dir"),
        ("return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_hooks_that_are_refused(tmp_path, hook, words):
    with pytest.raises(FedbiomedTrainingPlanError, match=words):
        run(tmp_path, hook)
    assert not (tmp_path / "kept").exists()


def test_a_plan_without_the_hook_keeps_nothing(tmp_path):
    result, _ = run(tmp_path, "return None")
    assert result.msg == ""
    assert not (tmp_path / "kept").exists()
