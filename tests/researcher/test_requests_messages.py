"""The lower level of `Requests`: dicts sent now and collected later, the monitor's callback, and one line per settings."""

import gc
from pathlib import Path

import pytest

from fedbiomed.common.exceptions import FedbiomedUserInputError
from fedbiomed.researcher.connect import Connection
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.requests import Requests
from tests.conftest import Addresses
from tests.support.researchers import MemoryStage, dataset
from tests.support.tiny_plan import TinyPlan

NEVER_S = 3600.0  # who waits for this does not come back before the test's own limit


def test_a_question_is_sent_now_and_collected_later(stage: MemoryStage) -> None:
    a, b = stage.node("a", datasets=[dataset(1)]), stage.node("b", datasets=[dataset(2)])
    requests = stage.requests()
    assert requests.send_message({"command": "ping"}) is None
    number = requests.send_message({"command": "search", "tags": ["#1"]}, add_sequence=True)
    pongs = requests.get_responses(["pong"], timeout=NEVER_S)
    assert sorted(pong["node_id"] for pong in pongs) == [a.node_id, b.node_id]
    assert {(pong["command"], pong["success"], pong["researcher_id"]) for pong in pongs} == {("pong", True, requests.researcher_id)}
    found = requests.get_responses(look_for_commands=["search"], timeout=NEVER_S, while_responses=False)
    by_node = {reply["node_id"]: reply for reply in found}
    assert {reply["sequence"] for reply in found} == {number}
    assert [d["dataset_id"] for d in by_node[a.node_id]["databases"]] == ["dataset_1"]
    assert (by_node[a.node_id]["count"], by_node[b.node_id]["count"]) == (1, 0)
    assert len(requests.get_responses(["pong", "search"], timeout=NEVER_S)) == 0, "what was collected is gone"


def test_one_node_is_asked(stage: MemoryStage) -> None:
    a, _ = stage.node("a"), stage.node("b")
    requests = stage.requests()
    requests.send_message({"command": "list", "researcher_id": requests.researcher_id}, client=a.node_id)
    assert [reply["node_id"] for reply in requests.get_responses(["list"])] == [a.node_id]


def test_a_list_in_parts_is_one_answer(stage: MemoryStage) -> None:
    a = stage.node("a", datasets=[dataset(number) for number in range(5)])
    a.part_size = 2
    requests = stage.requests()
    requests.send_message({"command": "list"})
    (answer,) = requests.get_responses(["list"])
    assert [d["dataset_id"] for d in answer["databases"]] == [f"dataset_{number}" for number in range(5)]


def test_waiting_ends_with_the_time(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    b.is_mute = True
    requests = stage.requests()
    for while_responses in (True, False):
        requests.send_message({"command": "ping"})
        found = requests.get_responses(["pong"], timeout=0.3, while_responses=while_responses)
        assert [pong["node_id"] for pong in found] == [a.node_id]


def test_messages_so_far_wait_for_nothing(stage: MemoryStage) -> None:
    stage.settings["answer_timeout_s"] = NEVER_S
    a, b = stage.node("a"), stage.node("b")
    b.is_mute = True
    requests = stage.requests()
    requests.send_message({"command": "ping"})
    requests.list([a.node_id])  # by then the answer to the ping is here, too
    assert [pong["node_id"] for pong in requests.get_messages(["pong"])] == [a.node_id]
    assert len(requests.get_messages()) == 0


def test_questions_that_nobody_collects_are_given_up_in_the_end(stage: MemoryStage) -> None:
    a = stage.node("a")
    requests = stage.requests()
    for _ in range(70):
        requests.send_message({"command": "ping"}, client=a.node_id)
    assert 0 < len(requests.get_responses(["pong"])) <= 64


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({}, "command"),
        ("ping", "command"),
        ({"command": "train"}, "Experiment.run"),
        ({"command": "ping", "tags": []}, "ping"),
        ({"command": "search"}, "tags"),
        ({"command": "search", "tags": "a"}, "tags"),
    ],
)
def test_other_messages_are_refused(stage: MemoryStage, message: object, part: str) -> None:
    with pytest.raises(FedbiomedUserInputError, match=part):
        stage.requests().send_message(message)  # type: ignore[arg-type]


def test_a_monitor_hears_what_nodes_report(stage: MemoryStage) -> None:
    a = stage.node("a")
    requests = stage.requests()
    told: list[dict[str, object]] = []
    requests.add_monitor_callback(told.append)
    job = Job(requests, TinyPlan, data=stage.data(), training_args=None)
    job.start_nodes_training_round(0, {}, {})
    (scalar,) = told
    assert (scalar["command"], scalar["node_id"], scalar["job_id"], scalar["round"]) == ("add_scalar", a.node_id, job.id, 0)
    assert (scalar["train"], scalar["test"], scalar["iteration"], scalar["epoch"]) == (True, False, 1, 1)
    assert scalar["metric"] == {"Loss": 1.0}
    requests.remove_monitor_callback()
    requests.remove_monitor_callback()
    job.start_nodes_training_round(1, {}, {})
    assert len(told) == 1
    with pytest.raises(FedbiomedUserInputError, match="callback"):
        requests.add_monitor_callback("print")  # type: ignore[arg-type]


@pytest.fixture
def here(network: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A researcher of this test alone, with the network of the run."""
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(tmp_path / "one"))
    monkeypatch.setenv("MQTT_BROKER", network.mqtt_address[0])
    monkeypatch.setenv("MQTT_BROKER_PORT", str(network.mqtt_address[1]))
    monkeypatch.setenv("FBM_FEDERATION", tmp_path.name)
    return tmp_path


def test_there_is_one_line_for_the_same_settings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Requests()
    assert Requests() is one
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(here / "other"))
    other = Requests()
    assert other is not one
    assert other.researcher_id != one.researcher_id
    other.close()
    assert Requests() is not other, "a closed one is not given again"
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(here / "one"))
    connection = one.connection
    del one
    gc.collect()
    assert not connection.bus.is_connected, "nobody holds it any more"
    again = Requests()
    assert again.connection is not connection
    again.close()


def test_a_given_connection_is_nobody_elses(stage: MemoryStage) -> None:
    connection: Connection = stage.requests().connection
    assert Requests(connection) is not Requests(connection)
