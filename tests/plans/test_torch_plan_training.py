"""Torch plans: reports, rates, batches, devices, preprocessing, seeds."""

import collections
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedbiomed.common.constants import ProcessTypes
from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import (
    FedbiomedError,
    FedbiomedModelError,
    FedbiomedTrainingPlanError,
)
from fedbiomed.common.metrics import MetricTypes
from tests.support.monitors import Monitor
from tests.support.torch_variants import Line, X, Y, arguments, ready, slope, trained, variant


def test_a_training_report_says_all():
    message = trained(Line)[1].heard[-1]
    message.pop("metric")
    assert message == {
        "iteration": 3,
        "epoch": 1,
        "train": True,
        "test": False,
        "test_on_local_updates": False,
        "test_on_global_updates": False,
        "total_samples": 5,
        "batch_samples": 1,
        "num_batches": 3,
        "num_samples_trained": 5,
    }


def test_training_without_a_monitor_gives_the_same_model():
    plan = ready(Line, epochs=2)
    plan.training_routine()
    assert slope(plan) == slope(trained(Line, epochs=2)[0])


def test_training_without_samples_is_a_clear_error():
    with pytest.raises(FedbiomedTrainingPlanError, match="no samples to train on"):
        ready(Line, test_ratio=1.0).training_routine()
    with pytest.raises(FedbiomedTrainingPlanError, match="with drop_last, smaller than batch_size"):
        ready(Line, loader_args={"batch_size": 8, "drop_last": True}).training_routine()
    plan = Line()
    plan.post_init({}, arguments())
    with pytest.raises(FedbiomedTrainingPlanError, match="no samples to train on"):
        plan.training_routine()


# --- optimizer arguments


def test_learning_rate_of_each_layer_is_told_after_training():
    def init_model(self):
        return nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def init_optimizer(self, optimizer_args):
        layers = self.model()
        head = {"params": layers[2].parameters(), "lr": optimizer_args["head"]}
        return torch.optim.SGD([{"params": layers[0].parameters()}, {"params": layers[1].parameters()}, head], lr=optimizer_args["lr"])

    plan = ready(variant(init_model=init_model, init_optimizer=init_optimizer), optimizer_args={"lr": 0.01, "head": 0.1}, batch_maxnum=2)
    assert plan.optimizer_args() == {"lr": 0.01, "head": 0.1}
    plan.training_routine()
    layers = {"0.weight": 0.01, "0.bias": 0.01, "1.weight": 0.01, "1.bias": 0.01, "2.weight": 0.1, "2.bias": 0.1}
    assert plan.optimizer_args() == {"lr": layers, "head": 0.1}


def test_learning_rate_as_a_tensor_is_told_as_a_number():
    plan, _ = trained(variant(init_optimizer=lambda self: torch.optim.SGD(self.model().parameters(), lr=torch.tensor(0.5))))
    assert plan.optimizer_args()["lr"] == {"weight": 0.5}


# --- nested batches and devices


class Pairs(torch.utils.data.Dataset):
    """Inputs as a dict with a tuple in it."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"scan": (torch.full((2,), float(index)), torch.ones(1)), "age": torch.ones(1)}, {"label": torch.ones(1)}


def test_batches_may_be_nested():
    def step(self, data, target):
        return ((self.model()(data["scan"][1]) - target["label"]) ** 2).mean() + data["age"].sum() * 0

    nested = variant(training_data=lambda self: DataManager(Pairs()), training_step=step)
    monitor = trained(nested, loader_args={"batch_size": 3})[1]
    assert [m["batch_samples"] for m in monitor.heard] == [3, 1]


Scan = collections.namedtuple("Scan", ["image", "age"])


def test_batches_may_be_named_tuples():
    def step(self, data, target):
        return ((self.model()(data.image) - target) ** 2).mean() + data.age.sum() * 0

    class Scans(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return Scan(torch.ones(1), torch.ones(1)), torch.ones(1)

    assert len(trained(variant(training_data=lambda self: DataManager(Scans()), training_step=step))[1].heard) == 2


class Named(torch.utils.data.Dataset):
    """Inputs that are no tensors."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return f"patient {index}", torch.ones(1)


def test_batch_of_something_else_is_a_clear_error():
    with pytest.raises(FedbiomedTrainingPlanError, match="a batch holds tensors"):
        trained(variant(training_data=lambda self: DataManager(Named())))


class Single(torch.utils.data.Dataset):
    """Samples without target."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.ones(1)


def test_samples_without_target_are_a_clear_error():
    with pytest.raises(FedbiomedTrainingPlanError, match="pairs of data and target"):
        trained(variant(training_data=lambda self: DataManager(Single())), loader_args={"batch_size": 3})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("offer", [None, {}, {"gpu": True}, {"gpu": True, "gpu_num": 7, "gpu_only": True}])
def test_gpu_asked_for_where_there_is_none_trains_on_the_cpu(offer, caplog):
    plan = ready(Line, use_gpu=True)
    plan.training_routine(node_args=offer)
    assert plan.model().weight.device.type == "cpu"
    assert "training on the CPU" in caplog.text
    assert slope(plan) == slope(trained(Line)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_gpu_is_used_and_the_model_comes_back():
    devices = set()

    def step(self, data, target):
        devices.update((data.device.type, self.model().weight.device.type))
        return Line.training_step(self, data, target)

    plan = ready(variant(training_step=step), use_gpu=True, fedprox_mu=1.0)
    plan.training_routine(node_args={"gpu": True, "gpu_num": 0, "gpu_only": False})
    assert devices == {"cuda"}
    assert plan.model().weight.device.type == "cpu"
    assert slope(plan) == pytest.approx(slope(trained(Line, fedprox_mu=1.0)[0]), rel=1e-5)


# --- pre-processing


def test_preprocess_works_on_the_training_loader():
    def halved(loader):
        return torch.utils.data.DataLoader(torch.utils.data.Subset(loader.dataset, [0, 1]), batch_size=2)

    plan, monitor = ready(Line), Monitor()
    plan.add_preprocess(halved, ProcessTypes.DATA_LOADER)
    plan.training_routine(history_monitor=monitor)
    assert [m["total_samples"] for m in monitor.heard] == [2]
    assert slope(plan) == pytest.approx(1.25)


def test_preprocess_of_parameters_is_left_out_and_said(caplog):
    plan = ready(Line)
    plan.add_preprocess(lambda loader: 1 / 0, ProcessTypes.PARAMS)
    plan.training_routine()
    assert "not implemented" in caplog.text


def test_preprocess_that_returns_something_else_is_refused():
    plan = ready(Line)
    plan.add_preprocess(list, ProcessTypes.DATA_LOADER)
    with pytest.raises(FedbiomedTrainingPlanError, match="must return a DataLoader, not a list"):
        plan.training_routine()


def test_preprocess_that_raises_is_told_with_its_name():
    def broken(loader):
        raise IndexError("row 7")

    plan = ready(Line)
    plan.add_preprocess(broken, ProcessTypes.DATA_LOADER)
    with pytest.raises(FedbiomedTrainingPlanError, match=r"broken\(\).* raised IndexError: row 7"):
        plan.training_routine()


@pytest.mark.parametrize(("method", "kind"), [(3, ProcessTypes.DATA_LOADER), (len, 0), (len, "DATA_LOADER")])
def test_preprocess_of_wrong_arguments_is_refused(method, kind):
    with pytest.raises(FedbiomedTrainingPlanError):
        Line().add_preprocess(method, kind)


def test_a_model_in_bfloat16_is_trained_and_tested():
    data = TensorDataset(X.to(torch.bfloat16), X.to(torch.bfloat16) + 3)
    plan = ready(
        variant(init_model=lambda self: Line.init_model(self).to(torch.bfloat16), training_data=lambda self: DataManager(data)),
        test_ratio=0.4,
    )
    monitor = Monitor()
    plan.testing_routine(MetricTypes.MEAN_SQUARE_ERROR, {}, monitor, before_train=True)
    assert monitor.values("MEAN_SQUARE_ERROR") == [9.0]  # x is predicted, x + 3 is true
    plan.training_routine()
    assert slope(plan) > 1.0


# --- randomness


class Random(Line):
    """Everything draws."""

    def init_optimizer(self):
        return torch.optim.SGD(self.model().parameters(), lr=0.001)

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_data(self):
        return DataManager(X.numpy(), Y.numpy(), shuffle=True)


def test_same_seed_gives_the_same_bits():
    first, second = (trained(Random, epochs=3, random_seed=11) for _ in range(2))
    assert first[1].heard == second[1].heard
    for name, value in first[0].get_model_params().items():
        assert torch.equal(value, second[0].get_model_params()[name])


def test_other_seed_gives_other_bits():
    first, second = (trained(Random, epochs=3, random_seed=seed)[0].after_training_params(flatten=True) for seed in (11, 12))
    assert first != second


@pytest.mark.parametrize("testing", ["metric", "own step", "loss"])
def test_a_training_does_not_depend_on_whether_it_was_tested(testing):
    def testing_step(self, data, target):
        return np.random.normal() + random.random() + torch.rand(1).item()

    plan_class = variant(Random, testing_step=testing_step) if testing == "own step" else Random
    found = []
    for is_tested in (False, True):
        plan = ready(plan_class, random_seed=11, test_ratio=0.4)
        if is_tested and testing == "loss":
            plan.validation_loss()
        elif is_tested:
            plan.testing_routine(MetricTypes.MEAN_SQUARE_ERROR, {}, None, before_train=True)
        plan.training_routine()
        found.append((plan.after_training_params(flatten=True), random.random(), np.random.random()))
    assert found[0] == found[1]


def test_without_seed_the_generator_goes_on():
    torch.manual_seed(5)
    first, second = (trained(Random)[0].after_training_params(flatten=True) for _ in range(2))
    assert first != second


# --- errors of parameters


def test_parameters_of_another_shape_are_refused_and_nothing_changes():
    plan = ready(Line)
    with pytest.raises(FedbiomedModelError, match=r"'weight' has the shape \(2, 1\), the plan's model needs \(1, 1\)"):
        plan.set_model_params({"weight": torch.zeros(2, 1)})
    assert slope(plan) == 1.0


@pytest.mark.parametrize("wrong", [None, [1.0], {"weight": "text"}, {"weight": object()}])
def test_parameters_that_are_none_are_refused(wrong):
    with pytest.raises(FedbiomedError):
        ready(Line).set_model_params(wrong)
