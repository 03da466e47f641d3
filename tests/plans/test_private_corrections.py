"""The nodes' halves with private layers, by hand: what arrives, leaves and is kept; phases to the bit; contrastive terms."""

import math

import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.models import FendaModel
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections import fedper, fedrep, fenda, perfcl
from fedbiomed.common.training_plans.corrections.correction import Step

ARGS = TrainingArgs({"num_updates": 1}, only_required=False)
PERFCL = {"aggregator_name": "PerFCL", "shared_layers": ["global_extractor"], "temperature": 0.5, "global_weight": 1.0, "local_weight": 1.0}


def model():
    torch.manual_seed(3)
    return nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "head": nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))}
    )


def as_bytes(module, part):
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items() if name.startswith(part)}


# --- what arrives, leaves and is kept


def test_own_layers_go_before_the_initial_ones_and_those_before_what_came():
    came = {"a.w": torch.tensor(1.0), "b.w": torch.tensor(2.0)}
    new = fedper.correction(ARGS, {"private_layers": ["b"], "initial_private": {"b.w": torch.tensor(3.0), "a.w": torch.tensor(9.0)}})
    assert {name: value.item() for name, value in new.arriving(came).items()} == {"a.w": 1.0, "b.w": 3.0}
    new.take_kept({"private": {"b.w": torch.tensor(4.0), "a.w": torch.tensor(9.0)}})
    assert {name: value.item() for name, value in new.arriving({"a.w": came["a.w"]}).items()} == {"a.w": 1.0, "b.w": 4.0}
    assert list(new.leaving(came)) == ["a.w"]


def test_names_are_those_of_layers_not_of_their_beginnings():
    params = dict.fromkeys(["head.weight", "header.weight", "head2", "base.head.weight"], 0)
    assert list(fedper.correction(ARGS, {"private_layers": ["head"]}).leaving(params)) == ["header.weight", "head2", "base.head.weight"]
    assert list(fenda.correction(ARGS, {"shared_layers": ["head"]}).leaving(params)) == ["head.weight"]


def test_parameters_and_buffers_of_private_layers_are_kept():
    correction, module = fedper.correction(ARGS, {"private_layers": ["head"]}), model()
    correction.begin(module, {})
    kept = correction.kept()["private"]
    assert kept.keys() == {name for name in module.state_dict() if name.startswith("head")}
    module["head"][0].weight.data.zero_()
    assert kept["head.0.weight"].any(), "a copy"


@pytest.mark.parametrize("args", [{}, {"private_layers": "head"}, {"private_layers": ["a"], "shared_layers": ["b"]}])
def test_names_are_needed(args):
    with pytest.raises(FedbiomedTrainingPlanError, match="FedPer needs the names of its layers"):
        fedper.correction(ARGS, args)


def test_a_state_without_private_layers_is_refused():
    with pytest.raises(FedbiomedTrainingPlanError, match="has no private layers"):
        fedper.correction(ARGS, {"private_layers": ["a"]}).take_kept({"private": {"a": "b"}})


# --- phases


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize(("head_steps", "still", "moved"), [(3, "body", "head"), (0, "head", "body")])
def test_one_part_stays_to_the_bit_while_the_other_is_trained(optimizer, head_steps, still, moved):
    module = model()
    kinds = {"SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, "AdamW": {"lr": 0.1}}
    stepper = getattr(torch.optim, optimizer)(module.parameters(), **kinds[optimizer])
    correction = fedrep.correction(ARGS, {"private_layers": ["head"], "head_steps": head_steps})
    module.train()
    correction.begin(module, {})
    stays, moves = as_bytes(module, still), as_bytes(module, moved)
    for number in range(1, 4):
        step = Step(torch.arange(8.0).reshape(4, 2) * number, None, number, 1)
        correction.step_begins(step)
        stepper.zero_grad()
        loss = (module["head"](module["body"](step.data)) ** 2).mean() + module["head"][0].weight.sum()
        loss.backward()
        correction.correct_gradients()
        stepper.step()
        correction.step_done(step, loss)
        assert as_bytes(module, still) == stays
    assert all(parameter.requires_grad for parameter in module.parameters())
    after = as_bytes(module, moved)
    assert all(after[name] != value for name, value in moves.items() if name.endswith(("weight", "running_mean")))


def test_steps_are_needed():
    with pytest.raises(FedbiomedTrainingPlanError, match="FedRep needs head_steps, an integer of 0 or more, not None"):
        fedrep.correction(ARGS, {"private_layers": ["head"]})


# --- two extractors


class Fixed(nn.Module):
    """Gives the same features for every sample."""

    def __init__(self, *features):
        super().__init__()
        self.features = nn.Parameter(torch.tensor(features))

    def forward(self, data):
        return self.features.expand(len(data), -1)


def test_features_are_flattened_where_that_is_asked():
    local, global_ = nn.Unflatten(1, (2, 3)), nn.Identity()
    data = torch.arange(12.0).reshape(2, 6)
    assert FendaModel(local, global_, nn.Identity(), flatten_features=True)(data).shape == (2, 12)
    assert FendaModel(local, local, nn.Identity())(data).shape == (2, 4, 3)


def contrasted(global_before, global_now, local_before, local_now, *, old_global, weights=(1.0, 1.0)):
    """The loss added to 0, after a round before in which the global extractor ended with `old_global`."""
    module = FendaModel(Fixed(*local_before), Fixed(*global_before), nn.Identity())
    correction = perfcl.correction(ARGS, {**PERFCL, "global_weight": weights[0], "local_weight": weights[1]})
    if old_global is not None:
        correction.take_kept({"private": {}, "old_global": {"features": torch.tensor(old_global)}})
    module.train()
    correction.begin(module, {})
    module.global_extractor.features.data, module.local_extractor.features.data = torch.tensor(global_now), torch.tensor(local_now)
    correction.step_begins(Step(torch.zeros(3, 1), None, 1, 1))
    module(torch.zeros(3, 1))
    loss = correction.corrected_loss(torch.zeros(()))
    correction.end()
    return loss, module, correction


X, Y = (1.0, 0.0), (0.0, 1.0)
NEAR = -math.log(math.e**2 / (math.e**2 + 1))  # cosines 1 and 0, T 0.5: 0.12693
FAR = -math.log(1 / (1 + math.e**2))  # cosines 0 and 1


@pytest.mark.parametrize(
    ("global_now", "old_global", "local_before", "local_now", "expected"),
    [
        (X, Y, Y, Y, 2 * NEAR),  # global at its initial X, away from the old Y; local at its old Y, away from the initial X
        (Y, Y, Y, Y, FAR + NEAR),  # global went to the old one
        (X, Y, Y, X, NEAR + FAR),  # local went to the initial global one
    ],
)
def test_positives_and_negatives(global_now, old_global, local_before, local_now, expected):
    loss, _, _ = contrasted(X, global_now, local_before, local_now, old_global=old_global)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert pytest.approx(0.12693, abs=1e-5) == NEAR


def test_each_term_has_its_weight_and_a_gradient():
    loss, module, _ = contrasted(X, Y, Y, X, old_global=Y, weights=(2.0, 0.0))
    assert loss.item() == pytest.approx(2 * FAR, rel=1e-5)
    loss.backward()
    assert module.global_extractor.features.grad.abs().sum() > 0


def test_no_term_in_the_first_round_and_the_global_extractor_is_kept():
    loss, module, correction = contrasted(X, Y, Y, X, old_global=None)
    assert loss.item() == 0
    kept = correction.kept()
    assert kept["old_global"]["features"].tolist() == list(Y)
    assert kept["private"]["local_extractor.features"].tolist() == list(X)
    assert not module.global_extractor._forward_hooks


def test_a_step_that_does_not_call_the_model_is_refused():
    module = FendaModel(Fixed(*X), Fixed(*X), nn.Identity())
    correction = perfcl.correction(ARGS, PERFCL)
    correction.take_kept({"private": {}, "old_global": {"features": torch.tensor(X)}})
    correction.begin(module, {})
    correction.step_begins(Step(None, None, 1, 1))
    with pytest.raises(FedbiomedTrainingPlanError, match=r"needs a training_step\(\) that calls the plan's FendaModel"):
        correction.corrected_loss(torch.zeros(()))


def test_a_model_of_another_form_is_refused():
    correction = perfcl.correction(ARGS, PERFCL)
    with pytest.raises(FedbiomedTrainingPlanError, match="needs a FendaModel"):
        correction.begin(nn.Linear(1, 1), {})
    correction.take_kept({"private": {}, "old_global": {"other": torch.tensor(X)}})
    with pytest.raises(FedbiomedTrainingPlanError, match="global extractor that this node kept is not of the plan's form"):
        correction.begin(FendaModel(Fixed(*X), Fixed(*X), nn.Identity()), {})
