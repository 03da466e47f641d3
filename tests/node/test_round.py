"""A node's half of a round, in this process."""

import json

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedRoundError, FedbiomedTrainingPlanError, FedbiomedUserInputError
from fedbiomed.common.serializer import Serializer
from fedbiomed.node.round import PlanCache, Round
from tests.support.orders import ARGS, WEIGHTS, plan_source
from tests.support.tasks import round_task

PLAN = plan_source()
SIDE = b"""
import pandas as pd
from fedbiomed.common.training_plans import FedSGDClassifier
from fedbiomed.common.data import DataManager
class SidePlan(FedSGDClassifier):
    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[['x', 'y']].to_numpy(), target=(table['x'] > 0.4).astype(int).to_numpy())
"""


def run(folder, source=PLAN, plans=None, **changes):
    task = round_task(folder, **changes)
    return Round(task, plans or PlanCache(source), lambda _report: None).run(), task


def weights_of(task):
    return {name: np.asarray(value) for name, value in Serializer.load(task.result)["model_weights"].items()}


def test_one_step_of_gradient_descent_by_hand(tmp_path):
    args = {"num_updates": 1, "loader_args": {"batch_size": 8}, "random_seed": 1}
    result, task = run(tmp_path, training_args=args)
    # w = b = 0, all 8 rows in one batch: the loss is mean (wx + b - y)^2, its gradient 2 mean((0 - y) x) and 2 mean(0 - y); lr 0.1
    x = np.arange(8) / 8
    y = 2 * x + 1
    weights = weights_of(task)
    assert weights["weight"].item() == pytest.approx(0.2 * (x * y).mean(), rel=1e-5)
    assert weights["bias"].item() == pytest.approx(0.2 * y.mean(), rel=1e-5)
    assert result.sample_size == 8
    assert result.metrics[0]["value"] == pytest.approx((y**2).mean(), rel=1e-5)


def test_the_result_file_says_whose_it_is(tmp_path):
    _, task = run(tmp_path)
    content = Serializer.load(task.result)
    expected = {"researcher_id", "job_id", "state_id", "node_id", "model_weights"}
    assert content.keys() == expected | {"optimizer_args", "optim_aux_var", "encrypted", "encryption_factor"}
    assert (content["researcher_id"], content["job_id"], content["node_id"]) == ("researcher_1", "job_1", "node_1")
    assert content["state_id"] == task.state_id
    assert (content["encrypted"], content["encryption_factor"], content["optim_aux_var"]) == (False, None, {})


def test_validation_before_and_after(tmp_path):
    args = {**ARGS, "test_ratio": 0.25, "test_on_global_updates": True, "test_on_local_updates": True, "test_metric": "mean_square_error"}
    result, _ = run(tmp_path, training_args=args)
    phases = list(dict.fromkeys(point["phase"] for point in result.metrics))
    assert phases == ["VALIDATION ON GLOBAL UPDATES", "TRAINING", "VALIDATION ON LOCAL UPDATES"]
    assert result.sample_size == 6
    assert result.msg == ""


def test_the_split_is_that_of_the_job(tmp_path):
    noted = plan_source(
        step="with open(self.dataset_path + '.seen', 'a') as file:\n"
        "    file.write(''.join(f'{v:.3f} ' for v in sorted(data.flatten().tolist())))"
    )

    def trained_on(job_id, round_):
        seen = tmp_path / "line.csv.seen"
        seen.unlink(missing_ok=True)
        run(tmp_path, noted, job_id=job_id, round=round_, training_args={"epochs": 1, "loader_args": {"batch_size": 8}, "test_ratio": 0.5})
        return seen.read_text()

    first = trained_on("job_1", 0)
    assert first.count(".") == 4
    assert [trained_on("job_1", round_) for round_ in (1, 2)] == [first] * 2
    assert len({trained_on(f"job_{number}", 0) for number in range(2, 8)} | {first}) > 1


def test_failed_validation_does_not_end_a_training(tmp_path):
    args = {**ARGS, "test_on_global_updates": True, "test_on_local_updates": True}
    result, task = run(tmp_path, training_args=args)
    assert "test_on_global_updates has no samples to test on: test_ratio is 0.0" in result.msg
    assert "test_on_local_updates" in result.msg
    assert weights_of(task)
    raising = plan_source().replace(
        b"    def training_step", b"    def testing_step(self, data, target):\n        raise OSError('no')\n    def training_step"
    )
    result, task = run(tmp_path, raising, training_args={**args, "test_ratio": 0.5})
    assert "OSError" in result.msg
    with pytest.raises(FedbiomedError, match="OSError"):
        run(tmp_path, raising, training=False, state_id=None, training_args={**args, "test_ratio": 0.5})


def test_a_validation_leaves_no_file(tmp_path):
    args = {**ARGS, "test_ratio": 1.0, "test_on_global_updates": True, "test_metric": "MEAN_ABSOLUTE_ERROR"}
    result, _ = run(tmp_path, training=False, state_id=None, training_args=args)
    assert (result.sample_size, result.timing) == (0, {})
    assert len({point["phase"] for point in result.metrics}) == 1
    assert not (tmp_path / "result.mpk").exists()


def test_a_scikit_learn_plan(tmp_path):
    params = tmp_path / "side.mpk"
    Serializer.dump({"model_weights": {"intercept_": np.zeros(1), "coef_": np.zeros((1, 2))}}, params)
    args = {"epochs": 2, "loader_args": {"batch_size": 4}, "test_ratio": 0.25, "test_on_local_updates": True, "random_seed": 3}
    changes = {"plan_class": "SidePlan", "model_args": {"n_features": 2, "n_classes": 2}, "params": str(params), "training_args": args}
    result, task = run(tmp_path, SIDE, **changes)
    assert result.sample_size == 6
    assert {point["phase"] for point in result.metrics} == {"TRAINING", "VALIDATION ON LOCAL UPDATES"}
    assert weights_of(task)["coef_"].shape == (1, 2)
    assert np.any(weights_of(task)["coef_"])


def test_two_runs_with_one_seed_are_bit_equal(tmp_path):
    plans = PlanCache(PLAN)
    found = []
    for _ in range(2):
        _, task = run(tmp_path, plans=plans)
        found.append(weights_of(task))
    assert all(found[0][name].tobytes() == found[1][name].tobytes() for name in found[0])


def test_a_diverging_loss_can_be_told(tmp_path):
    result, _ = run(tmp_path, plan_source(step="return (self.model()(data) - target).mean() * float('nan')"))
    assert result.metrics[0]["value"] == "nan"
    json.dumps(result.metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"training_args": {"epoch": 1}}, FedbiomedUserInputError, "epoch"),
        ({"training_args": {**ARGS, "test_ratio": 1.0}}, FedbiomedRoundError, "0 samples"),
        ({"minimum_samples": 9}, FedbiomedRoundError, "8 samples .* at least 9"),
        ({"plan_class": "OtherPlan"}, FedbiomedTrainingPlanError, "OtherPlan"),
        ({"training_args": {**ARGS, "num_updates": None}}, FedbiomedUserInputError, "epochs"),
        ({"dataset_path": "/nowhere.csv"}, FedbiomedTrainingPlanError, "training_data.*FileNotFoundError"),
    ],
    ids=["args", "ratio", "floor", "class", "epochs", "data"],
)
def test_what_cannot_be_trained_says_why(tmp_path, changes, error, text):
    with pytest.raises(error, match=text):
        run(tmp_path, **changes)
    assert not (tmp_path / "result.mpk").exists()


@pytest.mark.parametrize(
    "content", [[1], {"weights": {}}, {"model_weights": [1]}, {"model_weights": {**WEIGHTS, "weight": np.zeros((3, 3))}}]
)
def test_a_file_of_parameters_that_does_not_fit(tmp_path, content):
    path = tmp_path / "other.mpk"
    Serializer.dump(content, path)
    with pytest.raises(FedbiomedError):
        run(tmp_path, params=str(path))


def test_a_plan_is_imported_once(tmp_path):
    plans = PlanCache(plan_source(top=f"with open({str(tmp_path / 'imports')!r}, 'a') as file:\n    file.write('x')"))
    for round_ in range(3):
        run(tmp_path, plans=plans, round=round_)
    assert (tmp_path / "imports").read_text() == "x"


def test_a_result_that_cannot_be_written(tmp_path):
    with pytest.raises(FedbiomedRoundError, match="disk: No such file"):
        run(tmp_path, result=str(tmp_path / "gone" / "result.mpk"))


def test_a_plan_that_returns_no_data_manager(tmp_path):
    with pytest.raises(FedbiomedTrainingPlanError, match="must return a DataManager, not list"):
        run(tmp_path, plan_source(data="return []"))
