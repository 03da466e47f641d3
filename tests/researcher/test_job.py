"""Jobs: how they are made, and what a round of orders brings."""

from pathlib import Path
from typing import Any

import pytest

from fedbiomed.common.exceptions import (
    FedbiomedJobError,
    FedbiomedMessageError,
    FedbiomedRepositoryError,
    FedbiomedSecureAggregationError,
    FedbiomedTrainingPlanError,
    FedbiomedUserInputError,
)
from fedbiomed.common.messages.training import OrderCancelled, OrderGot, TrainProgress, TrainRequest
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.job import Job
from tests.conftest import Addresses
from tests.support.jobs import PARAMS, files_of, make_job, saved_folder
from tests.support.orders import nowhere
from tests.support.researchers import MemoryStage, NetworkStage, Stage
from tests.support.scripted_node import failing, silent, trained
from tests.support.tiny_plan import Demanding, TinyPlan, Unbuildable, Unimportable


def test_a_new_job_has_a_plan_from_its_file_and_initial_parameters(stage: MemoryStage) -> None:
    stage.node("a")
    job = make_job(stage)
    assert job.id.startswith("job_")
    assert job.training_plan_name == "TinyPlan"
    assert type(job.training_plan) is not TinyPlan
    assert type(job.training_plan).__name__ == "TinyPlan"
    assert job.training_plan.get_model_params()["weight"].tolist() == [[1.0]]
    assert "class TinyPlan(TorchTrainingPlan):" in Path(job.training_plan_file).read_text(encoding="utf-8")
    assert [path.suffix for path in files_of(job, "my_model_*")] == [".py"]
    (initial,) = files_of(job, "aggregated_params_*.mpk")
    assert Serializer.load(initial)["researcher_id"] == stage.researcher_id
    assert Serializer.load(initial)["model_weights"]["weight"].tolist() == [[1.0]]
    assert job.nodes == [stage.nodes[0].node_id]
    assert job.training_args["epochs"] == 1
    assert (job.training_replies, job.failures, job.aggregator_args) == ({}, {}, {})
    job.training_args = {"epochs": 2}
    assert job.training_args["epochs"] == 2
    with pytest.raises(FedbiomedUserInputError):
        job.training_args = {"epoch": 2}


def test_files_go_to_a_temporary_folder_when_none_is_given(stage: MemoryStage) -> None:
    job = make_job(stage, keep_files_dir=None, training_plan_class=TinyPlan(), training_args=None)
    assert Path(job.training_plan_file).is_file()
    assert stage.folder not in Path(job.training_plan_file).parents


def test_a_plan_may_be_named_in_a_file(stage: MemoryStage) -> None:
    path = Path(make_job(stage).training_plan_file)
    job = make_job(stage, training_plan_class="TinyPlan", training_plan_path=str(path), model_args={"features": 2})
    assert job.training_plan.get_model_params()["weight"].shape == (1, 2)


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (None, NameError, "not None"),
        (3, NameError, "not 3"),
        (dict, NameError, "class 'dict'"),
        ("TinyPlan", NameError, "together with a file"),
        (Unimportable, FedbiomedTrainingPlanError, "name 'pathlib' is not defined"),
        (Unbuildable, FedbiomedTrainingPlanError, "no model today"),
        (Demanding, FedbiomedTrainingPlanError, "made without arguments"),
    ],
)
def test_a_plan_that_fails_leaves_nothing_behind(stage: MemoryStage, plan: object, error: type[Exception], words: str) -> None:
    (stage.folder / "job").mkdir()
    with pytest.raises(error, match=words):
        make_job(stage, training_plan_class=plan)
    assert list((stage.folder / "job").iterdir()) == []
    assert stage.shared._entries == {}


def test_a_job_without_a_line_makes_one_and_ends_it_when_it_fails(
    network: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"MQTT_BROKER": network.mqtt_address[0], "MQTT_BROKER_PORT": str(network.mqtt_address[1]), "UPLOADS_URL": network.http_url}
    for name, value in {**settings, "FBM_RESEARCHER_DIR": str(tmp_path), "FBM_FEDERATION": tmp_path.name}.items():
        monkeypatch.setenv(name, value)
    job = Job(training_plan_class=TinyPlan)
    assert job.requests.connection.bus.is_connected
    job.requests.close()
    with pytest.raises(FedbiomedTrainingPlanError, match="no model today"):
        Job(training_plan_class=Unbuildable)


def test_a_breakpoint_of_another_researcher_is_said(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(stage)
    job.load_state_breakpoint({**job.save_state_breakpoint(saved_folder(stage, "0")), "researcher_id": "researcher_other"})
    assert "made by researcher_other" in caplog.text


def test_a_class_must_be_named_with_a_file(stage: MemoryStage) -> None:
    with pytest.raises(NameError, match="name of its class"):
        make_job(stage, training_plan_path="plan.py")
    with pytest.raises(FedbiomedTrainingPlanError, match="cannot read"):
        make_job(stage, training_plan_class="TinyPlan", training_plan_path="/nowhere/plan.py")


def test_a_repository_that_is_away_leaves_nothing_behind(network: Addresses, tmp_path: Path) -> None:
    stage = NetworkStage(tmp_path, network.mqtt_address, "http://127.0.0.1:9", request_timeout_s=0.1)
    with pytest.raises(FedbiomedRepositoryError, match="no repository at"):
        make_job(stage, data=None)
    assert list((tmp_path / "job").iterdir()) == []
    stage.close()


def test_a_round_brings_every_nodes_reply(any_stage: Stage) -> None:
    a, b = any_stage.node("a", trained(PARAMS)), any_stage.node("b", trained())
    job = make_job(any_stage)
    seen: list[tuple[str, float]] = []
    heard: list[object] = []
    good = job.start_nodes_training_round(
        0,
        {},
        {},
        on_reply=lambda reply: seen.append((reply["node_id"], float(reply["params"]["weight"][0, 0]))),
        on_progress=lambda _node_id, what: heard.append(what),
    )
    assert good == job.nodes == [a.node_id, b.node_id]
    assert seen == [(a.node_id, 3.0), (b.node_id, 1.0)]
    assert sum(isinstance(what, TrainProgress) for what in heard) == 2
    reply = job.training_replies[0][0]
    assert reply["success"] is True
    assert (reply["node_id"], reply["dataset_id"], reply["state_id"]) == (a.node_id, "dataset_1", f"node_state_{a.node_id}_0")
    assert (reply["sample_size"], reply["msg"], reply["encryption_factor"]) == (10, "", None)
    assert (reply["optimizer_args"], reply["optim_aux_var"]) == ({"lr": 0.1}, {})
    assert set(reply["timing"]) == {"rtime_training", "ptime_training", "rtime_total"}
    assert reply["params"]["weight"].tolist() == [[3.0]]
    assert Path(reply["params_path"]).name.startswith("node_params_")
    assert len(files_of(job, "node_params_*.mpk")) == 2
    assert job.failures == {0: {}}
    assert job.reported_metrics[0][b.node_id][0]["metric"] == "Loss"
    for node in (a, b):
        node.wait_for(OrderGot)


def test_an_order_holds_everything_a_node_needs(stage: MemoryStage) -> None:
    a = stage.node("a")
    job = make_job(stage, model_args={"features": 1})
    job.start_nodes_training_round(0, {a.node_id: {"aggregator_name": "FedAverage"}}, {a.node_id: {"aggregator_name": "FedAverage"}})
    job.start_nodes_training_round(1, {}, {})
    first, second = a.wait_for(TrainRequest, 2)
    assert (first.node_id, first.job_id, first.researcher_id) == (a.node_id, job.id, stage.researcher_id)
    assert (first.round, first.attempt, first.training, first.plan_class) == (0, 0, True, "TinyPlan")
    assert (first.dataset_id, first.state_id, second.state_id) == ("dataset_1", None, f"node_state_{a.node_id}_0")
    assert (first.model_args, first.training_args["epochs"], first.secagg) == ({"features": 1}, 1, None)
    assert (first.aggregator_args, first.aggregator_files, first.aux_files) == ({"aggregator_name": "FedAverage"}, {}, ())
    assert first.expires_at - first.issued_at == pytest.approx(3600)
    a.files.get(first.plan, stage.folder / "plan.py")
    assert (stage.folder / "plan.py").read_bytes() == Path(job.training_plan_file).read_bytes()
    assert job.last_msg is not None
    assert (job.last_msg["command"], job.last_msg["round"]) == ("train", 1)


def test_replies_are_handed_on_in_the_order_of_the_nodes(stage: MemoryStage) -> None:
    a, b, c = stage.node("a", silent), stage.node("b", trained()), stage.node("c", trained())
    job, seen = make_job(stage), []

    def release_the_first(node_id: str, what: object) -> None:
        if (node_id, what) == (c.node_id, "answered"):  # the others are here: now the first may answer
            trained()(a, a.wait_for(TrainRequest)[0])

    job.start_nodes_training_round(0, {}, {}, on_reply=lambda reply: seen.append(reply["node_id"]), on_progress=release_the_first)
    assert seen == [a.node_id, b.node_id, c.node_id]


def test_validation_only_gives_no_parameters(stage: MemoryStage) -> None:
    a = stage.node("a")
    job = make_job(stage)
    assert job.start_nodes_training_round(0, {}, {}, do_training=False) == [a.node_id]
    reply = job.training_replies[0][0]
    assert [reply[key] for key in ("params_path", "params", "optimizer_args", "encryption_factor")] == [None] * 4
    assert a.wait_for(TrainRequest)[0].training is False
    job.start_nodes_training_round(1, {}, {})
    assert a.wait_for(TrainRequest, 2)[1].state_id is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (failing("no column y"), "no column y"),
        (silent, "silent for"),
        (trained(result=nowhere()), "could not be fetched: FB202"),
        (trained(result=None), "could not be fetched: it replied without one"),
        (trained(record={"job_id": "job_other"}), "is that of job_id 'job_other'"),
        (trained(record={"node_id": "node_other"}), "is that of node_id 'node_other'"),
        (trained(record={"encrypted": True}), "encrypted"),
        (trained(record={"model_weights": [1, 2]}), "no parameters by name"),
    ],
    ids=["fails", "silent", "no file", "no result", "other job", "other node", "encrypted", "no params"],
)
def test_a_node_that_fails_is_left_out_with_its_reason(
    stage: MemoryStage, answer: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    if answer is silent:
        stage.settings["idle_timeout_s"] = 0.8
    bad, good = stage.node("bad", answer), stage.node("good")
    job, seen = make_job(stage), []
    assert job.start_nodes_training_round(0, {}, {}, on_reply=lambda reply: seen.append(reply["node_id"])) == [good.node_id]
    assert job.nodes == seen == [good.node_id]
    assert reason in job.failures[0][bad.node_id]
    assert f"node {bad.node_id} is left out of the round" in caplog.text
    assert [reply["node_id"] for reply in job.training_replies[0]] == [good.node_id]


def test_a_result_that_cannot_be_fetched_is_not_wanted_any_more(stage: MemoryStage) -> None:
    bad = stage.node("bad", trained(result=nowhere()))
    assert make_job(stage).start_nodes_training_round(0, {}, {}) == []
    assert "could not be fetched" in bad.wait_for(OrderCancelled)[0].reason


def test_no_node_to_ask_is_an_error(stage: MemoryStage) -> None:
    job = make_job(stage, data=None)
    with pytest.raises(FedbiomedJobError, match="no node at all"):
        job.start_nodes_training_round(0, {}, {})
    stage.node("a")
    job = make_job(stage)
    job.nodes = ["node_stranger"]
    with pytest.raises(FedbiomedJobError, match="node_stranger"):
        job.start_nodes_training_round(0, {}, {})


def test_what_cannot_travel_is_an_error(stage: MemoryStage) -> None:
    a = stage.node("a")
    with pytest.raises(FedbiomedMessageError, match="model_args"):
        make_job(stage, model_args={"features": 1, "f": len}).start_nodes_training_round(0, {}, {})
    with pytest.raises(FedbiomedMessageError, match="at most 65536"):
        make_job(stage).start_nodes_training_round(0, {a.node_id: {"correction": "x" * 70_000}}, {})


def test_arguments_of_secure_aggregation_are_checked_not_ignored(stage: MemoryStage) -> None:
    stage.node("a")
    job = make_job(stage)
    with pytest.raises(FedbiomedSecureAggregationError, match="sid, attempt, layout, parts"):
        job.start_nodes_training_round(0, {}, {}, {"secagg_servkey_id": "secagg_1"})
    assert job.start_nodes_training_round(0, {}, {}, {"secagg_servkey_id": None}) == job.nodes
