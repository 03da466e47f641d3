"""Replies in the history: a list of dicts whose parameters lie in files until somebody looks at them."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedbiomed.common.exceptions import FedbiomedResponsesError
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.responses import Responses, TrainingReply, read_result

REPLY_KEYS = [
    *("success", "msg", "dataset_id", "node_id", "state_id", "params_path", "params", "optimizer_args", "optim_aux_var"),
    *("sample_size", "encryption_factor", "timing"),
]


def reply(path: Path | None, node_id: str = "node_a") -> TrainingReply:
    values = {"success": True, "msg": "", "dataset_id": "dataset_1", "node_id": node_id, "state_id": "state_1", "sample_size": 3}
    return TrainingReply({**values, "timing": {"rtime_total": 0.5}, "params_path": None if path is None else str(path)})


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "node_params.mpk"
    Serializer.dump({"model_weights": {"w": np.arange(3.0)}, "optimizer_args": {"lr": 0.1}, "optim_aux_var": {"m": {"k": 1}}}, path)
    return path


def test_a_reply_has_the_keys_that_users_know(result: Path) -> None:
    assert list(reply(result)) == REPLY_KEYS
    assert reply(result)["timing"]["rtime_total"] == 0.5


def test_params_are_read_from_the_file_when_looked_at(result: Path) -> None:
    one = reply(result)
    np.testing.assert_array_equal(one["params"]["w"], [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(one.get("params")["w"], [0.0, 1.0, 2.0])
    assert one["optimizer_args"] == {"lr": 0.1}
    assert one["encryption_factor"] is None
    assert one["optim_aux_var"] == {"m": {"k": 1}}
    assert one["params"] is not one["params"]  # nothing is kept: many rounds take no memory
    result.unlink()
    assert one["optimizer_args"] == {"lr": 0.1}  # what is small is
    for large in ("params", "optim_aux_var"):
        with pytest.raises(FedbiomedResponsesError, match="node_params"):
            one[large]


def test_params_stay_between_load_and_release(result: Path) -> None:
    one = reply(result)
    assert "model_weights" in one.load()
    assert one["params"] is one["params"]
    one.release()
    assert one["params"] is not one["params"]


def test_a_plain_dict_of_a_reply_is_complete(result: Path) -> None:
    one = reply(result)
    for plain in (dict(one), {**one}, dict(one.items()), dict(zip(one, one.values(), strict=True))):
        assert type(plain) is dict
        assert plain["params"]["w"].tolist() == [0.0, 1.0, 2.0]
        assert plain["optimizer_args"] == {"lr": 0.1}


def test_what_is_assigned_is_kept(result: Path) -> None:
    one = reply(result)
    one["params"] = {"w": 1}
    assert one["params"] == {"w": 1}
    assert one.get("nothing", 7) == 7
    with pytest.raises(KeyError):
        one["nothing"]


def test_copies_and_repr_read_no_file(result: Path) -> None:
    one = reply(result)
    result.unlink()
    assert "node_a" in repr(one)
    assert "in the file: encryption_factor, optim_aux_var, optimizer_args, params" in repr(one)
    for other in (one.copy(), copy.copy(one)):
        assert other["node_id"] == "node_a"
        with pytest.raises(FedbiomedResponsesError):
            other["params"]
    assert json.loads(json.dumps(one.without_file()))["sample_size"] == 3


def test_a_reply_may_be_pickled_by_its_owner(result: Path) -> None:
    one = reply(result)
    again = pickle.loads(pickle.dumps(one))
    assert repr(again) == repr(one)  # what lies in the file was not read for it
    assert again["params"]["w"].tolist() == one["params"]["w"].tolist()
    assert pickle.loads(pickle.dumps(reply(None)))["params"] is None


def test_a_validation_reply_has_no_params() -> None:
    one = reply(None)
    assert one["params"] is None
    assert one["params_path"] is None
    one.release()
    assert list(one) == REPLY_KEYS
    assert repr(one) == repr(dict(one))


@pytest.mark.parametrize("content", [b"", b"\xc1", Serializer.dumps([1]), Serializer.dumps({"model_weights": [1]})])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mpk"
    path.write_bytes(content)
    with pytest.raises(FedbiomedResponsesError, match=r"broken\.mpk"):
        read_result(path)


def test_responses_are_a_list_of_dicts(result: Path) -> None:
    responses = Responses([reply(result, "node_a"), reply(result, "node_b"), {"node_id": "node_c"}])
    assert len(responses) == 3
    assert [r["node_id"] for r in responses] == ["node_a", "node_b", "node_c"]
    assert responses[-1] == {"node_id": "node_c"}
    assert len(responses[:2]) == 2
    assert responses.get_index_from_node_id("node_b") == 1
    assert responses.get_index_from_node_id("node_x") is None
    assert responses.data()[0] is responses[0]
    assert "node_c" in repr(responses)


def test_equal_replies_are_taken_once_at_construction() -> None:
    assert len(Responses([{"a": 1}, {"a": 1}, {"a": 2}])) == 2
    assert len(Responses({"a": 1})) == 1
    assert len(Responses()) == 0
    array = {"params": np.zeros(2)}
    assert len(Responses([array, dict(array), {"params": np.zeros(2)}, array])) == 2


def test_append_takes_one_reply_a_list_or_responses() -> None:
    responses = Responses({"a": 1})
    responses.append({"a": 2})
    responses.append([{"a": 3}, {"a": 3}])
    assert [r["a"] for r in responses.append(Responses({"a": 4}))] == [1, 2, 3, 3, 4]
    assert responses.set_data([{"a": 5}]) == [{"a": 5}]


def test_a_table_has_a_row_per_reply_with_the_params(result: Path) -> None:
    table = Responses([reply(result, "node_a"), reply(result, "node_b")]).dataframe()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == REPLY_KEYS
    assert table["node_id"].tolist() == ["node_a", "node_b"]
    assert table["params"][1]["w"].tolist() == [0.0, 1.0, 2.0]
    assert len(Responses().dataframe()) == 0


@pytest.mark.parametrize("data", [3, "text", [1], None])
def test_anything_else_is_refused(data: Any) -> None:
    with pytest.raises(FedbiomedResponsesError, match="list of dicts"):
        Responses(data)
    with pytest.raises(FedbiomedResponsesError, match="list of dicts"):
        Responses().append(data)


def test_what_a_nodes_half_tells_is_there_where_it_tells_something(result: Path) -> None:
    one = reply(result)
    one.load()
    assert "told" not in one
    Serializer.dump({**read_result(result), "told": {"training_loss": 0.5}}, result)
    one = reply(result)
    one.load()
    one.release()
    assert one["told"] == {"training_loss": 0.5}
    json.dumps(one.without_file())


@pytest.mark.parametrize("told", [[1.0], {"x": "1"}, {"x": float("nan")}, {"x": True}, {str(n): 0.0 for n in range(65)}])
def test_what_a_nodes_half_tells_came_from_elsewhere(result: Path, told: Any) -> None:
    Serializer.dump({**read_result(result), "told": told}, result)
    with pytest.raises(FedbiomedResponsesError, match="at most 64 finite numbers by name"):
        reply(result).load()
