"""What leaves a node where only a part of the model is sent: corrections on tensors, by hand."""

import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections import dynamiclayers, sparseexchange

ARGS = TrainingArgs({"num_updates": 1}, only_required=False)
ARRIVED = {"a": torch.zeros(4), "b": torch.zeros(1), "c": torch.zeros(2)}
# norms 4, 3, 1; by the number of elements 1, 3, 0.5
TRAINED = {"a": torch.full((4,), 2.0), "b": torch.tensor([3.0]), "c": torch.tensor([1.0, 0.0])}


def left(settings, arrived=ARRIVED, trained=TRAINED):
    made = dynamiclayers.correction(ARGS, settings)
    made.arriving(arrived)
    return sorted(made.leaving(trained))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"exchange_percentage": 0.34}, ["a", "b"]),  # ceil(1.02) = 2
        ({"exchange_percentage": 0.33}, ["b"]),
        ({"exchange_percentage": 0.33, "normalize": False}, ["a"]),
        ({"exchange_percentage": 0.33, "select_drift_more": False}, ["c"]),
        ({"exchange_percentage": 1.0}, ["a", "b", "c"]),
        ({"norm_threshold": 1.0}, ["b"]),
        ({"norm_threshold": 1.0, "select_drift_more": False}, ["a", "c"]),
        ({"norm_threshold": 2.0, "normalize": False}, ["a", "b"]),
        ({"norm_threshold": 9.0}, []),
    ],
)
def test_the_layers_that_drifted_leave(settings, names):
    assert left(settings) == names


def test_drift_that_cannot_be_told():
    with pytest.raises(FedbiomedTrainingPlanError, match="the drift of 'b': it is none of those which came"):
        left({"exchange_percentage": 1.0}, {"a": torch.zeros(4)})
    with pytest.raises(FedbiomedTrainingPlanError, match=r"the drift of 'a': it has the shape \(4,\), not the \(3,\) of that which came"):
        left({"exchange_percentage": 1.0}, {**ARRIVED, "a": torch.zeros(3)})
    with pytest.raises(FedbiomedTrainingPlanError, match="'c' holds NaN"):
        left({"exchange_percentage": 1.0}, trained={**TRAINED, "c": torch.tensor([0.0, float("nan")])})
    with pytest.raises(FedbiomedTrainingPlanError, match="needs exchange_percentage or norm_threshold"):
        left({})


@pytest.mark.parametrize(
    "wrong",
    [
        {"exchange_percentage": "x"},
        {"exchange_percentage": -0.5},
        {"exchange_percentage": 5.0},
        {"norm_threshold": [1]},
        {"norm_threshold": -1.0},
        {"norm_threshold": 1.0, "normalize": "no"},
        {"norm_threshold": 1.0, "select_drift_more": None},
    ],
)
def test_settings_out_of_their_range_are_refused(wrong):
    with pytest.raises(FedbiomedTrainingPlanError, match=f"DynamicLayers must send '{list(wrong)[-1]}'"):
        left({"aggregator_name": "DynamicLayers", **wrong})


class Pair(nn.Module):
    """Two parameters and a buffer."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 1))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("still", torch.tensor(1.0))


BEGUN = {"u": torch.tensor([1.0, -4.0, 2.0]), "v": torch.tensor([[3.0], [0.0]]), "count": torch.tensor(0), "still": torch.tensor(1.0)}
# changes (0.5, 1, 2), (0, 4); sizes before (1, 4, 2), (3, 0), after (1.5, 3, 4), (3, 4)
ENDED = {"u": torch.tensor([1.5, -3.0, 4.0]), "v": torch.tensor([[3.0], [-4.0]]), "count": torch.tensor(5), "still": torch.tensor(1.0)}


def chosen(share, score, ended=ENDED):
    made = sparseexchange.correction(ARGS, {"share": share, "score": score})
    made.arriving(BEGUN)
    made.begin(Pair(), {})
    return made.leaving(ended)


@pytest.mark.parametrize(
    ("score", "u", "v"),
    [
        ("movement", [2], [1]),  # 2 and 4
        ("magnitude_increase", [2], [1]),  # (0.5, -1, 2), (0, 4)
        ("large_final", [2], [1]),  # 4 and 4
        ("small_final", [0, 1], []),  # 1.5, and the first 3 of two
        ("large_init", [1], [0]),  # 4 and 3
        ("small_init", [0], [1]),  # 1 and 0
        ("large_init_large_final", [1], [0]),  # (1, 3, 2), (3, 0)
        ("small_init_small_final", [0], [0]),  # (1.5, 4, 4), (3, 4)
    ],
)
def test_the_top_scored_entries_leave(score, u, v):
    sent = chosen(0.4, score)  # 2 of 5
    for name, places in (("u", u), ("v", v)):
        found = sent.get(name, {"indices": torch.tensor([]), "values": torch.tensor([])})
        assert found["indices"].tolist() == places
        assert found["values"].tolist() == ENDED[name].reshape(-1)[places].tolist()


def test_what_is_not_trained_leaves_whole_where_it_changed():
    sent = chosen(0.2, "movement")  # 1 of 5: the 4 in v
    assert list(sent) == ["v", "count"]
    assert sent["count"] == 5
    assert sent["v"]["indices"].dtype == torch.int32


def test_shares_are_rounded_up_and_those_that_score_alike_are_not_too_many():
    assert sum(len(chosen(0.41, "movement").get(name, {"indices": ()})["indices"]) for name in ("u", "v")) == 3
    still = {**ENDED, "u": BEGUN["u"], "v": BEGUN["v"]}
    assert chosen(0.6, "movement", still)["u"]["indices"].tolist() == [0, 1, 2]


def test_entries_that_cannot_be_scored():
    with pytest.raises(FedbiomedTrainingPlanError, match="'u' holds NaN"):
        chosen(1.0, "movement", {**ENDED, "u": torch.tensor([0.0, 1.0, float("nan")])})
    with pytest.raises(FedbiomedTrainingPlanError, match="cannot score 'w': it is none of those which came"):
        chosen(1.0, "movement", {**ENDED, "w": torch.zeros(1)})
    with pytest.raises(FedbiomedTrainingPlanError, match=r"needs share and score, found 2\.0 and 'movement'"):
        chosen(2.0, "movement")
