"""What a node keeps of an optimizer between rounds."""

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedNodeStateManagerError, FedbiomedRoundError
from fedbiomed.common.serializer import Serializer
from fedbiomed.node.round import PlanCache, Round
from fedbiomed.node.state import NodeStates, StateFile
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.experiment import Experiment
from tests.support.declearn_plans import TorchLine
from tests.support.declearn_vectors import NumpyVector
from tests.support.memory_federation import TAGS, memory_federation
from tests.support.tasks import round_task

PLAN = b"""
import pandas as pd
import torch
import torch.nn as nn
from fedbiomed.common.training_plans import TorchTrainingPlan
from fedbiomed.common.data import DataManager
from fedbiomed.common.optimizers import Optimizer
class LinePlan(TorchTrainingPlan):
    def init_model(self):
        return nn.Linear(1, 1)
    def init_optimizer(self, optimizer_args):
        if 'modules' not in optimizer_args:
            return torch.optim.SGD(self.model().parameters(), lr=0.1)
        return Optimizer(lr=0.1, modules=optimizer_args['modules'])
    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[['x']].to_numpy(), target=table[['y']].to_numpy())
    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()
"""


def run(folder, modules=None, **changes):
    folder.mkdir(exist_ok=True)
    optimizer_args = {} if modules is None else {"modules": modules}
    args = {"num_updates": 1, "loader_args": {"batch_size": 8}, "random_seed": 1, "optimizer_args": optimizer_args}
    task = round_task(folder, training_args=args, **changes)
    return Round(task, PlanCache(PLAN), lambda _report: None).run(), task


def weight(task):
    return Serializer.load(task.result)["model_weights"]["weight"].item()


def gradient(a, b):
    x = np.arange(8) / 8
    return (2 * (a * x + b - 2 * x - 1) * x).mean()


def test_momentum_goes_on_where_it_was(tmp_path):
    first, task = run(tmp_path / "0", ["momentum"])
    assert first.optimizer_type == "DeclearnOptimizer"
    assert Serializer.load(task.state).keys() == {"optimizer_type", "state"}
    second, task = run(tmp_path / "1", ["momentum"], former_state=task.state)
    # both rounds start at a = b = 0: v = 0.9 g + g
    assert weight(task) == pytest.approx(-0.1 * 1.9 * gradient(0, 0), rel=1e-5)
    assert second.msg == ""
    _, task = run(tmp_path / "2", ["momentum"])
    assert weight(task) == pytest.approx(-0.1 * gradient(0, 0), rel=1e-5)


def test_a_native_optimizer_has_none(tmp_path):
    result, _ = run(tmp_path)
    assert result.optimizer_type is None
    assert not (tmp_path / "state.mpk").exists()


@pytest.mark.parametrize("what", ["other", "type", "broken", "gone", "shape", "form"])
def test_a_state_that_does_not_fit_is_told_and_left_out(tmp_path, what):
    former = tmp_path / "former.mpk"
    _, task = run(tmp_path / "0", ["momentum"])
    content = Serializer.load(task.state)
    contents = {
        "type": {**content, "optimizer_type": "NativeTorchOptimizer"},
        "shape": {**content, "state": {**content["state"], "states": _with_velocity(content, NumpyVector({"weight": np.ones((1, 3))}))}},
        "form": [1],
        "other": content,
    }
    if what == "broken":
        former.write_bytes(b"\xc1")
    elif what != "gone":
        Serializer.dump(contents[what], former)
    modules = ["rmsprop"] if what == "other" else ["momentum"]
    result, task = run(tmp_path / "1", modules, former_state=str(former))
    assert "begins anew" in result.msg
    _, fresh = run(tmp_path / "2", modules)
    assert weight(task) == weight(fresh)


def _with_velocity(content, vector):
    return {**content["state"]["states"], "modules": [("momentum", {"velocity": vector})]}


def test_a_state_for_a_native_optimizer_is_told(tmp_path):
    _, task = run(tmp_path / "0", ["momentum"])
    result, _ = run(tmp_path / "1", former_state=task.state)
    assert "the plan has a NativeTorchOptimizer" in result.msg


def test_auxiliary_variables_come_and_go(tmp_path):
    shared, own = tmp_path / "shared.mpk", tmp_path / "own.mpk"
    Serializer.dump(
        {"scaffold": {"state": NumpyVector({"weight": np.full((1, 1), 0.5, np.float32), "bias": np.zeros(1, np.float32)})}}, shared
    )
    Serializer.dump({}, own)
    _, task = run(tmp_path / "0", ["scaffold-client"], aux_files=[str(shared), str(own)])
    # corrected by the state (0) less the shared one (0.5)
    assert weight(task) == pytest.approx(-0.1 * (gradient(0, 0) + 0.5), rel=1e-5)
    sent = Serializer.load(task.result)["optim_aux_var"]["scaffold"]
    assert sent["delta"].coefs["weight"].item() == pytest.approx(gradient(0, 0), rel=1e-5)
    assert len(sent["clients"]) == 1
    _, task = run(tmp_path / "1", ["scaffold-client"], aux_files=[str(shared)], former_state=task.state)
    assert Serializer.load(task.result)["optim_aux_var"]["scaffold"]["clients"] == sent["clients"]


@pytest.mark.parametrize(
    ("content", "modules", "text"),
    [
        ({"scaffold": {"state": 0.0}}, None, r"for scaffold.*\(SGD\) takes none"),
        ({"scaffold": {"state": 0.0}}, ["adam"], "module 'scaffold'"),
        ({"scaffold": 3}, ["scaffold-client"], "by module"),
        ([], ["scaffold-client"], "by module"),
    ],
)
def test_auxiliary_variables_that_nobody_takes(tmp_path, content, modules, text):
    path = tmp_path / "aux.mpk"
    Serializer.dump(content, path)
    with pytest.raises(FedbiomedError, match=text):
        run(tmp_path / "0", modules, aux_files=[str(path)])


def test_a_disk_that_is_full(tmp_path):
    with pytest.raises(FedbiomedRoundError, match="state of the round to its disk"):
        run(tmp_path, ["adam"], state=str(tmp_path / "gone" / "state.mpk"))


@pytest.fixture
def store(tmp_path):
    with NodeStore(tmp_path / "node.sqlite") as made:
        yield made


def keep(states, folder, job, number, content=b"x"):
    path = folder / "left.mpk"
    path.write_bytes(content)
    states.save(f"state_{job}_{number}", job, number, StateFile("DeclearnOptimizer", path))
    assert not path.exists()


def test_files_are_kept_for_the_last_rounds_of_each_job(store, tmp_path):
    folder = tmp_path / "states"
    states = NodeStates(store, folder, now=lambda: 1000.0)
    keep(states, tmp_path, "job_a", 0)
    assert states.require("state_job_a_0", "job_a") == folder / "job_id_job_a" / "optim_state_0_state_job_a_0"
    states.save("state_plain", "job_b", 0)
    assert states.require("state_plain", "job_b") is None
    for number in range(25):
        keep(states, tmp_path, "job_b", number)
    assert len(list((folder / "job_id_job_b").iterdir())) == 20
    for gone in (0, 4):
        with pytest.raises(FedbiomedNodeStateManagerError, match="later breakpoint"):
            states.require(f"state_job_b_{gone}", "job_b")
    for kept in (5, 24):
        assert states.require(f"state_job_b_{kept}", "job_b").read_bytes() == b"x"
    assert states.require("state_plain", "job_b") is None
    assert states.require("state_job_a_0", "job_a").is_file()


def test_what_belongs_to_no_state_is_removed(store, tmp_path):
    folder, clock = tmp_path / "states", [0.0]
    states = NodeStates(store, folder, now=lambda: clock[0])
    keep(states, tmp_path, "job_a", 0)
    clock[0] = 100 * 86400.0
    keep(states, tmp_path, "job_b", 0)
    (folder / "job_id_job_b" / "orphan").write_bytes(b"x")
    clock[0] = 200 * 86400.0
    states.tidy()
    assert [path.name for path in folder.iterdir()] == ["job_id_job_b"]
    assert [path.name for path in (folder / "job_id_job_b").iterdir()] == ["optim_state_0_state_job_b_0"]
    with pytest.raises(FedbiomedNodeStateManagerError):
        states.require("state_job_a_0", "job_a")


def test_a_file_that_is_not_there_leaves_no_row(store, tmp_path):
    states = NodeStates(store, tmp_path / "states")
    with pytest.raises(FedbiomedNodeStateManagerError, match="on its disk"):
        states.save("state_1", "job_1", 0, StateFile("DeclearnOptimizer", tmp_path / "nowhere"))
    with pytest.raises(FedbiomedNodeStateManagerError, match="has no state"):
        states.require("state_1", "job_1")


def test_a_node_that_was_restarted_keeps_the_moments_of_adam(tmp_path, shared_worker):
    args = {"num_updates": 3, "loader_args": {"batch_size": 8}, "random_seed": 7, "optimizer_args": {"modules": ["adam"]}}
    with memory_federation(tmp_path, 0, shared_worker) as federation, federation.researcher(tmp_path / "researcher") as requests:

        def experiment():
            return Experiment(tags=TAGS, training_plan_class=TorchLine, training_args=args, requests=requests, show_progress=False)

        with federation.node(0):
            unbroken, stopped = experiment(), experiment()
            unbroken.run(rounds=2)
            stopped.run(rounds=1)
        kept = list((tmp_path / "node_0" / "var" / "node_state_node_0").glob("job_id_*/optim_state_*"))
        assert len(kept) == 3
        with federation.node(0, is_new=False):
            stopped.run(rounds=1)
            forgetful = experiment()
            forgetful.run(rounds=1)
            forgetful.job().node_states.load_state_breakpoint({"collection_state_ids": {}})
            forgetful.run(rounds=1)
            params = [made.aggregated_params()[1]["params"]["0.weight"].tolist() for made in (unbroken, stopped, forgetful)]
            assert params[0] == params[1] != params[2]
