"""Questions to nodes: who answers, when asking ends, and what is made of the answers."""

import gc
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fedbiomed.common.exceptions import FedbiomedConfigError, FedbiomedMessagingError
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.approval import PlanApproveRequest, PlanStatusReply
from fedbiomed.common.messages.codec import encode
from fedbiomed.common.messages.discovery import DatasetsReply, ListRequest, PingReply, PingRequest
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.researcher.connect import connect, open_config
from fedbiomed.researcher.requests import Requests
from tests.conftest import Addresses
from tests.support.orders import nowhere
from tests.support.researchers import MemoryStage, Stage, dataset
from tests.support.tiny_plan import TinyPlan

NEVER_S = 3600.0  # who waits for this does not come back before the test's own limit


def test_all_nodes_that_are_there_answer_a_ping(any_stage: Stage) -> None:
    a, b = any_stage.node("a"), any_stage.node("b")
    requests = any_stage.requests()
    assert requests.ping_nodes() == [a.node_id, b.node_id]
    assert requests.online_nodes() == [a.node_id, b.node_id]


def test_asking_ends_when_all_have_answered(any_stage: Stage) -> None:
    any_stage.settings["answer_timeout_s"] = NEVER_S
    any_stage.node("a")
    requests = any_stage.requests()
    for _ in range(5):
        assert len(requests.ping_nodes()) == 1


def test_nobody_there_is_no_answer_after_a_short_grace(stage: MemoryStage) -> None:
    stage.settings["answer_timeout_s"] = NEVER_S
    requests = stage.requests()
    assert requests.ping_nodes() == []


def test_a_node_of_which_nothing_is_known_is_waited_for_shortly(stage: MemoryStage) -> None:
    a = stage.node("a")
    assert stage.requests().list([a.node_id, "node_x"]).keys() == {a.node_id}


def test_a_node_that_went_offline_is_not_waited_for(stage: MemoryStage) -> None:
    stage.settings["answer_timeout_s"] = NEVER_S
    a, b = stage.node("a"), stage.node("b")
    b.is_mute = True
    b.appear(is_online=False)
    requests = stage.requests()
    assert requests.ping_nodes() == [a.node_id]
    assert list(requests.list([a.node_id, b.node_id])) == [a.node_id]


def test_a_silent_node_is_waited_for_until_the_deadline_and_named(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    stage.settings["answer_timeout_s"] = 0.4
    a, b = stage.node("a"), stage.node("b")
    b.is_mute = True
    assert list(stage.requests().list()) == [a.node_id]
    assert f"node {b.node_id} did not answer" in caplog.text


def test_list_and_search(any_stage: Stage) -> None:
    a = any_stage.node("a", datasets=[dataset(1), dataset(2)])
    b = any_stage.node("b", datasets=[dataset(3)])
    empty = any_stage.node("c", datasets=[])
    requests = any_stage.requests()
    listed = requests.list()
    assert {node_id: [d["dataset_id"] for d in found] for node_id, found in listed.items()} == {
        a.node_id: ["dataset_1", "dataset_2"],
        b.node_id: ["dataset_3"],
        empty.node_id: [],
    }
    assert "dtypes" not in listed[b.node_id][0]
    assert requests.search(["#a", "#2"]) == {a.node_id: [dataset(2)]}
    assert requests.search("#3") == {b.node_id: [dataset(3)]}
    assert requests.search("#nowhere") == {}
    assert requests.search([], [a.node_id]) == {a.node_id: [dataset(1), dataset(2)]}


def test_a_list_in_parts_is_put_together_in_order(stage: MemoryStage) -> None:
    a = stage.node("a", datasets=[dataset(number) for number in range(7)])
    a.part_size = 2
    found = stage.requests().list()[a.node_id]
    assert [d["dataset_id"] for d in found] == [f"dataset_{number}" for number in range(7)]


def test_a_table_is_logged_when_asked_for(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    stage.node("a", datasets=[dataset(1)])
    stage.node("b", datasets=[])
    with caplog.at_level(logging.INFO):
        stage.requests().list(verbose=True)
    assert "dataset_id" in caplog.text
    assert "(none)" in caplog.text


def test_two_lines_do_not_take_each_others_answers(stage: MemoryStage) -> None:
    node = stage.node("a")
    one, other = stage.requests(), stage.requests()
    assert one.researcher_id == other.researcher_id
    with one.ask(PingRequest(**one.stamp())) as ping, other.ask(ListRequest(**other.stamp())) as question:
        listed, pinged = list(question), list(ping)  # collected in the other order than asked
    assert [type(reply) for reply in pinged] == [PingReply]
    assert [type(reply) for reply in listed] == [DatasetsReply]
    assert {reply.node_id for reply in [*pinged, *listed]} == {node.node_id}


def test_a_verbose_list_is_seen_where_the_log_is_not(stage: MemoryStage, caplog: pytest.LogCaptureFixture, capsys) -> None:
    stage.node("a", datasets=[dataset(1)])
    with caplog.at_level(logging.WARNING):
        stage.requests().list(verbose=True)
    assert "dataset_id" in capsys.readouterr().out


def test_answers_to_other_questions_do_not_count(stage: MemoryStage) -> None:
    a = stage.node("a")
    a.is_mute = True
    requests = stage.requests()
    request = PingRequest(**requests.stamp(0.5))
    good = PingReply(request_id=request.request_id, researcher_id=requests.researcher_id, node_id=a.node_id, node_name="")
    other = PingReply(request_id="another", researcher_id=requests.researcher_id, node_id=a.node_id, node_name="")
    with requests.ask(request, timeout_s=0.5) as question:
        topic = topics.replies(stage.federation, requests.researcher_id, a.node_id)
        a.bus.publish(topic, b"{broken")
        a.bus.publish(topic, encode(other))
        # under somebody else's name, on the topic of this node
        a.bus.publish(topic, encode(PingReply(**{**_fields(good), "node_id": "node_b"})))
        a.bus.publish(topic, encode(PingReply(**{**_fields(good), "researcher_id": "researcher_other"})))
        a.bus.publish(topic, encode(request))
        assert list(question) == []
        assert question.silent_nodes() == [a.node_id]
    with requests.ask(request, timeout_s=5) as question:
        a.bus.publish(topic, encode(good))
        a.bus.publish(topic, encode(good))
        assert list(question) == [good]


def _fields(reply: PingReply) -> dict[str, str]:
    return {name: getattr(reply, name) for name in ("request_id", "researcher_id", "node_id", "node_name")}


def test_a_presence_that_is_not_that_components_is_dropped(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    a = stage.node("a")
    a.bus.publish(topics.presence(stage.federation, "node_b"), encode(PingRequest(**stage.requests().stamp())), retain=True)
    assert stage.requests().ping_nodes() == [a.node_id]
    assert "no presence of that component" in caplog.text


def test_two_questions_at_once_get_their_own_answers(stage: MemoryStage) -> None:
    stage.node("a", datasets=[dataset(1)])
    stage.node("b", datasets=[dataset(2)])
    requests = stage.requests()
    found: dict[str, object] = {}
    threads = [
        threading.Thread(target=lambda tag=tag: found.update({tag: requests.search(tag)}), name=f"asks {tag}") for tag in ("#1", "#2") * 5
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {tag: [d["dataset_id"] for d in next(iter(answer.values()))] for tag, answer in found.items()} == {  # type: ignore[attr-defined]
        "#1": ["dataset_1"],
        "#2": ["dataset_2"],
    }


def test_two_processes_of_one_researcher_do_not_disturb_each_other(stage: MemoryStage) -> None:
    a = stage.node("a")
    one, other = stage.requests(), stage.requests()
    assert one.ping_nodes() == other.ping_nodes() == [a.node_id]


def test_a_plan_is_laid_before_the_operators(any_stage: Stage) -> None:
    a, b = any_stage.node("a"), any_stage.node("b")
    requests = any_stage.requests()
    assert requests.training_plan_approve(TinyPlan, description="a line") == {a.node_id: True, b.node_id: True}
    assert requests.training_plan_approve(TinyPlan(), nodes=[a.node_id]) == {a.node_id: True}
    assert a.wait_for(PlanApproveRequest, 2)[0].description == "a line"
    assert len(b.all_heard(PlanApproveRequest)) == 1
    assert b"class TinyPlan(TorchTrainingPlan):" in (any_stage.folder / b.node_id / "plan.py").read_bytes()


def test_a_plan_in_a_file_is_sent_as_it_is(stage: MemoryStage, tmp_path: Path) -> None:
    a = stage.node("a")
    path = tmp_path / "my plan.py"
    path.write_text("# any text\n", encoding="utf-8")
    assert stage.requests().training_plan_approve(str(path)) == {a.node_id: True}
    assert (stage.folder / a.node_id / "plan.py").read_text(encoding="utf-8") == "# any text\n"


@pytest.mark.parametrize("plan", [None, 3, "nowhere.py", dict])
def test_what_is_no_plan_is_not_sent(stage: MemoryStage, plan: object, caplog: pytest.LogCaptureFixture) -> None:
    stage.node("a")
    assert stage.requests().training_plan_approve(plan) == {}
    assert "was not sent for approval" in caplog.text


def test_a_node_that_does_not_take_the_plan_is_false(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    b.is_mute = True
    requests = stage.requests()
    assert requests.training_plan_approve(TinyPlan, nodes=[a.node_id, b.node_id, "node_x"], timeout=0.5) == {
        a.node_id: True,
        b.node_id: False,
        "node_x": False,
    }
    assert requests.training_plan_approve(TinyPlan, timeout=0.3) == {a.node_id: True, b.node_id: False}


def test_plan_status_of_each_node(stage: MemoryStage) -> None:
    a, b, c = stage.node("a"), stage.node("b"), stage.node("c")
    b.plan_status, c.is_mute = "Error", True
    stage.settings["answer_timeout_s"] = 0.4
    found = stage.requests().plan_status("job_1", nowhere(), [a.node_id, b.node_id, c.node_id])
    assert isinstance(found[a.node_id], PlanStatusReply)
    assert isinstance(found[b.node_id], ErrorReply)
    assert found.keys() == {a.node_id, b.node_id}


def test_settings_are_made_once_and_read_after(tmp_path: Path) -> None:
    config = open_config(tmp_path / "r", env={"MQTT_BROKER": "broker.example", "UPLOADS_URL": "http://files.example:8844/upload/"})
    assert config.id.startswith("researcher_")
    assert (config.broker, config.repository) == ("broker.example", "http://files.example:8844")
    again = open_config(None, env={"FBM_RESEARCHER_DIR": str(tmp_path / "r")})
    assert (again.id, again.broker) == (config.id, "localhost")
    with pytest.raises(FedbiomedConfigError, match="MQTT_BROKER_PORT"):
        open_config(tmp_path / "r", env={"MQTT_BROKER_PORT": "here"})


def test_no_broker_is_one_clear_line(tmp_path: Path) -> None:
    config = replace(open_config(tmp_path, env={"MQTT_BROKER": "127.0.0.1", "MQTT_BROKER_PORT": "1"}), connect_timeout_s=0.3)
    with pytest.raises(FedbiomedMessagingError, match=r"no MQTT broker at 127\.0\.0\.1:1"):
        connect(config)


def test_requests_connect_by_themselves_and_leave(network: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(tmp_path))
    monkeypatch.setenv("MQTT_BROKER", network.mqtt_address[0])
    monkeypatch.setenv("MQTT_BROKER_PORT", str(network.mqtt_address[1]))
    monkeypatch.setenv("FBM_FEDERATION", tmp_path.name)
    requests = Requests()
    assert requests.ping_nodes() == []
    connection = requests.connection
    requests.close()
    requests.close()
    assert not connection.bus.is_connected
    requests = Requests()
    connection = requests.connection
    del requests
    gc.collect()
    assert not connection.bus.is_connected
