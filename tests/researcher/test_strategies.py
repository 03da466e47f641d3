"""Who is asked, whose reply counts, and what is said when there are not enough."""

import json
from dataclasses import dataclass, field

import pytest

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.common.plugins import load_class
from fedbiomed.researcher import strategies
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy


@dataclass
class ThreeNodes:
    """What a strategy sees of a federated data set."""

    rows: dict[str, int] = field(default_factory=lambda: {"node_a": 10, "node_b": 30, "node_c": 60})

    def data(self):
        return {node_id: {"shape": [rows, 2], "dataset_id": f"dataset_{node_id}"} for node_id, rows in self.rows.items()}

    def node_ids(self):
        return list(self.rows)

    def sample_sizes(self):
        return list(self.rows.values())


class EveryOther(Strategy):
    """As a user would write one: nothing but `sample_nodes`."""

    def sample_nodes(self, round_i):
        return self._data.node_ids()[round_i % 2 :: 2]


NODES = ["node_a", "node_b", "node_c"]


def reply(node_id, sample_size=10, *, success=True, msg=""):
    return {
        "node_id": node_id,
        "success": success,
        "msg": msg,
        "sample_size": sample_size,
        "params": {"w": node_id},
        "encryption_factor": None,
    }


def test_all_nodes_take_part_in_every_round():
    assert [DefaultStrategy(ThreeNodes()).sample_nodes(i) for i in range(2)] == [NODES, NODES]
    strategy = DefaultStrategy()
    strategy.set_data(ThreeNodes())
    assert strategy.sample_nodes(0) == NODES


@pytest.mark.parametrize(("data", "min_nodes", "found"), [(None, None, 0), (ThreeNodes({}), None, 0), (ThreeNodes(), 4, 3)])
def test_too_few_nodes_are_said_before_anybody_is_asked(data, min_nodes, found):
    with pytest.raises(FedbiomedStrategyError, match=rf"FB402.*needs {min_nodes or 1} nodes or more, the data set has {found}"):
        DefaultStrategy(data, min_nodes).sample_nodes(0)


@pytest.mark.parametrize("min_nodes", [0, -1, 1.0, True, "2"])
def test_min_nodes_is_a_number_of_nodes(min_nodes):
    with pytest.raises(FedbiomedUserInputError, match="min_nodes must be None or an integer of 1 or more"):
        DefaultStrategy(min_nodes=min_nodes)


def test_a_reply_counts_by_its_samples_and_its_parameters_are_not_read():
    class Lazy(dict):
        def __getitem__(self, key):
            raise KeyError("parameters were read") if key == "params" else super().__getitem__(key)

    weight = DefaultStrategy().accept(Lazy(reply("node_a", 42)))
    assert weight == 42.0
    assert isinstance(weight, float)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply("node_a", success=False, msg="the training plan is not approved"), "the training plan is not approved"),
        (reply("node_a", success=False), "reported a failure without a reason"),
        ({}, "reported a failure without a reason"),
        (reply("node_a", 0), "trained on 0 samples"),
        (reply("node_a", None), "trained on None samples"),
        (reply("node_a", True), "trained on True samples"),
        (reply("node_a", -3), "trained on -3 samples"),
    ],
)
def test_a_bad_reply_gives_its_reason(bad, reason):
    assert reason in DefaultStrategy().accept(bad)


def test_a_round_is_good_when_every_node_answered():
    DefaultStrategy(ThreeNodes()).check_round(0, NODES, NODES[::-1], {})
    EveryOther(ThreeNodes()).check_round(0, NODES, NODES, {})


def test_a_round_is_good_when_enough_nodes_answered():
    DefaultStrategy(ThreeNodes(), min_nodes=2).check_round(0, NODES, ["node_c", "node_a"], {"node_b": "it was offline"})


@pytest.mark.parametrize(
    ("min_nodes", "answered", "failures", "message"),
    [
        (None, [], {"node_a": "x", "node_c": "z"}, "FB407: 0 of 3 nodes answered round 2: node_a: x; node_b: no answer; node_c: z"),
        (1, [], {}, "FB407: 0 of 3 nodes answered round 2: node_a: no answer; node_b: no answer; node_c: no answer"),
        (None, ["node_a"], {"node_b": "y"}, "FB408: 1 of 3 nodes answered round 2, 3 are needed: node_b: y; node_c: no answer"),
        (None, ["node_a", "node_c"], {"node_b": "y"}, "FB409: 2 of 3 nodes answered round 2, 3 are needed: node_b: y"),
        (2, ["node_c", "stranger"], {}, "FB408: 1 of 3 nodes answered round 2, 2 are needed: node_a: no answer; node_b: no answer"),
    ],
)
def test_not_enough_replies_are_said_with_every_reason(min_nodes, answered, failures, message):
    with pytest.raises(FedbiomedStrategyError) as caught:
        DefaultStrategy(ThreeNodes(), min_nodes).check_round(2, NODES, answered, failures)
    assert str(caught.value) == message


def test_all_replies_at_once():
    replies = [reply("node_a", 10), reply("node_b", 30), reply("node_c", 60) | {"encryption_factor": [1]}]
    params, weights, total, factors = DefaultStrategy(ThreeNodes()).refine(replies, 0)
    assert params == {node_id: {"w": node_id} for node_id in NODES}
    assert weights == {"node_a": 0.1, "node_b": 0.3, "node_c": 0.6}
    assert (total, type(total)) == (100, int)
    assert factors == {"node_a": None, "node_b": None, "node_c": [1]}


def test_all_replies_at_once_must_be_enough():
    replies = [reply("node_a"), reply("node_b", success=False, msg="out of memory")]
    with pytest.raises(FedbiomedStrategyError, match=r"FB408: 1 of 3 .*node_b: out of memory; node_c: no answer"):
        DefaultStrategy(ThreeNodes()).refine(replies, 1)
    with pytest.raises(FedbiomedStrategyError, match=r"FB409: 1 of 2 .*node_b: out of memory"):
        DefaultStrategy().refine(replies, 1)
    params, weights, total, _ = DefaultStrategy(ThreeNodes(), min_nodes=1).refine(replies, 1)
    assert (list(params), weights, total) == (["node_a"], {"node_a": 1.0}, 10)


def test_one_that_defines_only_sample_nodes_is_whole():
    strategy = EveryOther(ThreeNodes())
    assert strategy.sample_nodes(0) == ["node_a", "node_c"]
    assert strategy.sample_nodes(1) == ["node_b"]
    assert strategy.refine([reply("node_b", 5)], 1)[1:3] == ({"node_b": 1.0}, 5)
    with pytest.raises(FedbiomedStrategyError, match="FB407: 0 of 0 nodes answered round 0"):
        strategy.refine([], 0)


@pytest.mark.parametrize("strategy", [DefaultStrategy(ThreeNodes(), min_nodes=2), EveryOther(ThreeNodes()), DefaultStrategy()])
def test_its_state_goes_through_json(strategy):
    state = json.loads(json.dumps(strategy.save_state_breakpoint()))
    assert (state["class"], state["module"]) == (type(strategy).__name__, type(strategy).__module__)
    fresh = type(strategy)()
    fresh.load_state_breakpoint(state)
    assert fresh.save_state_breakpoint() == state | {"fds": {}}
    fresh.set_data(ThreeNodes())
    assert fresh.save_state_breakpoint()["fds"] == ThreeNodes().data()
    with pytest.raises(FedbiomedBreakpointError, match="state of a 'Other' cannot be given"):
        fresh.load_state_breakpoint(state | {"class": "Other"})


def test_a_tampered_state_is_refused():
    state = DefaultStrategy().save_state_breakpoint()
    with pytest.raises(FedbiomedUserInputError, match="min_nodes"):
        DefaultStrategy().load_state_breakpoint(state | {"parameters": {"min_nodes": "all"}})


def test_ours_are_found_again_by_the_names_in_their_state():
    state = DefaultStrategy().save_state_breakpoint()
    assert load_class(strategies, state["module"], state["class"], Strategy) is DefaultStrategy


def test_the_base_is_not_a_strategy():
    with pytest.raises(TypeError, match="abstract"):
        Strategy()
