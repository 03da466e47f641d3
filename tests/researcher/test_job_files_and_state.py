"""Jobs: parameters, files and auxiliary variables that travel, what is saved and goes on."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.exceptions import (
    FedbiomedError,
    FedbiomedJobError,
    FedbiomedRepositoryError,
    FedbiomedResponsesError,
    FedbiomedTrainingPlanError,
)
from fedbiomed.common.messages.training import OrderCancelled, TrainRequest
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.job import Job, localJob
from fedbiomed.researcher.responses import Responses
from tests.support.jobs import PARAMS, files_of, make_job, saved_folder
from tests.support.researchers import MemoryStage, dataset
from tests.support.scripted_node import ScriptedNode, silent, trained


class ByArgs(TorchTrainingPlan):
    """One weight and one bias, also under a layer that keeps running statistics; a learning rate as it is told."""

    def init_model(self, model_args):
        return nn.Sequential(nn.BatchNorm1d(1)) if model_args.get("normed") else nn.Linear(1, 1)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args.get("lr", 0.1))

    def training_data(self):
        return None

    def training_step(self, data, target):
        return self.model()(data).mean()


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
    nodes, states = list(job.nodes), job.save_state_breakpoint(saved_folder(stage, "0"))["node_state"]

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
    assert job.save_state_breakpoint(saved_folder(stage, "1"))["node_state"] == states
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


def test_a_job_goes_on_from_its_saved_state(stage: MemoryStage) -> None:
    a, b = stage.node("a", trained(PARAMS)), stage.node("b")
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    job.update_parameters(PARAMS)
    job.start_nodes_training_round(2, {}, {}, do_training=False)
    folder = saved_folder(stage, "0002")
    saved = job.save_state_breakpoint(str(folder))
    assert {"researcher_id", "job_id", "model_params_path", "training_replies", "node_state"} <= saved.keys()
    assert Path(saved["model_params_path"]) == folder / "aggregated_params_current.mpk"
    assert [len(replies) for replies in saved["training_replies"]] == [2, 0, 2]
    assert "params" not in saved["training_replies"][0][0]
    assert len(list(folder.glob("node_params_*.mpk"))) == 2
    assert job.save_state_breakpoint(folder) == saved  # a second time into the same folder
    job.update_parameters({**PARAMS, "weight": np.full((1, 1), 4.0, dtype=np.float32)})
    later = job.save_state_breakpoint(folder)  # with other parameters the name is taken
    assert Path(later["model_params_path"]) == folder / "aggregated_params_current_01.mpk"
    assert Serializer.load(later["model_params_path"])["model_weights"]["weight"].tolist() == [[4.0]]
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


def test_what_is_small_outlives_the_file_of_a_reply(stage: MemoryStage) -> None:
    a = stage.node("a", trained(PARAMS))
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    reply = job.training_replies[0][0]
    Path(reply["params_path"]).unlink()
    reply["params_path"] = reply["params"] = reply["optim_aux_var"] = None
    saved = job.save_state_breakpoint(saved_folder(stage, "0000"))
    other = make_job(stage, keep_files_dir=None)
    other.load_state_breakpoint(json.loads(json.dumps(saved)))
    assert other.training_replies[0][0]["optimizer_args"] == {"lr": 0.1}
    assert (other.training_replies[0][0]["node_id"], other.training_replies[0][0]["params"]) == (a.node_id, None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"data": [1]}, "a dict of one dataset per node"),
        ({"data": {"node_a": 1}}, "described by a dict"),
        ({"model_args": [1]}, "model_args must be a dict or None"),
        ({"training_args": [1]}, "training_args must be a dict"),
        ({"keep_files_dir": 5}, "keep_files_dir 5 is no folder"),
        ({"keep_files_dir": __file__}, "is no folder to write into"),
        ({"training_plan_path": 5, "training_plan_class": "ByArgs"}, "the path of a Python file"),
    ],
)
def test_a_wrong_argument_is_one_error_and_leaves_nothing_behind(stage: MemoryStage, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(FedbiomedError, match=words):
        make_job(stage, **wrong)
    assert stage.shared._entries == {}


@pytest.mark.parametrize("wrong", [{"model_params_path": "/nowhere.mpk"}, {"node_state": {}}])
def test_a_state_that_cannot_be_taken_over_changes_nothing(stage: MemoryStage, wrong: dict[str, Any]) -> None:
    stage.node("a", trained(PARAMS))
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {})
    saved = job.save_state_breakpoint(saved_folder(stage, "0000"))
    other = make_job(stage, keep_files_dir=None)
    before = other.id
    with pytest.raises(FedbiomedError):
        other.load_state_breakpoint({**saved, **wrong})
    assert (other.id, other.training_replies, other.failures) == (before, {}, {})


def test_other_training_arguments_reach_the_plan_and_leave_the_rest(stage: MemoryStage) -> None:
    job = make_job(stage, training_plan_class=ByArgs, training_args=TrainingArgs({"epochs": 1, "random_seed": 1}))
    job.update_parameters({**PARAMS, "bias": np.full(1, 0.5, dtype=np.float32)})
    plan, drawn = job.training_plan, torch.random.get_rng_state().tolist()
    job.training_args = {"epochs": 3, "random_seed": 1, "optimizer_args": {"lr": 0.5}}
    assert job.training_plan is plan
    assert plan.training_args()["epochs"] == 3
    assert plan.optimizer().optimizer.param_groups[0]["lr"] == 0.5
    assert [value.item() for value in plan.get_model_params().values()] == [3.0, 0.5]
    assert torch.random.get_rng_state().tolist() == drawn  # though a seed is among them
    model = plan.model()
    job.training_args = {**job.training_args, "test_ratio": 0.5}
    assert plan.model() is model  # tests are none of its business
    before = job.training_args
    with pytest.raises(FedbiomedTrainingPlanError, match="Invalid learning rate"):
        job.training_args = {"epochs": 4, "optimizer_args": {"lr": -1.0}}
    assert job.training_args == before
    assert (plan.model(), plan.training_args()["epochs"]) == (model, 3)


def test_differential_privacy_that_is_asked_for_later_changes_the_researchers_model_too(stage: MemoryStage) -> None:
    pytest.importorskip("opacus", reason="differential privacy is an extra")
    job = make_job(stage, training_plan_class=ByArgs, model_args={"normed": True})
    assert "0.running_mean" in job.training_plan.get_model_params()
    job.training_args = {"epochs": 1, "dp_args": {"sigma": 0.1, "clip": 1.0}}
    assert sorted(job.training_plan.get_model_params()) == ["0.bias", "0.weight"]


def test_the_last_order_has_the_public_names(stage: MemoryStage) -> None:
    stage.node("a", trained(PARAMS))
    job = make_job(stage)
    job.start_nodes_training_round(0, {}, {}, optim_aux_var={"momentum": {"beta": 0.9}})
    told = job.last_msg
    assert told is not None
    assert (told["training_plan_class"], told["training"], told["round"], told["dataset_id"]) == ("TinyPlan", True, 0, "dataset_1")
    assert (told["secagg_servkey_id"], told["secagg_biprime_id"], told["secagg_random"], told["secagg_clipping_range"]) == (None,) * 4
    job.validate_minimal_arguments(told, ("researcher_id", "job_id", "state_id", "training_plan_url", "params_url", "model_args"))
    assert len(told["aux_var_urls"]) == 1
    job.start_nodes_training_round(1, {}, {})
    assert job.last_msg is not None
    assert job.last_msg["aux_var_urls"] is None


def test_every_operators_decision_is_told(stage: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    stage.settings["answer_timeout_s"] = 0.5
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
