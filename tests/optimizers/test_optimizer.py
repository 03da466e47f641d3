"""The `Optimizer` over declearn's modules: steps by hand, states, auxiliary variables, wrong input."""

import numpy as np
import pytest
import torch

import fedbiomed.common.optimizers as face
from fedbiomed.common.declearn_library import Vector
from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.optimizers import declearn as names
from fedbiomed.common.optimizers.declearn import (
    AdaGradModule,
    AdamModule,
    EWMAModule,
    FedProxRegularizer,
    LassoRegularizer,
    MomentumModule,
    RidgeRegularizer,
    RMSPropModule,
    ScaffoldClientModule,
    ScaffoldServerModule,
    YogiMomentumModule,
)
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.serializer import Serializer
from tests.support.declearn_vectors import NumpyVector, TheirOptimizer, TorchVector


def vector(*numbers):
    return NumpyVector({"w": np.array(numbers, dtype=float)})


def numbers(result):
    return result.coefs["w"].tolist()


def test_the_names_are_there():
    assert face.Optimizer is Optimizer
    for name in face.__all__:
        assert getattr(face, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = face.Nothing
    assert names.list_optim_modules()["adam"] is AdamModule
    assert names.list_optim_regularizers()["ridge"] is RidgeRegularizer
    assert all(hasattr(names, name) for name in names.__all__)


def test_plain_descent_and_decay():
    # -(0.1 * 2 + 0.01 * 10)
    assert numbers(Optimizer(lr=0.1, decay=0.01).step(vector(2.0), vector(10.0))) == pytest.approx([-0.3])
    assert numbers(Optimizer(0.1).step(vector(2.0), None)) == pytest.approx([-0.2])
    assert numbers(Optimizer(1).step(vector(2.0), None)) == [-2.0]  # a number without decimal point is one, too


def test_momentum_two_steps():
    optimizer = Optimizer(lr=0.1, modules=[MomentumModule(0.5)])
    # v1 = 2; v2 = 0.5 * 2 + 4 = 5
    assert numbers(optimizer.step(vector(2.0), None)) == pytest.approx([-0.2])
    assert numbers(optimizer.step(vector(4.0), None)) == pytest.approx([-0.5])


@pytest.mark.parametrize(
    ("module", "first", "second"),
    [
        (AdaGradModule(), 2 / 4**0.5, 4 / 20**0.5),  # by the root of the sum of squares
        (RMSPropModule(0.9), 2 / 0.4**0.5, 4 / (0.9 * 0.4 + 1.6) ** 0.5),  # by the root of their moving mean
        (EWMAModule(0.9), 0.2, 0.9 * 0.2 + 0.4),
        (YogiMomentumModule(0.9), 0.2, 0.2 + 0.4),  # moved towards the gradient by a tenth of it
    ],
    ids=lambda value: type(value).__name__,
)
def test_two_steps_of_a_module(module, first, second):
    optimizer = Optimizer(lr=1.0, modules=[module])
    assert numbers(optimizer.step(vector(2.0), None)) == pytest.approx([-first], rel=1e-5)
    assert numbers(optimizer.step(vector(4.0), None)) == pytest.approx([-second], rel=1e-5)


def test_lasso():
    optimizer = Optimizer(lr=0.1, regularizers=[LassoRegularizer(0.1)])
    assert numbers(optimizer.step(vector(2.0), vector(-10.0))) == pytest.approx([-0.1 * (2 - 0.1)])


@pytest.mark.parametrize("modules", [None, ["momentum"], ["adam"], ["ewma"]])
def test_shapes_are_not_stretched_to_fit(modules):
    optimizer = Optimizer(0.1, 0.1, modules=modules)
    with pytest.raises(FedbiomedOptimizerError, match=r"gradients have the shapes .*\(2,\).*, the weights .*\(1,\)"):
        optimizer.step(vector(1.0, 2.0), vector(1.0))
    first = numbers(optimizer.step(vector(1.0, 2.0), vector(0.0, 0.0)))
    with pytest.raises(FedbiomedOptimizerError, match=r"gradients have the shapes .*\(1,\).*, former ones .*\(2,\)"):
        optimizer.step(vector(1.0), vector(1.0))
    fresh = Optimizer(0.1, 0.1, modules=modules)
    assert first == numbers(fresh.step(vector(1.0, 2.0), vector(0.0, 0.0)))
    assert numbers(optimizer.step(vector(1.0, 2.0), vector(0.0, 0.0))) == numbers(fresh.step(vector(1.0, 2.0), vector(0.0, 0.0)))


def test_a_restored_state_of_other_shapes_is_not_stretched_to_fit():
    optimizer = Optimizer(0.1, modules=["momentum"])
    optimizer.step(vector(1.0, 2.0), None)
    with pytest.raises(FedbiomedOptimizerError, match="the modules' states"):
        Optimizer.load_state(optimizer.get_state()).step(vector(1.0), None)


@pytest.mark.parametrize("wrong", ["x", None, True, [0.1]])
@pytest.mark.parametrize("name", ["lr", "decay"])
def test_a_rate_that_is_none_is_told_by_its_name(name, wrong):
    with pytest.raises(FedbiomedOptimizerError, match=f"FB621: {name} must be a number, a scheduler or"):
        Optimizer(**{"lr": 0.1, name: wrong})


def test_numbers_of_numpy_are_rates():
    assert Optimizer(np.float32(0.5)).lr == 0.5


def test_an_optimizer_of_a_plan_is_a_base_optimizer():
    assert issubclass(face.DeclearnOptimizer, face.BaseOptimizer)
    assert issubclass(face.NativeTorchOptimizer, face.BaseOptimizer)
    with pytest.raises(TypeError, match="abstract"):
        face.BaseOptimizer()


def test_adam_one_step():
    # m = 0.1 g, v = 0.01 g^2, corrected to g and g^2: g / (|g| + 1e-7)
    found = numbers(Optimizer(lr=0.1, modules=["adam"]).step(vector(3.0, -4.0), None))
    assert found == pytest.approx([-0.1 * 3 / (3 + 1e-7), 0.1 * 4 / (4 + 1e-7)], rel=1e-12)


def test_ridge_and_fedprox():
    # ridge: g + 2 * 0.5 * w
    assert numbers(Optimizer(lr=1.0, regularizers=[RidgeRegularizer(0.5)]).step(vector(2.0), vector(10.0))) == [-12.0]
    optimizer = Optimizer(lr=1.0, regularizers=[FedProxRegularizer(0.5)])
    optimizer.init_round()
    assert numbers(optimizer.step(vector(2.0), vector(10.0))) == [-2.0]  # the reference is 10
    assert numbers(optimizer.step(vector(2.0), vector(8.0))) == [-1.0]  # 2 + 0.5 * (8 - 10)
    optimizer.init_round()
    assert numbers(optimizer.step(vector(2.0), vector(8.0))) == [-2.0]  # a new reference


def test_regularizers_come_before_modules_and_modules_in_their_order():
    both = Optimizer(lr=1.0, modules=[("momentum", {"beta": 0.5}), "adam"], regularizers=[("ridge", {"alpha": 1.0}), "lasso"])
    assert both.module_names == ["momentum", "adam"]
    # adam makes any gradient 1 at the first step; without the ridge the gradient would be 0
    assert numbers(both.step(vector(0.0), vector(5.0))) == pytest.approx([-1.0])


def test_tensors():
    updates = Optimizer(lr=0.5, modules=["momentum"]).step(TorchVector({"w": torch.ones(2)}), None)
    assert torch.equal(updates.coefs["w"], torch.tensor([-0.5, -0.5]))


def test_a_state_goes_on_to_the_bit():
    modules = [("adam", {"amsgrad": True}), ("momentum", {"round_reset": True}), ("rmsprop", {"round_reset": True}), "scaffold-client"]

    def fresh():
        return Optimizer(lr=("linear-decay", {"base": 0.1, "rate": 0.01}), decay=0.01, modules=modules)

    unbroken = fresh()
    generator = np.random.default_rng(3)
    gradients = [vector(*generator.normal(size=3)) for _ in range(6)]
    weights = vector(1.0, 2.0, 3.0)
    one = fresh()
    for optimizer in (unbroken, one):
        optimizer.init_round()
        for gradient in gradients[:3]:
            optimizer.step(gradient, weights)
        optimizer.get_aux()
    other = Optimizer.load_state(Serializer.loads(Serializer.dumps(one.get_state())))
    assert other.lr == unbroken.lr
    for optimizer in (unbroken, other):
        optimizer.set_aux({"scaffold": {"state": vector(0.1, 0.2, 0.3)}})
        optimizer.init_round()
    for gradient in gradients[3:]:
        assert numbers(other.step(gradient, weights)) == numbers(unbroken.step(gradient, weights))


def test_states_go_by_position_and_name():
    one = Optimizer(lr=0.1, modules=["momentum", "adam"])
    one.step(vector(2.0), None)
    other = Optimizer(lr=0.7, modules=["momentum", "rmsprop", "adam"])
    anew = other.restore(one.get_state())
    assert anew == ["module 'rmsprop' at position 1", "module 'adam' at position 2"]
    assert other.lr == 0.7
    assert numbers(other.get_state()["states"]["modules"][0][1]["velocity"]) == [2.0]
    assert Optimizer(lr=0.1, modules=["momentum"]).restore(one.get_state()) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"states": {}},
        {"states": {"modules": [("momentum", {})], "lrate": {}, "w_decay": {}}, "config": {"lrate": 0.1, "w_decay": 0.0}},
        {"states": {"modules": 3}, "config": {"lrate": 0.1}},
        [],
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(broken):
    optimizer = Optimizer(lr=0.1, modules=["momentum"])
    optimizer.step(vector(2.0), None)
    with pytest.raises(FedbiomedOptimizerError, match="FB621"):
        optimizer.restore(broken)
    with pytest.raises(FedbiomedOptimizerError, match="FB621"):
        Optimizer.load_state(broken)
    assert numbers(optimizer.step(vector(0.0), None)) == pytest.approx([-0.18])


def test_an_optimizer_of_declearn_is_taken_over_with_its_state():
    theirs = TheirOptimizer(lrate=0.1, w_decay=0.01, modules=[MomentumModule(0.5, round_reset=True)], regularizers=["ridge"])
    ours = Optimizer.from_declearn_optimizer(theirs)
    ours.step(vector(2.0), vector(1.0))
    assert theirs.modules[0].velocity == 0.0  # the given one stays as it was
    assert ours.get_state()["config"]["modules"] == [("momentum", {"beta": 0.5, "nesterov": False, "round_reset": True})]
    falling = TheirOptimizer(lrate=("linear-decay", {"base": 0.1, "rate": 0.5}))
    falling.compute_updates_from_gradients(None, vector(1.0))
    assert Optimizer.from_declearn_optimizer(falling).lr == falling.lrate < 0.1
    with pytest.raises(FedbiomedOptimizerError, match=r"declearn\.optimizer\.Optimizer is wanted"):
        Optimizer.from_declearn_optimizer("adam")


def test_scaffold_variables_are_plain_and_are_summed():
    nodes = [Optimizer(lr=1.0, modules=[ScaffoldClientModule()]) for _ in range(2)]
    server = Optimizer(lr=1.0, modules=[ScaffoldServerModule()])
    assert server.get_aux() == {"scaffold": {"state": 0.0}}
    for node, gradient in zip(nodes, (1.0, 3.0), strict=True):
        node.set_aux(server.get_aux())
        node.step(vector(gradient), None)
    sent = {f"node_{i}": Serializer.loads(Serializer.dumps(node.get_aux()))["scaffold"] for i, node in enumerate(nodes)}
    assert sent["node_0"].keys() == {"delta", "clients"}
    server.set_aux({"scaffold": sent})
    told = Serializer.loads(Serializer.dumps(server.get_aux()))
    assert isinstance(told["scaffold"]["state"], Vector)
    assert numbers(told["scaffold"]["state"]) == [2.0]  # (1 + 3) / 2
    nodes[0].set_aux(told)
    assert numbers(nodes[0].step(vector(1.0), None)) == [-2.0]  # 1 - (1 - 2)


@pytest.mark.parametrize(
    ("aux", "text"),
    [
        ({"other": {"state": 1.0}}, "module 'other'"),
        ({"adam": {"state": 1.0}}, "takes no auxiliary variables"),
        ({"scaffold": {"nothing": 1.0}}, "must be a dict"),
        ({"scaffold": {"state": 1.0, "delta": 1.0}}, "do not make a ScaffoldAuxVar"),
        ({"scaffold": {"state": float("nan")}}, "finite"),
        ({"scaffold": {"state": vector(1.0, np.inf)}}, "finite"),
        ({"scaffold": {"delta": vector(1.0)}}, "not taken"),
        ({"scaffold": [1]}, "must be a dict"),
        ([], "must be a dict"),
    ],
)
def test_auxiliary_variables_that_do_not_fit(aux, text):
    optimizer = Optimizer(lr=1.0, modules=["scaffold-client", "adam"])
    optimizer.set_aux({"scaffold": {"state": vector(1.0)}})
    with pytest.raises(FedbiomedOptimizerError, match=text):
        optimizer.set_aux(aux)
    optimizer.set_aux({})
    assert numbers(optimizer.get_state()["states"]["modules"][0][1]["sglob"]) == [1.0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": -0.1},
        {"lr": float("nan")},
        {"lr": "fast"},
        {"lr": True},
        {"lr": 0.1, "decay": -1.0},
        {"lr": 0.1, "modules": "adam"},
        {"lr": 0.1, "modules": ["adamant"]},
        {"lr": 0.1, "modules": [("adam", {"gamma": 1})]},
        {"lr": 0.1, "modules": [3]},
        {"lr": 0.1, "regularizers": ["adam"]},
        {"lr": 0.1, "modules": {"adam": {}}},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(FedbiomedOptimizerError, match="FB621"):
        Optimizer(**arguments)


def test_a_step_says_what_is_wrong():
    optimizer = Optimizer(lr=0.1, modules=["momentum"], regularizers=["ridge"])
    with pytest.raises(FedbiomedOptimizerError, match="grads must be a Vector"):
        optimizer.step({"w": np.ones(1)}, vector(1.0))
    with pytest.raises(FedbiomedOptimizerError, match="weights must be a Vector"):
        optimizer.step(vector(1.0), None)
    with pytest.raises(FedbiomedOptimizerError, match="a step with the modules"):
        optimizer.step(vector(1.0), NumpyVector({"other": np.ones(1)}))
    assert "momentum" in repr(optimizer)
