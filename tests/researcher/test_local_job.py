"""A plan trained in this process."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedTrainingPlanError, FedbiomedUserInputError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import FedSGDRegressor, TorchTrainingPlan
from fedbiomed.researcher.local_job import localJob

ARGS = {"epochs": 2, "loader_args": {"batch_size": 2}, "random_seed": 3}


class Line(TorchTrainingPlan):
    """y = ax from a csv, from a = 1."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self, model_args):
        self.begun_with = model_args
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args.get("lr", 0.01))

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(table[["x"]].to_numpy(), table[["y"]].to_numpy())

    def training_step(self, data, target):
        self.last_batch = len(data)
        return ((self.model()(data) - target) ** 2).mean()


class Regression(FedSGDRegressor):
    """The same with scikit-learn."""

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(table[["x"]].to_numpy(), table["y"].to_numpy())


class Failing(FedSGDRegressor):
    """Its data cannot be read."""

    def training_data(self):
        raise ZeroDivisionError("no data today")


@pytest.fixture
def rows(tmp_path):
    x = np.arange(1.0, 6.0)
    pd.DataFrame({"x": x, "y": 2 * x}).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


PLAN_FILE = """
import torch
import pandas as pd
from torch import nn
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.data import DataManager


class MyTrainingPlan(TorchTrainingPlan):
    def init_model(self):
        return nn.Linear(1, 1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(table[["x"]].to_numpy(), table[["y"]].to_numpy())

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()
"""


def slope(job):
    return job.model.weight.item()


def of_line(**members):
    return localJob(**{"training_plan_class": Line, "training_args": ARGS, "model_args": {}, **members})


def test_training_moves_the_model_and_writes_its_parameters(rows):
    job = of_line(dataset_path=str(rows))
    assert (slope(job), job.params_path) == (1.0, None)
    job.start_training()
    assert 1.0 < slope(job) < 2.5
    assert re.fullmatch(r"local_params_[0-9a-f-]{36}\.mpk", job.params_path.name)
    weights = Serializer.load(job.params_path)["model_weights"]
    assert weights["weight"].item() == slope(job)


def test_batch_size_is_that_of_the_loader_arguments(rows):
    job = of_line(dataset_path=rows, training_args={**ARGS, "epochs": 1, "loader_args": {"batch_size": 5}})
    job.start_training()
    assert job.training_plan.last_batch == 5


def test_plan_is_the_one_from_the_generated_file(rows):
    job = of_line(dataset_path=rows)
    assert type(job.training_plan).__name__ == "Line"
    assert not isinstance(job.training_plan, Line)
    assert job.model is job.training_plan.model()


def test_same_seed_gives_the_same_model(rows):
    found = []
    for _ in range(2):
        job = of_line(dataset_path=rows)
        job.start_training()
        found.append(slope(job))
    assert found[0] == found[1]


def test_scikit_learn_plan_trains_too(rows):
    job = localJob(rows, Regression, training_args={**ARGS, "test_ratio": 0.0}, model_args={"n_features": 1})
    job.start_training()
    assert job.model.coef_[0] != 0
    assert Serializer.load(job.params_path)["model_weights"]["coef_"].shape == (1,)


def test_plan_may_be_a_file_and_the_class_a_name(rows, tmp_path):
    (tmp_path / "plan_of_local_job.py").write_text(PLAN_FILE)
    job = localJob(dataset_path=rows, training_plan_path=tmp_path / "plan_of_local_job.py", training_args=ARGS)
    before = slope(job)
    job.start_training()
    assert slope(job) != before


def test_plan_may_be_an_instance(rows):
    job = of_line(training_plan_class=Line(), dataset_path=rows)
    job.start_training()
    assert slope(job) != 1.0


def test_training_goes_on_where_it_ended(rows):
    job = of_line(dataset_path=rows, training_args={**ARGS, "epochs": 1})
    job.start_training()
    first = slope(job), job.params_path
    job.start_training()
    assert abs(slope(job) - 2.0) < abs(first[0] - 2.0)
    assert job.params_path != first[1]
    assert first[1].exists()


def test_dataset_path_may_be_set_later(rows):
    job = of_line()
    assert job.dataset_path is None
    job.dataset_path = rows
    job.start_training()
    assert job.training_plan.dataset_path == str(rows)


def test_training_arguments_may_be_set_and_build_the_model_anew(rows):
    job = of_line(dataset_path=rows)
    job.start_training()
    job.training_args = {**ARGS, "epochs": 0}
    assert job.training_args["epochs"] == 0
    assert slope(job) == 1.0
    job.training_args = TrainingArgs({"num_updates": 3}, only_required=False)
    assert job.training_args["num_updates"] == 3


def test_wrong_training_arguments_are_refused_and_change_nothing(rows):
    with pytest.raises(FedbiomedUserInputError, match="epoch"):
        of_line(training_args={"epoch": 1})
    job = of_line(dataset_path=rows)
    with pytest.raises(FedbiomedUserInputError):
        job.training_args = {"epochs": "many"}
    assert job.training_args["epochs"] == 2
    job.start_training()
    model = job.model
    with pytest.raises(FedbiomedTrainingPlanError, match="learning rate"):  # only found while the model is built anew
        job.training_args = {"epochs": 1, "optimizer_args": {"lr": -1.0}}
    assert (job.model, job.training_args["epochs"]) == (model, 2)


def test_caller_s_training_args_may_be_changed_afterwards(rows):
    given = TrainingArgs({"epochs": 1})
    job = of_line(dataset_path=rows, training_args=given)
    given["epochs"] = 5
    assert job.training_args["epochs"] == 1


class OwnRoutine(FedSGDRegressor):
    """Its own loop fails."""

    def training_data(self):
        return DataManager(pd.read_csv(self.dataset_path)[["x"]].to_numpy(), pd.read_csv(self.dataset_path)["y"].to_numpy())

    def training_routine(self, history_monitor=None, node_args=None):
        raise AssertionError("no round today")


def test_errors_of_an_own_routine_are_named(rows):
    with pytest.raises(FedbiomedTrainingPlanError, match=r"training_routine\(\) of plan .* raised AssertionError: no round today"):
        of_line(dataset_path=rows, training_plan_class=OwnRoutine, model_args={"n_features": 1}).start_training()


def test_caller_s_arguments_are_not_changed(rows):
    given, model_args = {"epochs": 1, "loader_args": {"batch_size": 5}}, {"a": [1]}
    job = of_line(dataset_path=rows, training_args=given, model_args=model_args)
    job.start_training()
    assert (given, model_args) == ({"epochs": 1, "loader_args": {"batch_size": 5}}, {"a": [1]})


def test_arguments_may_be_left_out():
    job = localJob(training_plan_class=Line)
    assert not job.training_plan.begun_with
    assert job.training_args["epochs"] is None


def test_validation_is_not_done_and_that_is_said(rows, caplog):
    of_line(dataset_path=rows, training_args={**ARGS, "test_ratio": 0.5, "test_on_local_updates": True}).start_training()
    assert "no validation" in caplog.text


@pytest.mark.parametrize("args", [{}, {"epochs": None}])
def test_neither_epochs_nor_updates_is_a_clear_error(rows, args):
    with pytest.raises(FedbiomedUserInputError, match="epochs"):
        of_line(dataset_path=rows, training_args=args).start_training()


@pytest.mark.parametrize("wrong", ["MyTrainingPlan", 3, dict, None])
def test_what_is_no_plan_is_a_clear_error(wrong):
    with pytest.raises(FedbiomedTrainingPlanError, match="must be a training plan"):
        localJob(training_plan_class=wrong)


def test_file_goes_with_a_name(tmp_path):
    (tmp_path / "plan.py").write_text(PLAN_FILE)
    with pytest.raises(FedbiomedUserInputError, match="the class's name"):
        localJob(training_plan_class=Line, training_plan_path=tmp_path / "plan.py")
    with pytest.raises(FedbiomedTrainingPlanError, match="no training plan class 'Other'"):
        localJob(training_plan_class="Other", training_plan_path=tmp_path / "plan.py")


def test_errors_of_the_plan_are_raised_with_their_method(rows, tmp_path):
    with pytest.raises(FedbiomedError, match=r"training_data\(\).*ZeroDivisionError: no data today"):
        localJob(rows, Failing, training_args=ARGS, model_args={"n_features": 1}).start_training()
    with pytest.raises(FedbiomedError, match="FileNotFoundError"):
        of_line(dataset_path=tmp_path / "nowhere.csv").start_training()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FedbiomedError, match="KeyError"):
        of_line(dataset_path=tmp_path / "other.csv").start_training()


def test_data_that_are_no_data_manager_are_a_clear_error(rows):
    class Bare(FedSGDRegressor):
        def training_data(self):
            return [1, 2, 3]

    with pytest.raises(FedbiomedError, match=r"training_data\(\) must return a DataManager, not list"):
        localJob(rows, Bare, training_args=ARGS, model_args={"n_features": 1}).start_training()
