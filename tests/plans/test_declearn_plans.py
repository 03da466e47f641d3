"""Training plans whose optimizer is made of declearn's modules."""

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedModelError, FedbiomedOptimizerError, FedbiomedTrainingError, FedbiomedTrainingPlanError
from fedbiomed.common.models.sklearn_model import SGDRegressorModel
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.optimizers import DeclearnOptimizer, NativeSkLearnOptimizer, NativeTorchOptimizer, SklearnOptimizerProcessing
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.sklearn_models import FedSGDClassifier, FedSGDRegressor
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from tests.support.declearn_vectors import TheirOptimizer
from tests.support.monitors import Monitor

X = np.array([[1.0], [2.0], [3.0], [4.0]])
Y = 2 * X[:, 0]


class TorchPlan(TorchTrainingPlan):
    def init_model(self):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False))
        nn.init.ones_(model[0].weight)
        nn.init.ones_(model[1].weight)
        model[1].weight.requires_grad = False
        return model

    def init_optimizer(self, optimizer_args):
        return Optimizer(lr=0.1, **optimizer_args)

    def training_data(self):
        return DataManager(X.astype(np.float32), (2 * X).astype(np.float32))

    def training_step(self, data, target):
        return ((self.model()[1](self.model()[0](data)) - target) ** 2).mean() / 2


class Regressor(FedSGDRegressor):
    def init_optimizer(self, optimizer_args):
        return Optimizer(lr=0.1, **optimizer_args)

    def training_data(self):
        return DataManager(X, Y)


def ready(plan_class, *, model_args=None, **args):
    plan, given = plan_class(), TrainingArgs({"epochs": 1, "loader_args": {"batch_size": 4}, **args}, only_required=False)
    plan.post_init(model_args or {}, given)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(0.0, seed=0))
    return plan


def trained(plan_class, **args):
    plan = ready(plan_class, **args)
    plan.training_routine(Monitor())
    return plan


def test_torch_by_hand():
    # mean((a x - 2 x) x) at a = 1: -(1 + 4 + 9 + 16) / 4 = -7.5; momentum 0.9, second step at a = 1.75: -0.25 * 7.5
    plan = trained(TorchPlan, num_updates=2, optimizer_args={"modules": [("momentum", {"beta": 0.9})]})
    first = 1 + 0.1 * 7.5
    second = first + 0.1 * (0.9 * 7.5 + (2 - first) * 7.5)
    assert plan.get_model_params()["0.weight"].item() == pytest.approx(second, rel=1e-6)
    assert plan.get_model_params()["1.weight"].item() == 1.0  # frozen
    assert isinstance(plan.optimizer(), DeclearnOptimizer)
    assert isinstance(plan.optimizer().optimizer, Optimizer)
    assert plan.optimizer_args()["lr"] == {"0.weight": 0.1}


def test_torch_regularizers_see_the_weights():
    ridge = trained(TorchPlan, optimizer_args={"regularizers": [("ridge", {"alpha": 0.5})]})
    assert ridge.get_model_params()["0.weight"].item() == pytest.approx(1 - 0.1 * (-7.5 + 1.0), rel=1e-6)
    decayed = trained(TorchPlan, optimizer_args={"decay": 0.25})
    assert decayed.get_model_params()["0.weight"].item() == pytest.approx(1 + 0.75 - 0.25, rel=1e-6)
    prox = trained(TorchPlan, num_updates=2, optimizer_args={"regularizers": [("fedprox", {"alpha": 2.0})]})
    # 1.75, then -(0.25 * -7.5 + 2 * 0.75) * 0.1
    assert prox.get_model_params()["0.weight"].item() == pytest.approx(1.75 - 0.1 * (-0.25 * 7.5 + 1.5), rel=1e-6)


def test_torch_equals_torch():
    native = type("Native", (TorchPlan,), {"init_optimizer": lambda self: torch.optim.SGD(self.model().parameters(), lr=0.1, momentum=0.9)})
    one = trained(native, epochs=3)
    other = trained(TorchPlan, epochs=3, optimizer_args={"modules": ["momentum"]})
    assert isinstance(one.optimizer(), NativeTorchOptimizer)
    assert one.get_model_params()["0.weight"].item() == pytest.approx(other.get_model_params()["0.weight"].item(), rel=1e-6)


def test_a_parameter_without_gradient_stays():
    def step(self, data, target):
        return (self.model()[1](data) - target).abs().mean()

    def model(self):
        return nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    plan = ready(type("Half", (TorchPlan,), {"init_model": model, "training_step": step}), optimizer_args={"modules": ["adam"]})
    before = plan.get_model_params()
    plan.training_routine(Monitor())
    after = plan.get_model_params()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["1.weight"], before["1.weight"])


@pytest.mark.parametrize("plan_class", [TorchPlan, Regressor])
def test_an_optimizer_of_declearn_itself(plan_class):
    args = {"model_args": {"n_features": 1}} if plan_class is Regressor else {}
    theirs = type("Theirs", (plan_class,), {"init_optimizer": lambda self: TheirOptimizer(lrate=0.1, modules=["adam"])})
    one, other = trained(theirs, epochs=2, **args), trained(plan_class, epochs=2, optimizer_args={"modules": ["adam"]}, **args)
    for name, value in one.get_model_params().items():
        assert np.array_equal(np.asarray(value), np.asarray(other.get_model_params()[name])), name
    assert isinstance(one.optimizer().optimizer, Optimizer)


def test_sklearn_by_hand():
    # one batch from zero weights, no penalty: gradient mean(-y) = -5, mean(-y x) = -15
    plan = trained(Regressor, model_args={"n_features": 1, "penalty": None}, num_updates=1)
    assert plan.get_model_params()["intercept_"] == pytest.approx([0.5], rel=1e-12)
    assert plan.get_model_params()["coef_"] == pytest.approx([1.5], rel=1e-12)
    # momentum 0.9; second gradient at a = 1.5, b = 0.5: errors 0.5 - x / 2: mean -0.75, with x: -2.5
    plan = trained(
        Regressor, model_args={"n_features": 1, "penalty": None}, num_updates=2, optimizer_args={"modules": [("momentum", {"beta": 0.9})]}
    )
    assert plan.get_model_params()["intercept_"] == pytest.approx([0.5 + 0.1 * (0.9 * 5 + 0.75)], rel=1e-12)
    assert plan.get_model_params()["coef_"] == pytest.approx([1.5 + 0.1 * (0.9 * 15 + 2.5)], rel=1e-12)


def test_sklearn_gradient_is_scikit_learns_own_displacement():
    generator = np.random.default_rng(5)
    rows, labels = generator.normal(size=(6, 3)), np.array([0, 1, 2, 0, 1, 2])

    def data(self):
        return DataManager(rows, labels)

    args = {"n_features": 3, "n_classes": 3, "loss": "log_loss", "alpha": 0.01}
    plan = ready(
        type("Classifier", (FedSGDClassifier,), {"init_optimizer": lambda self: Optimizer(lr=1.0), "training_data": data}),
        model_args=args,
        loader_args={"batch_size": 6},
    )
    plan.training_routine(Monitor())
    steps = []
    for row, label in zip(rows, labels, strict=True):
        alone = SGDClassifier(loss="log_loss", alpha=0.01, learning_rate="constant", eta0=1.0)
        alone.partial_fit(np.zeros((1, 3)), [0], classes=[0, 1, 2])
        alone.coef_, alone.intercept_ = np.zeros((3, 3)), np.zeros(3)
        alone.partial_fit(row.reshape(1, -1), [label])
        steps.append((alone.coef_, alone.intercept_))
    np.testing.assert_allclose(plan.get_model_params()["coef_"], np.mean([coef for coef, _ in steps], axis=0), rtol=1e-9)
    np.testing.assert_allclose(plan.get_model_params()["intercept_"], np.mean([one for _, one in steps], axis=0), rtol=1e-9, atol=1e-12)


def test_sklearn_hyper_parameters_are_told_and_restored(caplog):
    args = {"n_features": 1, "eta0": 0.3, "learning_rate": "invscaling"}
    plan = ready(Regressor, model_args=args)
    before = plan.model().get_params()
    with caplog.at_level(logging.WARNING):
        plan.training_routine(Monitor())
    assert "learning_rate is 'constant' instead of 'invscaling', eta0 is 1.0 instead of 0.3" in caplog.text
    assert plan.model().get_params() == before
    caplog.clear()
    trained(Regressor, model_args={"n_features": 1, "eta0": 1.0, "learning_rate": "constant"})
    assert "instead of" not in caplog.text
    broken = ready(Regressor, model_args=args)
    broken.training_data_loader.dataset[0] = np.nan
    with pytest.raises(FedbiomedTrainingError):
        broken.training_routine(Monitor())
    assert broken.model().get_params() == before


def test_the_native_way_changes_nothing(caplog):
    native = type("Native", (Regressor,), {"init_optimizer": lambda self: None})
    plan = trained(native, model_args={"n_features": 1, "eta0": 0.3})
    assert isinstance(plan.optimizer(), NativeSkLearnOptimizer)
    assert plan.optimizer().optimizer is None
    assert "instead of" not in caplog.text
    with SklearnOptimizerProcessing(plan._model, is_declearn_optimizer=False):
        assert plan.model().eta0 == 0.3
    assert plan.optimizer().get_aux() == {}
    assert plan.optimizer().get_state() is None
    with pytest.raises(FedbiomedOptimizerError, match="takes none"):
        plan.optimizer().set_aux({"scaffold": {"state": 0.0}})
    with pytest.raises(FedbiomedOptimizerError, match="keeps no state"):
        plan.optimizer().restore({})


def test_what_no_plan_can_use():
    for wrong in (3, "adam", [], torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)):
        with pytest.raises(FedbiomedOptimizerError, match=r"init_optimizer\(\) must return None, an Optimizer"):
            ready(type("Wrong", (Regressor,), {"init_optimizer": lambda self, wrong=wrong: wrong}), model_args={"n_features": 1})
    with pytest.raises(FedbiomedOptimizerError, match="is wanted"):
        DeclearnOptimizer(TorchModel(nn.Linear(1, 1)), "adam")
    with pytest.raises(FedbiomedTrainingPlanError, match="has not been built yet"):
        Regressor().optimizer()


def test_a_model_without_trainable_parameters():
    model = nn.Linear(1, 1)
    model.requires_grad_(False)
    with pytest.raises(FedbiomedOptimizerError, match="no trainable parameter"):
        DeclearnOptimizer(TorchModel(model), Optimizer(lr=0.1)).step()


def test_updates_that_fit_to_nothing():
    plan = ready(Regressor, model_args={"n_features": 1})
    assert isinstance(plan._model, SGDRegressorModel)
    for updates in ({"other": np.ones(1)}, {"coef_": np.ones(2)}):
        with pytest.raises(FedbiomedModelError, match="fits to no"):
            plan._model.apply_updates(updates)
    with pytest.raises(FedbiomedTrainingError, match="finite"):
        plan._model.apply_updates({"coef_": np.array([np.inf])})
    with pytest.raises(FedbiomedModelError, match="fits to no"):
        TorchModel(nn.Linear(1, 1)).apply_updates({"weight": torch.ones(3)})
    sparse = nn.Embedding(3, 2, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    assert TorchModel(sparse).get_gradients()["weight"].tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_a_state_of_other_shapes_does_not_fit():
    small, large = (DeclearnOptimizer(TorchModel(nn.Linear(n, 1)), Optimizer(lr=0.1, modules=["momentum"])) for n in (1, 2))
    small.step()
    before = large.get_state()
    with pytest.raises(FedbiomedOptimizerError, match="belongs to parameters"):
        large.restore(small.get_state())
    assert large.get_state() == before
    assert small.restore(small.get_state()) == []
