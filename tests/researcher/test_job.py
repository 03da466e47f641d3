"""The job: a plan and parameters go to nodes, what they made of it comes back."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbiomed.common.exceptions import (
    FedbiomedJobError,
    FedbiomedMessageError,
    FedbiomedRepositoryError,
    FedbiomedResponsesError,
    FedbiomedSecureAggregationError,
    FedbiomedTrainingPlanError,
    FedbiomedUserInputError,
)
from fedbiomed.common.messages.training import OrderCancelled, OrderGot, TrainProgress, TrainRequest
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.job import Job, localJob
from fedbiomed.researcher.responses import Responses
from tests.conftest import Addresses
from tests.support.orders import nowhere
from tests.support.researchers import MemoryStage, NetworkStage, Stage, dataset
from tests.support.scripted_node import ScriptedNode, failing, silent, trained
from tests.support.tiny_plan import Demanding, TinyPlan, Unbuildable, Unimportable

PARAMS = {"weight": np.full((1, 1), 3.0, dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}


def make_job(stage: Stage, **changes: Any) -> Job:
    arguments: dict[str, Any] = {
        "training_plan_class": TinyPlan,
        "training_args": TrainingArgs({"epochs": 1}, only_required=False),
        "data": stage.data(),
        "keep_files_dir": str(stage.folder / "job"),
    }
    return Job(reqs=stage.requests(), **{**arguments, **changes})


def files_of(job: Job, pattern: str) -> list[Path]:
    return sorted(Path(job.training_plan_file).parent.glob(pattern))


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
    job.load_state_breakpoint({**job.save_state_breakpoint(_folder(stage, "0")), "researcher_id": "researcher_other"})
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


def test_secure_aggregation_is_refused_not_ignored(stage: MemoryStage) -> None:
    stage.node("a")
    job = make_job(stage)
    with pytest.raises(FedbiomedSecureAggregationError, match="this version does not have secure aggregation"):
        job.start_nodes_training_round(0, {}, {}, {"secagg_servkey_id": "secagg_1"})
    assert job.start_nodes_training_round(0, {}, {}, {"secagg_servkey_id": None}) == job.nodes


def test_new_parameters_are_taken_and_uploaded(stage: MemoryStage) -> None:
    a = stage.node("a", trained())
    job = make_job(stage)
    path, url = job.update_parameters(PARAMS)
    assert url.startswith("http://")
    assert Path(path).name.startswith("aggregated_params_")
    assert job.training_plan.get_model_params()["weight"].tolist() == [[3.0]]
    job.start_nodes_training_round(0, {}, {})
    assert job.training_replies[0][0]["params"]["weight"].tolist() == [[3.0]]
    other, _ = job.update_parameters({**PARAMS, "weight": np.full((1, 1), 4.0, dtype=np.float32)})
    assert job.update_parameters(filename=path)[0] == path
    assert job.training_plan.get_model_params()["weight"].tolist() == [[3.0]]
    again, _ = job.update_parameters()
    assert again not in (path, other)
    assert Serializer.load(again)["model_weights"]["weight"].tolist() == [[3.0]]
    with pytest.raises(ValueError, match="not both"):
        job.update_parameters(PARAMS, path)
    with pytest.raises(FedbiomedResponsesError, match="nowhere"):
        job.update_parameters(filename=str(stage.folder / "nowhere.mpk"))
    assert a.all_heard(OrderCancelled) == []


def test_large_arguments_travel_by_file_and_equal_ones_once(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage)
    same, small = {"w": np.ones(3)}, {a.node_id: {"aggregator_name": "Scaffold", "mu": 0.1}}
    large = {
        a.node_id: {"aggregator_name": "Scaffold", "correction": {"w": np.zeros(3)}, "global": same},
        b.node_id: {"global": same},
    }
    job.start_nodes_training_round(0, small, large)
    assert small == {a.node_id: {"aggregator_name": "Scaffold", "mu": 0.1}}  # what was given is not changed
    assert set(job.aggregator_args[a.node_id]) == {"aggregator_name", "mu", "correction", "global"}
    entry = job.aggregator_args[a.node_id]["correction"]
    assert (entry["arg_name"], Path(entry["filename"]).name.startswith("correction_")) == ("correction", True)
    of_a, of_b = a.wait_for(TrainRequest)[0], b.wait_for(TrainRequest)[0]
    assert of_a.aggregator_args == {"aggregator_name": "Scaffold", "mu": 0.1}
    assert of_b.aggregator_args == {}
    assert of_a.aggregator_files["global"] == of_b.aggregator_files["global"]
    b.files.get(of_a.aggregator_files["correction"], stage.folder / "got.mpk")
    assert Serializer.load(stage.folder / "got.mpk")["w"].tolist() == [0.0, 0.0, 0.0]
    assert len(files_of(job, "global_*.mpk")) == 1


def test_auxiliary_variables_go_to_whom_they_concern(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage)
    aux = {"scaffold": {a.node_id: {"delta": 1}, b.node_id: {"delta": 2}}, "momentum": {"beta": 0.9}}
    job.nodes = [a.node_id]
    shared, own = job.upload_agg_optimizer_aux_var(aux)
    assert shared is not None
    assert own.keys() == {a.node_id}
    assert job._prepare_agg_optimizer_aux_var(aux, job.nodes)[1] == {a.node_id: {"scaffold": {"delta": 1}}}
    assert job.upload_agg_optimizer_aux_var({}) == (None, {})
    job.start_nodes_training_round(0, {}, {}, optim_aux_var=aux)
    files = a.wait_for(TrainRequest)[0].aux_files
    content = []
    for ref in files:
        a.files.get(ref, stage.folder / "aux.mpk")
        content.append(Serializer.load(stage.folder / "aux.mpk"))
    assert content == [{"momentum": {"beta": 0.9}}, {"scaffold": {"delta": 1}}]
    assert len(files_of(job, f"aux_var_node_{a.node_id}_*.mpk")) == 2
    assert len(files_of(job, "aux_var_shared_*.mpk")) == 2


def test_received_auxiliary_variables_are_collated(stage: MemoryStage) -> None:
    a = stage.node("a", trained(record={"optim_aux_var": {"scaffold": {"delta": 1}}}))
    stage.node("b")
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    assert job.extract_received_optimizer_aux_var_from_round(0) == {"scaffold": {a.node_id: {"delta": 1}}}


def test_an_interrupted_round_cancels_its_orders_and_can_be_run_again(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    path, _ = job.update_parameters(PARAMS)
    nodes, states = list(job.nodes), job.save_state_breakpoint(_folder(stage, "0"))["node_state"]

    def interrupted() -> None:
        with job.undone_on_failure(1):
            job.start_nodes_training_round(1, {}, {})
            job.nodes = []
            job.update_parameters({**PARAMS, "weight": np.full((1, 1), 9.0, dtype=np.float32)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert job.nodes == nodes
    assert job.training_replies.keys() == {0}
    assert job.training_plan.get_model_params()["weight"].tolist() == [[3.0]]
    assert job.save_state_breakpoint(_folder(stage, "1"))["node_state"] == states
    job.start_nodes_training_round(1, {}, {})
    orders = a.wait_for(TrainRequest, 3)
    assert [(order.round, order.attempt) for order in orders] == [(0, 0), (1, 0), (1, 1)]
    assert orders[1].params == orders[2].params
    assert orders[1].state_id == orders[2].state_id
    assert len({order.request_id for order in orders}) == 3
    assert path
    assert b.all_heard(OrderCancelled) == []


def test_ctrl_c_in_the_midst_of_a_round_cancels_it(stage: MemoryStage) -> None:
    a, b = stage.node("a", trained()), stage.node("b", silent)
    job = make_job(stage)

    def interrupt(_node_id: str, what: object) -> None:
        if what == "answered":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.start_nodes_training_round(0, {}, {}, on_progress=interrupt)
    for node in (a, b):
        node.wait_for(OrderCancelled)
    assert job.training_replies == {}
    assert job.nodes == [a.node_id, b.node_id]


def _folder(stage: Stage, name: str) -> Path:
    folder = stage.folder / f"breakpoint_{name}"
    folder.mkdir()
    return folder


def test_a_job_goes_on_from_its_saved_state(stage: MemoryStage) -> None:
    a, b = stage.node("a", trained(PARAMS)), stage.node("b")
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    job.update_parameters(PARAMS)
    job.start_nodes_training_round(2, {}, {}, do_training=False)
    folder = _folder(stage, "0002")
    saved = job.save_state_breakpoint(str(folder))
    assert {"researcher_id", "job_id", "model_params_path", "training_replies", "node_state"} <= saved.keys()
    assert Path(saved["model_params_path"]) == folder / "aggregated_params_current.mpk"
    assert [len(replies) for replies in saved["training_replies"]] == [2, 0, 2]
    assert "params" not in saved["training_replies"][0][0]
    assert len(list(folder.glob("node_params_*.mpk"))) == 2
    assert job.save_state_breakpoint(folder) == saved  # a second time into the same folder
    for path in files_of(job, "*.mpk"):
        path.unlink()

    other = make_job(stage, keep_files_dir=None)
    other.load_state_breakpoint(saved)
    assert other.id == job.id
    assert other.training_replies[0][0]["params"]["weight"].tolist() == [[3.0]]
    assert other.training_replies[2][1]["params"] is None
    assert other.training_plan.get_model_params()["weight"].tolist() == [[3.0]]
    other.start_nodes_training_round(1, {}, {})
    (order,) = {order.request_id: order for order in a.all_heard(TrainRequest) if order.round == 1}.values()
    assert (order.job_id, order.state_id) == (job.id, f"node_state_{a.node_id}_0")
    assert {order.round for order in b.all_heard(TrainRequest)} == {0, 1, 2}
    with pytest.raises(FedbiomedJobError, match="job_id is missing"):
        other.load_state_breakpoint({"researcher_id": "researcher_x"})


def test_every_operators_decision_is_told(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    stage.settings["request_timeout_s"] = 0.5
    nodes = [stage.node(name) for name in ("approved", "pending", "error", "silent")]
    nodes[1].plan_status, nodes[2].plan_status, nodes[3].is_mute = "Pending", "Error", True
    job = make_job(stage)
    with caplog.at_level(logging.INFO):
        responses = job.check_training_plan_is_approved_by_nodes()
    assert [reply["status"] for reply in responses] == ["Approved", "Pending", "Error"]
    assert responses[0]["job_id"] == job.id
    assert responses[0]["training_plan_url"].startswith("http://")
    for node, words in zip(nodes, ("approved", "it is Pending", "internal error", "no answer"), strict=True):
        assert any(node.node_id in line and words in line for line in caplog.messages)


def test_waiting_for_nodes(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage)
    assert job.waiting_for_nodes(Responses([{"node_id": a.node_id}]))
    assert not job.waiting_for_nodes(Responses([{"node_id": a.node_id}, {"node_id": b.node_id, "success": False}]))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"training_plan_class": "P"}, "params_url"),
        ({}, "params_url"),
        ({"params_url": "ftp://host/x", "training_plan_class": "P"}, "params_url"),
        ({"params_url": None, "training_plan_class": "P"}, "params_url"),
        ({"params_url": "http://host/x"}, "training_plan_class"),
    ],
)
def test_a_missing_argument_is_named(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(FedbiomedJobError, match=field):
        Job.validate_minimal_arguments(arguments, ("params_url", "training_plan_class"))
    Job.validate_minimal_arguments({"params_url": "https://host/x", "training_plan_class": 1}, ("params_url", "training_plan_class"))


def test_a_closed_job_takes_its_files_out_of_the_repository(stage: MemoryStage) -> None:
    stage.node("a")
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    job.close()
    assert {entry.owner for entry in stage.shared._entries.values()} == {stage.nodes[0].node_id}
    assert files_of(job, "aggregated_params_*.mpk")


def test_local_job_is_found_here_too() -> None:
    assert localJob.__name__ == "localJob"


def test_only_the_nodes_of_the_data_set_may_read_the_files(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage, data=FederatedDataSet({a.node_id: dataset()}))
    job.start_nodes_training_round(0, {}, {})
    order = a.wait_for(TrainRequest)[0]
    with pytest.raises(FedbiomedRepositoryError, match="may not read"):
        b.files.get(order.params, stage.folder / "stolen.mpk")
    assert isinstance(b, ScriptedNode)


def test_large_arguments_are_uploaded_once(stage: MemoryStage) -> None:
    a, b = stage.node("a"), stage.node("b")
    job = make_job(stage)
    assert job.repo is job.requests.connection.files
    same = {"correction": {"weight": np.ones((1, 1))}, "aggregator_name": "Scaffold"}
    completed = job.upload_aggregator_args({a.node_id: {"step": 1}}, {a.node_id: same, b.node_id: same})
    assert completed[a.node_id]["step"] == 1
    assert completed[a.node_id]["correction"] == completed[b.node_id]["correction"]
    assert set(completed[b.node_id]) == {"correction"}
    assert set(completed[b.node_id]["correction"]) == {"arg_name", "filename", "url"}
    assert job.aggregator_args == completed
