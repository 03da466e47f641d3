"""Begin with the parameters of another model."""

import logging

import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError
from fedbiomed.common.models import warm_up


def network(outputs):
    return nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), "head": nn.Linear(3, outputs)})


def test_entries_of_equal_size_are_copied_and_counted(caplog):
    model, other = network(2), network(5)
    before = model["head"].weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        assert warm_up(model, other) == 4
    assert torch.equal(model["body"][1].weight, other["body"][1].weight)
    assert torch.equal(model["head"].weight, before)
    assert "head.weight stays: its shape is (2, 3), that of head.weight is (5, 3)" in caplog.text


def test_the_shortest_mapped_prefix_decides():
    model, other = network(3), nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), "b": nn.Linear(3, 3)})
    before = model["head"].weight.detach().clone()
    # `body` is shorter than `body.1`, so body.1.weight comes from a.1, not from b; head is not mapped
    assert warm_up(model, other, {"body.1": "b", "body": "a"}) == 4
    assert torch.equal(model["body"][1].weight, other["a"][1].weight)
    assert torch.equal(model["head"].weight, before)


def test_a_prefix_ends_at_a_dot_and_one_entry_may_be_mapped():
    model = nn.ModuleDict({"fc": nn.Linear(1, 1), "fc2": nn.Linear(1, 1)})
    assert warm_up(model, {"x.weight": [[7.0]], "x.bias": [1.0]}, {"fc": "x"}) == 2
    assert warm_up(model, {"x.weight": [[9.0]]}, {"fc2.bias": "x.weight", "fc2.weight": "x.weight"}) == 1
    assert (model["fc"].weight.item(), model["fc2"].weight.item()) == (7.0, 9.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, {"w": 1}), "not a dict"),
        ((nn.Linear(1, 1), 3), "not a int"),
        ((nn.Linear(1, 1), nn.Linear(1, 1), {"wait": "weight"}), "'wait', which is no entry or prefix of the model"),
        ((nn.Linear(1, 1), nn.Linear(1, 1), {"weight": "wait"}), "'wait', which is no entry or prefix of the pretrained one"),
        ((nn.Linear(1, 1), nn.Linear(1, 1), {"weight": 3}), "mapping must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(FedbiomedModelError, match=message):
        warm_up(*arguments)


def test_a_mean_of_counts_is_rounded():
    model = nn.BatchNorm1d(1)
    assert warm_up(model, {"num_batches_tracked": torch.tensor(37.8)}) == 1
    assert model.num_batches_tracked.item() == 38
