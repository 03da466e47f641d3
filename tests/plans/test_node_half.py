"""The hooks of a node's half, called as one."""

import math

import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.corrections.correction import Correction, Step, Tools
from fedbiomed.common.training_plans.node_half import NodeHalf
from fedbiomed.common.training_plans.torch_half import TorchHalf

MODULE = nn.Linear(1, 1)


class Recorder(Correction):
    """Writes down what it hears, keeps a number, holds back a name, and tells numbers."""

    keeps_state = True

    def __init__(self, told=None):
        self.heard, self.told, self.state = [], told or {}, 0

    def take_kept(self, state):
        self.state = state["n"]

    def arriving(self, params):
        return {**params, "private": self.state}

    def begin(self, module, initial):
        self.heard.append("begin")

    def epoch_begins(self, epoch):
        self.heard.append(f"epoch {epoch}")

    def epoch_ends(self, epoch):
        self.heard.append(f"end of {epoch}")

    def step_begins(self, step):
        self.heard.append(step.number)

    def step_done(self, step, loss):
        self.heard.append(-step.number)

    def end(self):
        self.heard.append("end")

    def kept(self):
        return {"n": self.state + 1}

    def leaving(self, params):
        return {name: value for name, value in params.items() if name != "private"}

    def tells(self):
        return self.told


def trained(half, epochs):
    half.begin(MODULE, {}, Tools(lambda data, target: torch.tensor(0.0), lambda: None, lambda name: None))
    for number, epoch in enumerate(epochs, 1):
        step = Step(None, None, number, epoch)
        half.step_begins(step)
        half.step_done(step, torch.tensor(0.0))
    half.end()


def test_epochs_and_steps_are_heard_in_their_order():
    recorder = Recorder()
    trained(TorchHalf([recorder]), [1, 1, 2])
    assert recorder.heard == ["begin", "epoch 1", 1, -1, 2, -2, "end of 1", "epoch 2", 3, -3, "end of 2", "end"]


def test_what_is_kept_goes_by_the_name_of_the_file():
    recorder = Recorder()
    half, name = TorchHalf([recorder]), __name__.rpartition(".")[2]
    assert half.keeps_state
    half.take_kept({"other": {"n": 7}})
    assert half.kept() == {name: {"n": 1}}
    half.take_kept({name: {"n": 7}, "other": {}})
    assert half.kept() == {name: {"n": 8}}


def test_a_name_that_stays_does_not_leave():
    half = TorchHalf([Recorder()])
    assert half.arriving({"w": 1}) == {"w": 1, "private": 0}
    assert half.leaving({"w": 1, "private": 0}) == {"w": 1}


@pytest.mark.parametrize(
    "told", [{"x": math.inf}, {"x": "1"}, {"x": True}, {str(n): 1.0 for n in range(65)}], ids=["infinite", "text", "bool", "many"]
)
def test_only_a_few_finite_numbers_are_told(told):
    with pytest.raises(FedbiomedTrainingPlanError, match="for the reply"):
        TorchHalf([Recorder(told)]).tells()
    assert TorchHalf([Recorder({"x": 1})]).tells() == {"x": 1.0}


@pytest.mark.parametrize("half", [NodeHalf(), TorchHalf([]), TorchHalf([Correction()])])
def test_a_half_that_does_nothing_leaves_everything_as_it_is(half):
    assert not half.keeps_state
    assert half.arriving({"w": 1}) == half.leaving({"w": 1}) == {"w": 1}
    assert half.kept() == half.tells() == {}
    assert half.personal(MODULE) is None
