"""Auxiliary variables in secure rounds: SCAFFOLD's controls, those of optimizers, and numbers that a node's half tells."""

import contextlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedSecureAggregationError, FedbiomedStrategyError, FileStoreError
from fedbiomed.common.files import FileRef
from fedbiomed.common.optimizers.declearn import MomentumModule, ScaffoldServerModule
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.secagg.update import COUNTER_RANGE
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.common.transport.memory_bus import MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.researcher.aggregators import ClientLevelDP, FedBN, FedPer, FedProx, Scaffold
from fedbiomed.researcher.connect import Connection
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.declearn_plans import SklearnLine, TorchLine
from tests.support.memory_federation import MemoryFederation
from tests.support.moody import state, weights
from tests.support.strategies import ActsBeforeReveal

NODE_COUNT = 4
NODES = ["node_0", "node_1", "node_2", "node_3"]
Make = Callable[..., Experiment]
DECLEARN = {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7, "optimizer_args": {"modules": ["scaffold-client"]}}
MASKED_KEYS = {"researcher_id", "job_id", "node_id", "state_id", "encrypted", "sid", "round", "attempt", "vectors", "shares", "clipped"} | {
    *("digest", "bound")
}
TORCH = {"training_plan_class": TorchLine, "training_args": DECLEARN}
SKLEARN = {"training_plan_class": SklearnLine, "model_args": {"n_features": 1}, "training_args": DECLEARN}


class NormPlan(TorchTrainingPlan):
    """With statistics and a counter of a batch normalisation."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self):
        first, norm, last = self.model()
        others = [*first.parameters(), *norm.parameters()]
        return torch.optim.SGD([{"params": others}, {"params": last.parameters(), "lr": 0.02}], lr=0.05)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class Turns(Strategy):
    """The first three nodes, then all, then the last three."""

    def sample_nodes(self, round_i):
        nodes = sorted(self._data.node_ids())
        return [nodes[:3], nodes, nodes[1:]][round_i % 3]


def close(one: dict[str, Any], other: dict[str, Any], rounds: int = 1) -> None:
    """Equal within what rounding to steps, and the dtype, may make in so many rounds."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        found, wanted = np.asarray(value), np.asarray(other[name])
        clip = COUNTER_RANGE if "num_batches" in name else 16
        limit = clip / 2**31 + 8 * np.spacing(np.float32(1 + np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=rounds * limit, err_msg=name)


@pytest.mark.parametrize("settings", [{}, {"weighted": True}, {"weighted": True, "warm_start": True, "server_lr": 0.5}], ids=str)
def test_scaffold_goes_the_way_that_it_goes_openly(secured: Make, settings: dict[str, Any]) -> None:
    what = {"training_plan_class": NormPlan, "node_selection_strategy": Turns}
    plain, secure = secured(secagg=False, aggregator=Scaffold(**settings), **what), secured(aggregator=Scaffold(**settings), **what)
    for round_ in range(3):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), round_ + 1)
        close(secure.aggregator().global_state, plain.aggregator().global_state, 100 * (round_ + 1))
    assert secure.aggregator().nodes_states == secure.aggregator().nodes_deltas == {}


@pytest.mark.parametrize("what", [TORCH, SKLEARN], ids=["torch", "sklearn"])
def test_modules_of_optimizers(secured: Make, what: dict[str, Any]) -> None:
    def server() -> Optimizer:
        return Optimizer(lr=0.8, modules=[ScaffoldServerModule(), MomentumModule(0.5)])

    plain, secure = secured(secagg=False, agg_optimizer=server(), **what), secured(agg_optimizer=server(), **what)
    for round_ in range(3):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), 4 * (round_ + 1))
        one, other = (e.agg_optimizer().get_state()["states"]["modules"][0][1] for e in (secure, plain))
        close(one["s_state"].coefs, other["s_state"].coefs, 10)
        assert sorted(one["clients"]) == sorted(other["clients"]) == NODES


@pytest.mark.parametrize(
    ("aggregator", "told"),
    [
        (lambda: FedProx(adaptive=True, patience=1), lambda a: a.mu),
        (lambda: ClientLevelDP(clipping_bound=0.05, noise_multiplier=0.0, beta=0.5), lambda a: a.clipping_bound),
    ],
    ids=["FedProx", "ClientLevelDP"],
)
def test_numbers_that_nodes_tell_are_summed(secured: Make, aggregator: Callable[[], Any], told: Callable[[Any], float]) -> None:
    plain, secure = secured(secagg=False, aggregator=aggregator()), secured(aggregator=aggregator())
    first = told(secure.aggregator())
    for round_ in range(2):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), 2)
    assert told(secure.aggregator()) == pytest.approx(told(plain.aggregator()), abs=1e-6)
    assert told(secure.aggregator()) != pytest.approx(first, abs=1e-3)
    assert all("told" not in reply for reply in secure.training_replies()[0])


@pytest.mark.parametrize("aggregator", [FedBN, FedPer(private=["2"])], ids=["FedBN", "FedPer"])
def test_only_the_layers_that_travel_are_summed(secured: Make, aggregator: Any) -> None:
    what = {"training_plan_class": NormPlan, "node_selection_strategy": Turns, "aggregator": aggregator}
    plain, secure = secured(secagg=False, **what), secured(**{**what, "aggregator": deepcopy(aggregator)})
    for round_ in range(3):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), 4 * (round_ + 1))
    assert secure.aggregator()._trained.keys() == plain.aggregator()._trained.keys() == set(NODES)


class Recording(MemoryFileStore):
    """A researcher's way to the repository, on which masked files are looked at; some may be lost."""

    def __init__(self, files: MemoryFiles, component_id: str, lost: int = 0) -> None:
        super().__init__(files, component_id)
        self.lost = lost
        self.received: list[dict[str, Any]] = []

    def get(self, ref: FileRef, path: Path) -> None:
        if self.lost:
            self.lost -= 1
            raise FileStoreError("lost on its way")
        super().get(ref, path)
        self.received.append(Serializer.load(path))


@contextlib.contextmanager
def recording(federation: MemoryFederation, researcher: Requests) -> Iterator[tuple[Requests, Recording]]:
    """The same researcher, with such a way."""
    config = researcher.connection.config
    bus = MemoryBus(federation.broker, "researcher_test.recording", persistent=False)
    bus.connect(5)
    files = Recording(federation.files, config.id)
    with Connection(config, bus, files) as connection:
        yield Requests(connection), files


def test_what_the_researcher_receives_tells_of_no_node(federation: MemoryFederation, secured: Make, one_researcher: Requests) -> None:
    with recording(federation, one_researcher) as (requests, files):
        secure = secured(requests=requests, agg_optimizer=Optimizer(lr=1.0, modules=["scaffold-server"]), **TORCH)
        secure.run_once()
    assert len(files.received) == len(NODES)
    for content in files.received:
        assert content.keys() <= MASKED_KEYS
        assert content["vectors"].keys() == {"weights", "metrics", "aux"}
        assert content["clipped"]["aux"] == 0.0
        for vector in content["vectors"].values():  # masked, so the weight as well: a number of samples has 20 bits
            assert vector[0] > 1 << 32
        assert 0.2 < float((content["vectors"]["aux"] >> np.uint64(63)).mean()) < 0.8
    rows = secure.history[secure.history["metric"] == "TRAINING/Clipped fraction of auxiliary variables"]
    assert list(rows["value"]) == [0.0] * len(NODES)
    for reply in secure.training_replies()[0]:
        assert (reply["optim_aux_var"], reply["optimizer_args"], reply["params"]) == (None, None, None)


@pytest.mark.parametrize("lost", [0, 3])
def test_lost_nodes(
    federation: MemoryFederation, secured: Make, mood: Callable[[int, str], Path], one_researcher: Requests, lost: int
) -> None:
    # round 0: perhaps the first attempts of three nodes are lost, and masked anew. round 1: one node fails, and one is lost after its
    # upload and stays in the sum. round 2: all are there again, and each goes on from the last round in whose sum it was
    some = {"node_selection_strategy": DefaultStrategy(min_nodes=1), "aggregator": Scaffold}
    with contextlib.ExitStack() as fifth, recording(federation, one_researcher) as (requests, files):
        fifth.enter_context(federation.node(4, is_new=not (federation.root / "node_4").exists()))
        plain, secure = secured(secagg=False, **some), secured(requests=requests, secagg=SecureAggregation(timeout=30), **some)
        plain.run_once()
        files.lost = lost
        secure.run_once()
        assert len(secure.training_replies()[0]) == 5 - lost
        fails = mood(3, "fails")
        plain.run_once()
        secure.set_strategy(ActsBeforeReveal(fifth.close))
        secure.run_once()
        fails.unlink()
        with federation.node(4, is_new=False):
            secure.set_strategy(DefaultStrategy)
            for experiment in (plain, secure):
                experiment.run_once()
                assert len(experiment.training_replies()[2]) == 5
    for round_ in range(3):
        close(weights(secure, round_), weights(plain, round_), round_ + 1)
    close(secure.aggregator().global_state, plain.aggregator().global_state, 40)


@pytest.mark.parametrize("kind", ["scaffold", "optimizer"])
def test_a_resumed_experiment_goes_on_with_its_auxiliary_variables(secured: Make, one_researcher: Requests, kind: str) -> None:
    def what() -> dict[str, Any]:
        if kind == "scaffold":
            return {"aggregator": Scaffold(warm_start=True), "node_selection_strategy": Turns}
        return {"agg_optimizer": Optimizer(lr=1.0, modules=["scaffold-server"]), **TORCH}

    unbroken = secured(**what())
    broken = secured(save_breakpoints=True, secagg=SecureAggregation(aux_clipping_range=8), **what())
    unbroken.run()
    broken.run(rounds=1)
    folder = Path(broken.experimentation_path()) / "breakpoint_0000"
    resumed = Experiment.load_breakpoint(folder, requests=one_researcher, show_progress=False)
    assert resumed.secagg.aux_clipping_range == resumed.secagg.ranges.aux == 8
    old = resumed.secagg.servkey.context["session"]
    resumed.run()
    assert resumed.secagg.servkey.context["session"] != old
    for round_ in range(3):
        close(weights(resumed, round_), weights(unbroken, round_), round_ + 1)


def test_controls_that_were_known_go_to_their_nodes(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    plain, secure = secured(secagg=False, aggregator=Scaffold, round_limit=5), secured(secagg=False, aggregator=Scaffold, round_limit=5)
    for round_ in range(4):
        plain.run_once()
        secure.set_secagg(round_ > 0)
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), round_ + 1)
        close(secure.aggregator().global_state, plain.aggregator().global_state, 40)
    assert secure.aggregator().nodes_states == {}
    secure.set_secagg(False)
    secure.run_once()
    assert "begin at zero again" in caplog.text
    assert set(secure.aggregator().nodes_states) == set(NODES)


class Refusing(Scaffold):
    """Refuses the mean when it is told to."""

    is_moody = True

    def finish(self):
        if type(self).is_moody and self._summed[0]:
            raise AggregationError("not today")
        return super().finish()


def test_opened_auxiliary_variables_are_used_and_not_asked_for_again(secured: Make, mood: Callable[[int, str], Path]) -> None:
    plain, secure = secured(secagg=False, aggregator=Scaffold), secured(aggregator=Refusing())
    with pytest.raises(AggregationError, match="not today"):
        secure.run_once()
    fails = mood(2, "fails")  # if it were asked, the sum would be another one
    Refusing.is_moody = False
    secure.run_once()
    fails.unlink()
    plain.run(rounds=2)
    secure.run_once()
    for round_ in range(2):
        close(weights(secure, round_), weights(plain, round_), round_ + 1)
    Refusing.is_moody = True


class Silent(TorchLine):
    """Sends no auxiliary variables where a file says so; or some of another shape."""

    def init_dependencies(self):
        return [*super().init_dependencies(), "import pathlib", "from tests.support.declearn_plans import TorchLine"]

    def training_step(self, data, target):
        beside = pathlib.Path(self.dataset_path).parent  # noqa: F821  declared above
        if (beside / "silent").exists():
            self.optimizer().get_aux = dict
        if (beside / "odd").exists():
            self.optimizer().get_aux = lambda: {"scaffold": {"delta": 1.0, "clients": ["x"]}}
        return super().training_step(data, target)


@pytest.mark.parametrize("wrong", ["silent", "odd"])
def test_a_node_whose_auxiliary_variables_do_not_fit_is_named(secured: Make, mood: Callable[[int, str], Path], wrong: str) -> None:
    experiment = secured(agg_optimizer=Optimizer(lr=1.0, modules=["scaffold-server"]), **{**TORCH, "training_plan_class": Silent})
    before = state(experiment)
    put = mood(1, wrong)
    with pytest.raises(FedbiomedStrategyError, match=r"node_1: .*auxiliary variables of this node are (absent|optimizer/scaffold/delta)"):
        experiment.run_once()
    assert state(experiment) == before
    put.unlink()
    assert experiment.run_once() == 1


def test_ranges_of_auxiliary_variables_grow_by_themselves(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    given, own = (secured(aggregator=Scaffold, secagg=SecureAggregation(aux_clipping_range=r)) for r in (1, None))
    own.secagg._aux_clip = 0.25
    for experiment in (given, own):
        experiment.run(rounds=2)
    assert "auxiliary variables to the clipping range 0.25" in caplog.text
    assert own.secagg.ranges.aux > 0.25
    assert own.secagg.ranges.clip == given.secagg.ranges.clip == 16
    # what was cut follows in later rounds: c is the mean of the controls that the nodes keep
    plain = secured(secagg=False, aggregator=Scaffold)
    plain.run()
    own.run()
    gap = max(float((value - plain.aggregator().global_state[name]).abs().max()) for name, value in own.aggregator().global_state.items())
    assert gap < 0.25


def test_two_weightings_need_three_nodes(federation: MemoryFederation, secured: Make, mood: Callable[[int, str], Path]) -> None:
    # with two nodes, sums weighted by samples and alike would tell each update
    what = {"agg_optimizer": Optimizer(lr=1.0, modules=["scaffold-server"]), "node_selection_strategy": DefaultStrategy(min_nodes=2)}
    experiment = secured(nodes=NODES[:3], **what, **{**TORCH, "training_plan_class": Failing})
    before = state(experiment)
    put = mood(2, "fails")
    with pytest.raises(FedbiomedSecureAggregationError, match="would follow from two sums"):
        experiment.run_once()
    assert state(experiment) == before
    put.unlink()
    assert experiment.run_once() == 1
    with federation.node(5, allow_two_node_sums=True), federation.node(6, allow_two_node_sums=True):
        two = secured(nodes=["node_5", "node_6"], secagg=SecureAggregation(allow_two_nodes=True), **what, **TORCH)
        with pytest.raises(FedbiomedSecureAggregationError, match="tell the updates of 2 nodes"):
            two.run_once()
        alike = secured(nodes=["node_5", "node_6"], secagg=SecureAggregation(allow_two_nodes=True, count_alike=True), **what, **TORCH)
        assert alike.run_once() == 1


class Alike(DefaultStrategy):
    """Lets all nodes count alike."""

    def accept(self, reply):
        return 1.0


def test_nodes_may_count_alike(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    def what() -> dict[str, Any]:
        return {"agg_optimizer": Optimizer(lr=1.0, modules=["scaffold-server"]), **TORCH}

    plain = secured(secagg=False, node_selection_strategy=Alike, **what())
    secure, twice = secured(secagg=SecureAggregation(count_alike=True), **what()), secured(**what())
    twice.run(rounds=2)
    assert caplog.text.count("count_alike=True") == 1
    caplog.clear()
    for round_ in range(2):
        plain.run_once()
        secure.run_once()
        close(weights(secure, round_), weights(plain, round_), 4 * (round_ + 1))
    mixed = secured(secagg=SecureAggregation(count_alike=True), aggregator=FedProx(adaptive=True), **what())
    assert "count_alike" not in caplog.text
    assert mixed.run_once() == 1  # two sources of auxiliary variables, of one weighting


class Failing(TorchLine):
    """Fails where a file says so."""

    def init_dependencies(self):
        return [*super().init_dependencies(), "import pathlib", "from tests.support.declearn_plans import TorchLine"]

    def training_step(self, data, target):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821  declared above
            raise ValueError("in a bad mood")
        return super().training_step(data, target)
