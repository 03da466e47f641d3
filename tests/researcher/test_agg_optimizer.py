"""Optimizers on both sides, over real nodes and transports in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedExperimentError, FedbiomedOptimizerError
from fedbiomed.common.optimizers.declearn import MomentumModule, ScaffoldServerModule, YogiModule
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher import server_optimizer
from fedbiomed.researcher.experiment import Experiment
from tests.support.declearn_plans import FullBatchLine, SklearnLine, TorchLine, mean_gradient
from tests.support.declearn_vectors import NumpyVector, TheirOptimizer
from tests.support.plans import LinePlan

TORCH = {
    "training_plan_class": TorchLine,
    "training_args": {
        "epochs": 1,
        "loader_args": {"batch_size": 8},
        "random_seed": 7,
        "optimizer_args": {"modules": ["scaffold-client", "adam"], "regularizers": ["fedprox"]},
    },
}
SKLEARN = {
    "training_plan_class": SklearnLine,
    "model_args": {"n_features": 1},
    "training_args": {
        "epochs": 1,
        "loader_args": {"batch_size": 8},
        "random_seed": 7,
        "optimizer_args": {"modules": ["scaffold-client", "momentum"]},
    },
}
BY_HAND = {
    "training_plan_class": FullBatchLine,
    "model_args": {"n_features": 1, "penalty": None},
    "training_args": {"num_updates": 1, "optimizer_args": {"lr": 0.1, "modules": []}},
}


EXPERIMENT = {"save_breakpoints": True}


def loaded(requests, experiment):
    folder = Path(experiment.experimentation_path()) / f"breakpoint_{experiment.round_current() - 1:04d}"
    return Experiment.load_breakpoint(folder, requests=requests, show_progress=False)


def weights(experiment, round_):
    return {name: np.asarray(value).tobytes() for name, value in experiment.aggregated_params()[round_]["params"].items()}


def values(experiment, round_):
    return experiment.aggregated_params()[round_]["params"]


def server(kind):
    second = YogiModule() if kind == "yogi" else MomentumModule(0.5)
    return Optimizer(lr=0.8, modules=[ScaffoldServerModule(), second])


@pytest.mark.parametrize("kind", ["yogi", "momentum"])
@pytest.mark.parametrize("what", [TORCH, SKLEARN], ids=["torch", "sklearn"])
def test_two_rounds_and_two_more_are_four(made, requests, what, kind):
    unbroken = made(agg_optimizer=server(kind), **what)
    assert unbroken.run(rounds=4) == 4
    broken = made(agg_optimizer=server(kind), **what)
    broken.run(rounds=2)
    resumed = loaded(requests, broken)
    assert resumed.agg_optimizer().module_names == ["scaffold-server", kind]
    resumed.run(rounds=2)
    for round_ in range(4):
        assert weights(resumed, round_) == weights(unbroken, round_), round_
    assert weights(resumed, 3) != weights(resumed, 2)


def test_the_optimizer_lies_in_the_breakpoint(made, requests):
    experiment = made(agg_optimizer=server("momentum"), **SKLEARN)
    experiment.run(rounds=1)
    folder = Path(experiment.experimentation_path()) / "breakpoint_0000"
    name = json.loads((folder / "breakpoint_0000.json").read_text(encoding="utf-8"))["agg_optimizer"]
    content = Serializer.load(folder / name)
    assert content.keys() == {"config", "states"}
    assert [module for module, _ in content["states"]["modules"]] == ["scaffold-server", "momentum"]
    assert len(content["states"]["modules"][0][1]["clients"]) == 2


def test_without_an_optimizer_there_is_none_in_the_breakpoint(made, requests):
    experiment = made(training_plan_class=LinePlan, training_args={"num_updates": 1, "loader_args": {"batch_size": 8}})
    experiment.run(rounds=1)
    folder = Path(experiment.experimentation_path()) / "breakpoint_0000"
    assert json.loads((folder / "breakpoint_0000.json").read_text(encoding="utf-8"))["agg_optimizer"] is None
    assert not list(folder.glob("optimizer_*"))
    assert loaded(requests, experiment).agg_optimizer() is None


def test_momentum_on_the_server_by_hand(made, federation):
    experiment = made(agg_optimizer=Optimizer(lr=0.5, modules=[("momentum", {"beta": 0.9})]), **BY_HAND)
    experiment.run(rounds=2)
    rows = np.array([30, 40]) / 70
    # a node makes one step of 0.1 on all its rows: w_i = w - 0.1 g_i, so the aggregate is w - 0.1 (30 g_0 + 40 g_1) / 70;
    # gradient for the server: G = 0.1 (30 g_0 + 40 g_1) / 70, velocity v = 0.9 v + G, w = w - 0.5 v
    expected, velocity = {"intercept_": np.zeros(1), "coef_": np.zeros(1)}, {"intercept_": 0.0, "coef_": 0.0}
    for round_ in range(2):
        parts = [mean_gradient(federation.data(i) / "rows.csv", expected) for i in range(2)]
        for name in expected:
            velocity[name] = 0.9 * velocity[name] + 0.1 * sum(share * part[name] for share, part in zip(rows, parts, strict=True))
        expected = {name: expected[name] - 0.5 * velocity[name] for name in expected}
        for name, value in values(experiment, round_).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-9)


def test_scaffold_by_hand(made, federation):
    args = {**BY_HAND, "training_args": {"num_updates": 1, "optimizer_args": {"lr": 0.1, "modules": ["scaffold-client"]}}}
    experiment = made(agg_optimizer=Optimizer(lr=1.0, modules=["scaffold-server"]), **args)
    experiment.run(rounds=2)
    # round 0: no correction; state of node i: s_i = g_i(w0); server's: s = (s_0 + s_1) / 2
    # round 1: node i steps by g_i(w1) - (s_i - s); server of lr 1: w is the aggregate
    files, rows = [federation.data(i) / "rows.csv" for i in range(2)], np.array([30, 40]) / 70
    first = {"intercept_": np.zeros(1), "coef_": np.zeros(1)}
    states = [mean_gradient(path, first) for path in files]
    second = {n: first[n] - 0.1 * sum(r * s[n] for r, s in zip(rows, states, strict=True)) for n in first}
    gradients = [mean_gradient(path, second) for path in files]
    shared = {n: (states[0][n] + states[1][n]) / 2 for n in first}
    third = {
        n: second[n] - 0.1 * sum(r * (g[n] - (s[n] - shared[n])) for r, g, s in zip(rows, gradients, states, strict=True)) for n in first
    }
    for name in first:
        np.testing.assert_allclose(values(experiment, 0)[name], second[name], rtol=1e-9)
        np.testing.assert_allclose(values(experiment, 1)[name], third[name], rtol=1e-9)
        assert abs(third[name] - (second[name] - 0.1 * sum(r * g[name] for r, g in zip(rows, gradients, strict=True)))) > 1e-4


def test_what_the_nodes_sent_can_be_looked_at(made):
    experiment = made(agg_optimizer=server("yogi"), **SKLEARN)
    experiment.run(rounds=1)
    found = experiment.job().extract_received_optimizer_aux_var_from_round(0)
    assert found.keys() == {"scaffold"}
    assert found["scaffold"].keys() == {"node_0", "node_1"}
    assert found["scaffold"]["node_0"].keys() == {"delta", "clients"}
    folder = Path(experiment.experimentation_path())
    assert len(list(folder.glob("aux_var_shared_*.mpk"))) == 1
    assert not list(folder.glob("aux_var_node_*"))


def test_buffers_take_the_aggregate_and_parameters_the_step(made):
    args = {**TORCH, "training_args": {**TORCH["training_args"], "optimizer_args": {"modules": []}}}
    plain = made(**args)
    plain.run(rounds=1)
    still = made(agg_optimizer=Optimizer(lr=0.0), **args)
    start = still.training_plan().get_model_params()
    still.run(rounds=1)
    for name, value in values(still, 0).items():
        expected = start[name] if name in still.training_plan().get_model_params(only_trainable=True) else values(plain, 0)[name]
        assert torch.equal(value, expected), name
    assert not torch.equal(values(plain, 0)["2.running_mean"], start["2.running_mean"])


def test_a_rate_of_one_and_no_module_is_the_aggregate(made):
    plain, same = made(**BY_HAND), made(agg_optimizer=Optimizer(lr=1.0), **BY_HAND)
    plain.run(rounds=1)
    same.run(rounds=1)
    for name, value in values(plain, 0).items():
        np.testing.assert_allclose(values(same, 0)[name], value, rtol=1e-12)


def test_aux_variables_without_an_optimizer_fail_the_round(made):
    experiment = made(**SKLEARN)
    with pytest.raises(FedbiomedExperimentError, match=r"node_0: scaffold.*no agg_optimizer"):
        experiment.run_once()
    assert experiment.round_current() == 0
    experiment.set_agg_optimizer(server("yogi"))
    assert experiment.run_once() == 1


def test_a_server_module_without_its_half_on_the_nodes(made):
    experiment = made(agg_optimizer=server("yogi"), **BY_HAND)
    with pytest.raises(FedbiomedError, match="for a module 'scaffold'"):
        experiment.run_once()
    plain = made(
        agg_optimizer=server("yogi"), training_plan_class=LinePlan, training_args={"num_updates": 1, "loader_args": {"batch_size": 8}}
    )
    with pytest.raises(FedbiomedError, match=r"for scaffold.*\(Adam\) takes none"):
        plain.run_once()


def test_a_failed_round_leaves_the_optimizer_as_it_was(made):
    optimizer = server("momentum")
    experiment = made(agg_optimizer=optimizer, **SKLEARN)
    experiment.run_once()
    before = Serializer.dumps(optimizer.get_state())
    experiment.set_training_args({**SKLEARN["training_args"], "test_ratio": 1.0})
    with pytest.raises(FedbiomedExperimentError, match="samples"):
        experiment.run_once()
    assert Serializer.dumps(optimizer.get_state()) == before
    experiment.set_training_args(SKLEARN["training_args"])
    assert experiment.run_once() == 1


def test_setting_and_showing(made, capsys):
    experiment, optimizer = made(), server("yogi")
    assert experiment.agg_optimizer() is None
    assert experiment.set_agg_optimizer(optimizer) is optimizer
    assert experiment.agg_optimizer() is optimizer
    experiment.info()
    shown = capsys.readouterr().out
    assert "Optimizer(lr=0.8" in shown
    assert "scaffold-server" in shown
    for wrong in ("adam", 0.1, Optimizer, torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), False):
        with pytest.raises(FedbiomedExperimentError, match="FB410"):
            experiment.set_agg_optimizer(wrong)
    assert experiment.agg_optimizer() is optimizer
    assert isinstance(experiment.set_agg_optimizer(TheirOptimizer(lrate=0.1)), Optimizer)
    assert experiment.set_agg_optimizer(None) is None


@pytest.mark.parametrize("content", [[1], {"config": {}}, {"config": {"lrate": 0.1, "modules": [("os.system", {})]}, "states": {}}])
def test_a_file_that_is_no_optimizer_is_refused(tmp_path, content):
    path = tmp_path / "optimizer.mpk"
    Serializer.dump(content, path)
    with pytest.raises(FedbiomedBreakpointError, match="agg_optimizer"):
        server_optimizer.load(str(path))


def test_a_node_whose_variables_do_not_fit_is_told_apart():
    total = server_optimizer.AuxTotal(Optimizer(lr=1.0, modules=["scaffold-server"]))
    total.add(total.checked("a", {"scaffold": {"delta": NumpyVector({"w": np.ones(2)}), "clients": ["1"]}}))
    for delta in (NumpyVector({"w": np.ones(3)}), NumpyVector({"v": np.ones(2)}), NumpyVector({"w": np.array([1.0, np.nan])}), object()):
        with pytest.raises(FedbiomedOptimizerError):
            total.checked("b", {"scaffold": {"delta": delta, "clients": ["2"]}})
    with pytest.raises(FedbiomedOptimizerError, match="do not make"):
        total.checked("b", {"scaffold": {"other": 1.0}})
    with pytest.raises(FedbiomedOptimizerError, match="module 'nothing'"):
        total.checked("b", {"nothing": {"delta": 1.0}})
    assert total.checked("b", None) == {}
    total.add(total.checked("b", {"scaffold": {"delta": NumpyVector({"w": np.full(2, 3.0)}), "clients": ["2"]}}))
    total.hand_over()


def test_the_step_refuses_what_does_not_fit():
    optimizer = Optimizer(lr=1.0)
    with pytest.raises(FedbiomedError, match="shape"):
        server_optimizer.stepped(optimizer, {"w": np.ones(2)}, {"w": np.ones((2, 2))})
    with pytest.raises(FedbiomedError, match="none of the trainable"):
        server_optimizer.stepped(optimizer, {"w": np.ones(2)}, {"v": np.ones(2)})
    mixed = server_optimizer.stepped(optimizer, {"w": torch.ones(2)}, {"w": np.zeros(2)})  # an aggregator of the user's may give arrays
    assert mixed["w"].dtype == torch.float32
