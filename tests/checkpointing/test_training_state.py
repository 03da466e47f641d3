"""Going on after a restart equals the unbroken run to the bit; snapshots of objects."""

import random
import subprocess
import sys
from enum import Enum

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.checkpointing import ClientCheckpointAndStateModule, PerRoundStateCheckpointer, TrainingState
from fedbiomed.common.checkpointing.snapshot import restored_attributes, snapshot_attributes
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedValueError, FedbiomedVersionError
from fedbiomed.common.serializer import Serializer
from tests.support.step_training import make, train


def content(state):
    return Serializer.dumps(state.snapshot())


def test_a_new_process_goes_on_to_the_bit(tmp_path):
    unbroken = {}
    for before in (1, 4):
        state, folder = make(seed=7), tmp_path / str(before)
        folder.mkdir()
        train(state, before)
        state.save(folder / "state.mpk")
        train(state, 5)
        assert state.counters["total_steps"] == before + 5
        unbroken[folder] = content(state)
    subprocess.run([sys.executable, "-m", "tests.support.step_training", *map(str, unbroken)], check=True, timeout=120)
    for folder, expected in unbroken.items():
        assert Serializer.dumps(Serializer.load(folder / "end.mpk")["state"]) == expected


def test_the_learning_rate_goes_on_falling():
    parameter = [nn.Parameter(torch.zeros(1))]

    def made():
        optimizer = torch.optim.SGD(parameter, lr=1.0)
        return TrainingState(optimizers=optimizer, schedulers=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))

    first = made()
    for _ in range(3):
        first.optimizers.step()
        first.schedulers.step()
    second = made()
    second.restore(first.snapshot())
    assert second.optimizers.param_groups[0]["lr"] == 0.125
    second.optimizers.step()
    second.schedulers.step()
    assert second.optimizers.param_groups[0]["lr"] == 0.0625


@pytest.mark.parametrize(
    "kind",
    [
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 2, 4]),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=9),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.ConstantLR(o), torch.optim.lr_scheduler.MultiStepLR(o, [1])], [2]
        ),
    ],
)
def test_schedulers_of_all_kinds(kind):
    def made():
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        return TrainingState(optimizers=[optimizer], schedulers=kind(optimizer))

    def rates(state, steps):
        found = []
        for _ in range(steps):
            state.optimizers[0].step()
            state.schedulers.step()
            found.append(state.optimizers[0].param_groups[0]["lr"])
        return found

    first, second = made(), made()
    rates(first, 3)
    second.restore(Serializer.loads(Serializer.dumps(first.snapshot())))
    assert rates(second, 4) == rates(first, 4)


def test_own_generators_go_on():
    first = TrainingState(generators={"loader": torch.Generator().manual_seed(1), "rows": np.random.default_rng(1)}, with_random=False)
    torch.rand(3, generator=first.generators["loader"])
    first.generators["rows"].random(3)
    second = TrainingState(generators={"loader": torch.Generator(), "rows": np.random.default_rng(5)}, with_random=False)
    second.restore(first.snapshot())
    for state in (first, second):
        state.drawn = torch.rand(2, generator=state.generators["loader"]).tolist() + state.generators["rows"].random(2).tolist()
    assert first.drawn == second.drawn


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: TrainingState(model=nn.Linear(2, 2)), "shape"),
        (lambda: TrainingState(model=nn.Linear(2, 1)), "kind"),
        (
            lambda: TrainingState(model=nn.Linear(2, 1), optimizers=torch.optim.Adam([nn.Parameter(torch.zeros(5))])),
            "belongs to parameters",
        ),
        (lambda: TrainingState(model=nn.Linear(2, 1), optimizers=torch.optim.SGD(nn.Linear(2, 1).parameters())), "another optimizer"),
    ],
)
def test_what_does_not_fit_changes_nothing(other, words):
    net = nn.Linear(2, 1)
    state = TrainingState(model=net, optimizers=torch.optim.Adam(net.parameters())).snapshot()
    stranger = other()
    random.random()
    before = content(stranger)
    with pytest.raises(FedbiomedCheckpointError, match=words):
        stranger.restore(state)
    assert content(stranger) == before


@pytest.mark.parametrize("wrong", [None, {}, {"random": {}}, {"random": {"python": (1, 2), "numpy": 3}}])
def test_nonsense_is_refused(wrong):
    before = random.getstate()
    with pytest.raises(FedbiomedCheckpointError):
        TrainingState().restore(wrong)
    assert random.getstate() == before


def test_files_of_training_states(tmp_path):
    state = TrainingState(counters={"total_steps": 3})
    with pytest.raises(FedbiomedCheckpointError, match="no checkpoint"):
        state.load(tmp_path / "state.mpk")
    state.save(tmp_path / "state.mpk")
    fresh = TrainingState(counters={"total_steps": 0})
    fresh.load(tmp_path / "state.mpk")
    assert fresh.counters == {"total_steps": 3}
    Serializer.dump({"checkpoint_version": "2", "kind": "training"}, tmp_path / "state.mpk")
    with pytest.raises(FedbiomedVersionError):
        fresh.load(tmp_path / "state.mpk")


class Colour(Enum):
    RED = 1
    BLUE = 2


class Worker:
    """Something whose attributes are kept."""

    def __init__(self):
        self.net = nn.Linear(1, 1)
        self.nets = {"a": nn.Linear(1, 1)}
        self.total_steps = 0
        self.losses = [0.5]
        self.colour = Colour.RED


NAMES = ("net", "nets", "total_steps", "losses", "colour")


def test_attributes_of_an_object(tmp_path):
    module = ClientCheckpointAndStateModule(state_checkpointer=PerRoundStateCheckpointer(tmp_path, NAMES))
    first, second = Worker(), Worker()
    assert not module.maybe_load_object("worker", second)
    first.total_steps, first.losses, first.colour = 20, [0.5, 0.25], Colour.BLUE
    module.save_object("worker", first)
    own = second.net
    assert module.maybe_load_object("worker", second)
    assert (second.total_steps, second.losses, second.colour) == (20, [0.5, 0.25], Colour.BLUE)
    assert second.net is own
    assert torch.equal(second.net.weight, first.net.weight)
    assert torch.equal(second.nets["a"].weight, first.nets["a"].weight)
    with pytest.raises(FedbiomedValueError, match="no attribute"):
        module.save_object("worker", first, [])
    with pytest.raises(ValueError, match="no state checkpointer"):
        ClientCheckpointAndStateModule().save_object("worker", first, NAMES)


def test_attributes_that_do_not_fit():
    first, second = Worker(), Worker()
    with pytest.raises(FedbiomedCheckpointError, match="no attribute"):
        snapshot_attributes(first, ["nothing"])
    first.losses = [object()]
    with pytest.raises(FedbiomedCheckpointError, match="losses is a object"):
        snapshot_attributes(first, NAMES)
    state = snapshot_attributes(second, NAMES)
    weight = second.net.weight.detach().clone()
    for wrong in ({**state, "colour": {"kind": "enum", "value": "GREEN"}}, {**state, "nets": {"kind": "objects", "value": {}}}, {}):
        with pytest.raises(FedbiomedCheckpointError):
            restored_attributes(second, NAMES, wrong)
    assert torch.equal(second.net.weight, weight)
