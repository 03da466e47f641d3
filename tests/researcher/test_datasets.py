"""The data set of an experiment, the nodes' states, auxiliary variables, and `environ`."""

import copy
from typing import Any

import pytest

from fedbiomed.common.exceptions import FedbiomedFederatedDataSetError, FedbiomedNodeStateAgentError
from fedbiomed.researcher.aux_vars import collate, split_by_reader
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.node_state_agent import NodeStateAgent

ROWS = {"name": "rows", "shape": [12, 3], "dataset_id": "dataset_1"}
FOLDER = {"name": "folder", "shape": {"num_modalities": 2, "T1": [7, 4, 4], "label": [7, 4, 4]}, "dataset_id": "dataset_2"}


def test_one_dataset_per_node() -> None:
    data = FederatedDataSet({"node_a": ROWS, "node_b": [FOLDER]})
    assert data.data() == {"node_a": ROWS, "node_b": FOLDER}
    assert data.node_ids() == ["node_a", "node_b"]
    assert data.sample_sizes() == [12, 7]
    assert data.shapes() == {"node_a": 12, "node_b": 7}
    assert len(data) == 2
    assert "dataset_2" in repr(data)


def test_the_input_is_not_changed_nor_shared() -> None:
    given: dict[str, Any] = {"node_a": [copy.deepcopy(ROWS)]}
    data = FederatedDataSet(given)
    assert given == {"node_a": [ROWS]}
    given["node_a"][0]["shape"].append(1)
    data.data()["node_a"]["shape"].append(2)
    assert data.data() == {"node_a": ROWS}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "dict of one dataset per node"),
        ([ROWS], "dict of one dataset per node"),
        ({"node_a": []}, "0 datasets of node node_a"),
        ({"node_a": [ROWS, FOLDER]}, "2 datasets of node node_a"),
        ({"node_a": ["rows"]}, "described by a dict"),
        ({1: ROWS}, "named by its id"),
    ],
)
def test_another_form_is_refused(given: Any, expected: str) -> None:
    with pytest.raises(FedbiomedFederatedDataSetError, match=expected):
        FederatedDataSet(given)


@pytest.mark.parametrize("shape", [None, [], ["many"], {}, 3])
def test_a_dataset_without_rows_is_named(shape: Any) -> None:
    with pytest.raises(FedbiomedFederatedDataSetError, match="node_a has no shape"):
        FederatedDataSet({"node_a": {**ROWS, "shape": shape}}).sample_sizes()


def test_the_last_state_of_each_node_is_kept() -> None:
    agent = NodeStateAgent(["node_a", "node_b"])
    assert agent.get_last_node_states() == {"node_a": None, "node_b": None}
    agent.update_node_states(["node_a", "node_b"], [{"node_id": "node_a", "state_id": "s1"}, {"node_id": "node_b", "state_id": None}])
    agent.update_node_states(["node_c"], [{"node_id": "node_c", "state_id": "s2"}])
    assert agent.get_last_node_states() == {"node_a": "s1", "node_b": None, "node_c": "s2"}
    other = NodeStateAgent()
    other.load_state_breakpoint(agent.save_state_breakpoint())
    assert other.get_last_node_states() == agent.get_last_node_states()


@pytest.mark.parametrize("reply", [{"node_id": "node_a"}, {"state_id": "s"}, {"node_id": "node_x", "state_id": "s"}])
def test_replies_of_strangers_do_not_change_states(reply: dict[str, str]) -> None:
    agent = NodeStateAgent(["node_a"])
    with pytest.raises(FedbiomedNodeStateAgentError):
        agent.update_node_states(["node_a"], [{"node_id": "node_a", "state_id": "s1"}, reply])
    assert agent.get_last_node_states() == {"node_a": None}
    with pytest.raises(FedbiomedNodeStateAgentError, match="collection_state_ids"):
        agent.load_state_breakpoint({})


def test_no_node_gets_what_is_anothers() -> None:
    aux = {"scaffold": {"node_a": {"delta": 1}, "node_b": {"delta": 2}, "node_c": {"delta": 3}}, "m": {"beta": 0.9}, "none": {}}
    shared, own = split_by_reader(aux, ["node_a", "node_b"], ["node_a", "node_b", "node_c"])
    assert shared == {"m": {"beta": 0.9}}
    assert own == {"node_a": {"scaffold": {"delta": 1}}, "node_b": {"scaffold": {"delta": 2}}}
    assert split_by_reader({}, ["node_a"], []) == ({}, {})


def test_a_module_may_have_both_shared_and_own() -> None:
    shared, own = split_by_reader({"m": {"node_a": {"x": 1}, "beta": 0.9}}, ["node_a"], [])
    assert shared == {"m": {"beta": 0.9}}
    assert own == {"node_a": {"m": {"x": 1}}}


def test_received_variables_are_sorted_by_module_then_node() -> None:
    replies: list[dict[str, Any]] = [
        {"node_id": "node_a", "optim_aux_var": {"scaffold": {"delta": 1}, "empty": {}}},
        {"node_id": "node_b", "optim_aux_var": {"scaffold": {"delta": 2}}},
        {"node_id": "node_c", "optim_aux_var": None},
        {"node_id": "node_d"},
    ]
    assert collate(replies) == {"scaffold": {"node_a": {"delta": 1}, "node_b": {"delta": 2}}}
