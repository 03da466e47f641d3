"""Moments on their way into the aggregate, and the event that ends a SWAG round; numbers of the contract."""

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import AggregationError, FedbiomedBreakpointError, FedbiomedTrainerError, FedbiomedUserInputError
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.aggregators import FedAverage
from fedbiomed.researcher.events import SWAGRoundFinished, SWAGTrainer
from fedbiomed.researcher.responses import TrainingReply
from fedbiomed.researcher.server_optimizer import AuxTotal
from fedbiomed.researcher.strategies import DefaultStrategy
from fedbiomed.researcher.swag_updates import require_equal_counts

SMALL = ("a", 10, {"w": [1.0, 2.0]}, {"w": [2.0, 5.0]})
LARGE = ("b", 30, {"w": [3.0, 6.0]}, {"w": [10.0, 37.0]})


@pytest.fixture
def told(tmp_path):
    """Replies as they come from nodes, from files."""

    def tell(node, size, first, second, *, again="", params=None):
        path = tmp_path / f"{node}{again}.mpk"
        sent = {part: {n: torch.tensor(v) for n, v in m.items()} for part, m in (("first", first), ("second", second)) if m is not None}
        weights = {name: torch.zeros(len(value)) for name, value in first.items()} if params is None else params
        content = {"model_weights": weights, "optim_aux_var": {}, "sent": {"swag": {**sent, "snapshots": 3}}}
        Serializer.dump(content, path)
        return TrainingReply({"success": True, "node_id": node, "sample_size": size, "params_path": str(path), "msg": ""})

    return tell


def gathered(*replies, trainer=None):
    updates = (trainer or SWAGTrainer()).updates(0, ["a", "b"], DefaultStrategy(), FedAverage(), AuxTotal(None))
    for reply in replies:
        updates.add(reply)
    return updates


def test_the_example_of_the_contract(told):
    moments = gathered(told(*SMALL), told(*LARGE)).moments()
    assert (moments.first["w"].tolist(), moments.second["w"].tolist()) == ([2.5, 5.0], [8.0, 29.0])


def test_vectors_without_names():
    assert SWAGRoundFinished._aggregate_param_vectors([[1, 2], [3, 6]], [10, 30]).tolist() == [2.5, 5.0]
    assert SWAGRoundFinished._aggregate_param_vectors([[2, 5], [10, 37]], [10, 30]).tolist() == [8.0, 29.0]


def test_the_second_of_two_replies_is_left_out(told, caplog):
    updates = gathered(told(*SMALL), told("a", 10, {"w": [7.0, 7.0]}, {"w": [49.0, 49.0]}, again="2"), told(*LARGE))
    assert updates.moments().first["w"].tolist() == [2.5, 5.0]
    assert "a second one" in caplog.text


def test_one_of_two_twice_is_not_two(told):
    updates = gathered(told(*SMALL), told(*SMALL, again="2"))
    assert updates.good == ["a"], "the other one is still waited for"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"v": [1.0, 2.0]}, {"v": [1.0, 2.0]}, "other names than those of a"),
        ({"w": [1.0]}, {"w": [1.0]}, r"has shape \(1,\), that of a has \(2,\)"),
        ({"w": [1.0, 2.0]}, {"w": [1.0]}, "has shape"),
        ({"w": [1.0, float("nan")]}, {"w": [1.0, 2.0]}, "NaN"),
        ({"w": [1.0, 1.0]}, {"w": [1.0, -2.0]}, "negative squares"),
    ],
)
def test_moments_that_do_not_fit_leave_their_node_out(told, first, second, said):
    updates = gathered(told(*SMALL), told("b", 30, first, second))
    assert updates.good == ["a"]
    with pytest.raises(AggregationError, match=said):
        raise AggregationError(updates._refused["b"])
    assert updates.moments().first["w"].tolist() == [1.0, 2.0], "what was refused changed nothing"


def test_moments_of_what_a_node_did_not_send_leave_it_out(told):
    for params in ({"v": np.zeros(2)}, {"w": np.zeros(3)}):
        assert "no parameters of such a name and shape: w" in gathered(told(*SMALL, params=params))._refused["a"]


def test_first_and_second_moments_of_one_node_must_fit(told):
    updates = gathered(told("a", 1, {"w": [1.0]}, {"v": [1.0]}))
    assert "differ in names or shapes" in updates._refused["a"]


@pytest.mark.parametrize("counts", [(2, 2, 1), (2, 1, 1), (3, 2, 1), (1, 2, 2), (2, 2, 3), (1, 1, 1), (0, 0, 0)])
def test_counts_that_differ_are_refused(counts):
    givers = {what: ["a", "b", "c"][:count] for what, count in zip(("firsts", "seconds", "sizes"), counts, strict=True)}
    with pytest.raises(AggregationError, match=f"{counts[0]} firsts, {counts[1]} seconds, {counts[2]} sizes of 2 nodes"):
        require_equal_counts(4, ["a", "b"], givers)
    require_equal_counts(4, ["a", "b"], {what: ["b", "a"] for what in givers})
    with pytest.raises(AggregationError, match="of 0 nodes"):
        require_equal_counts(4, [], {what: [] for what in givers})


def test_a_missing_part_is_a_state_and_a_typed_error(told):
    class Given(SWAGTrainer):
        def take_moments(self):
            return updates

    trainer = Given()
    updates = gathered(told(*SMALL), told("b", 30, {"w": [1.0, 1.0]}, None))
    with pytest.raises(FedbiomedTrainerError, match=r"2 first moments, 1 second moments, 2 sample sizes of 2 nodes \(b: no second"):
        SWAGRoundFinished(trainer).handle()
    assert trainer.training.state == "error"
    assert trainer.moments is None


def test_the_event_without_a_round():
    trainer = SWAGTrainer()
    with pytest.raises(FedbiomedTrainerError, match="no moments were gathered after 0 rounds"):
        SWAGRoundFinished(trainer).handle()
    trainer.training.target = 2
    SWAGRoundFinished(trainer).next()
    assert (trainer.training.state, trainer.training.step) == ("ongoing", "model test")


def test_options_are_checked_and_kept():
    with pytest.raises(FedbiomedUserInputError, match="unit of SWAG must be one of steps, epochs"):
        SWAGTrainer(unit="days")
    trainer, other = SWAGTrainer(3, 2, "epochs", 5, 4, skip_model_tests=True), SWAGTrainer()
    other.load_state_breakpoint(trainer.save_state_breakpoint(), 1)
    assert repr(other) == repr(trainer).replace("0 rounds", "1 rounds")
    assert (other.schedule.every, other.schedule.unit, other.options.skip_model_tests) == (2, "epochs", True)
    state = trainer.save_state_breakpoint()
    with pytest.raises(FedbiomedBreakpointError, match="moments of SWAG cannot be read"):
        other.load_state_breakpoint({**state, "moments": {"path": "/none", "nodes": [], "sample_sizes": [], "round": 0}}, 1)
    with pytest.raises(FedbiomedBreakpointError, match="malformed"):
        other.load_state_breakpoint({**state, "parameters": {}}, 1)
