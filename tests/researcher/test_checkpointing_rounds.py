"""Checkpoints over whole rounds: on real nodes, and of aggregated models, through breakpoints."""

import json
import re
from pathlib import Path

import pytest
import torch

from fedbiomed.common.checkpointing import (
    BestLossCheckpointer,
    BestMetricCheckpointer,
    FunctionCheckpointer,
    LatestCheckpointer,
    PerRoundStateCheckpointer,
    ServerCheckpointAndStateModule,
)
from fedbiomed.common.constants import Phase
from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedExperimentError
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher import server_checkpoints
from fedbiomed.researcher.events import ModelTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.history import Point
from tests.support.plans import KeepingPlan

ARGS = {"num_updates": 3, "loader_args": {"batch_size": 8}, "test_ratio": 0.25, "random_seed": 5, "test_on_global_updates": True}


EXPERIMENT = {"training_plan_class": KeepingPlan, "training_args": ARGS}


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])) for name, value in one.items()
    )


def kept_by(federation, experiment, index):
    return federation.root / f"node_{index}" / "var" / "checkpoints" / experiment.job().id


def test_nodes_keep_the_best_local_and_the_latest_global_model(federation, made):
    experiment = made(round_limit=3)
    assert experiment.run() == 3
    rounds = [experiment.aggregated_params()[round_]["params"] for round_ in range(3)]
    for index in range(2):
        folder = kept_by(federation, experiment, index)
        names = {path.name for path in folder.iterdir()}
        assert names == {"best_local.mpk", "latest_global.mpk", *(f"state_round_{round_:06d}.mpk" for round_ in range(3))}
        # the validation after the last round brought its aggregate
        assert equal(LatestCheckpointer(folder, "latest_global").load_checkpoint(), rounds[2])
        replies = [next(r for r in experiment.training_replies()[round_] if r["node_id"] == f"node_{index}") for round_ in range(3)]
        losses = [re.search(r"kept best_local.mpk, loss ([0-9.e-]+) \(pre_aggregation\)", reply["msg"]) for reply in replies]
        best = BestLossCheckpointer(folder, "best_local")
        told = [(float(found[1]), round_) for round_, found in enumerate(losses) if found]
        assert told[0][1] == 0
        assert told == sorted(told, key=lambda pair: -pair[0])  # each one told is better than the one before
        assert told[-1][0] == pytest.approx(best.best_score, rel=1e-5)
        assert equal(best.load_checkpoint(), replies[told[-1][1]]["params"])
        assert "kept latest_global.mpk (post_aggregation)" in replies[1]["msg"]
        state = Serializer.load(folder / "state_round_000002.mpk")["state"]["training"]
        assert state["counters"]["value"] == {"total_steps": 9}
        assert float(state["optimizers"]["value"]["state"][0]["step"]) == 9


def accurate(loss, metrics):
    return -metrics["Loss"]


def test_the_researcher_keeps_aggregated_models_and_a_breakpoint_goes_on(made, requests):
    experiment = made(round_limit=4, save_breakpoints=True)
    folder = Path(experiment.experimentation_path())
    keepers = [
        BestLossCheckpointer(folder / "kept", "best"),
        BestMetricCheckpointer(folder / "kept", "worst", "Loss", maximize=True),
        FunctionCheckpointer(folder / "kept", "function", accurate, maximize=True),
        LatestCheckpointer(folder / "kept", "latest"),
    ]
    module = ServerCheckpointAndStateModule(keepers, PerRoundStateCheckpointer(folder / "kept"))
    assert experiment.set_checkpointer(module) is module is experiment.checkpointer()
    experiment.run(rounds=2)
    assert equal(keepers[3].load_checkpoint(), experiment.aggregated_params()[1]["params"])
    assert equal(keepers[0].load_checkpoint(), experiment.aggregated_params()[0]["params"])  # that of round 1 is not measured yet
    resumed = Experiment.load_breakpoint(folder / "breakpoint_0001", requests=requests, show_progress=False)
    again = resumed.checkpointer()
    assert [(type(k), k.checkpoint_path) for k in again.model_checkpointers] == [(type(k), k.checkpoint_path) for k in keepers]
    assert again.state_checkpointer.checkpoint_dir == folder / "kept"
    assert again.model_checkpointers[0].best_score == keepers[0].best_score
    resumed.run()
    models = [resumed.aggregated_params()[round_]["params"] for round_ in range(4)]
    assert equal(again.model_checkpointers[3].load_checkpoint(), models[3])
    rows = resumed.training_data().shapes()
    measured = []
    for round_ in range(1, 5):
        points = [p for p in resumed._history.points() if (p.round, p.metric, p.phase) == (round_, "Loss", Phase.TEST_GLOBAL)]
        by_node = {node: [p.value for p in points if p.node == node] for node in rows}
        measured.append(sum(rows[n] * sum(v) / len(v) for n, v in by_node.items()) / sum(rows.values()))
    for number, best in ((0, min(measured)), (1, max(measured)), (2, min(measured))):
        assert equal(again.model_checkpointers[number].load_checkpoint(), models[measured.index(best)])
    assert again.model_checkpointers[0].best_score == pytest.approx(min(measured))


def test_what_a_breakpoint_names_must_be_there(made, requests):
    experiment = made(save_breakpoints=True)
    state = server_checkpoints.save(ServerCheckpointAndStateModule(LatestCheckpointer("/elsewhere", "a")), Path("/here"))
    assert server_checkpoints.load(json.loads(json.dumps(state)), Path("/there")).model_checkpointers[0].checkpoint_path == Path(
        "/elsewhere/a.mpk"
    )
    keeper = FunctionCheckpointer(experiment.experimentation_path(), "a", accurate)
    state = server_checkpoints.save(ServerCheckpointAndStateModule(keeper), Path(experiment.experimentation_path()))
    entry = state["parameters"]["model_checkpointers"][0]
    assert entry["parameters"]["checkpoint_dir"] == "."
    for change in (
        {"class": "Popen", "module": "subprocess"},
        {"parameters": {**entry["parameters"], "score_fn": ["os", "gone"]}},
        {"parameters": 3},
    ):
        wrong = {**state, "parameters": {**state["parameters"], "model_checkpointers": [{**entry, **change}]}}
        with pytest.raises(FedbiomedBreakpointError):
            server_checkpoints.load(wrong, Path())
    assert server_checkpoints.load(None, Path()) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda folder: "best", "ServerCheckpointAndStateModule"),
        (lambda folder: ServerCheckpointAndStateModule(FunctionCheckpointer(folder, "a", lambda loss, metrics: loss)), "top of its module"),
    ],
)
def test_checkpointers_that_are_refused(made, tmp_path, wrong, words):
    experiment = made()
    with pytest.raises(FedbiomedExperimentError, match=words):
        experiment.set_checkpointer(wrong(tmp_path))
    assert experiment.checkpointer() is None


def test_a_score_needs_a_validation(made, tmp_path):
    experiment = made(training_args={**ARGS, "test_on_global_updates": False})
    experiment.set_checkpointer(ServerCheckpointAndStateModule(BestLossCheckpointer(tmp_path, "best")))
    with pytest.raises(FedbiomedExperimentError, match="set_test_on_global_updates"):
        experiment.run_once(increase=True)
    assert experiment.round_current() == 0


def test_nodes_count_by_their_rows():
    def point(node, value, metric="Loss"):
        return Point(round=1, node=node, dataset="d", phase="p", metric=metric, value=value, iteration=1, epoch=None)

    points = [point("a", 1.0), point("a", 3.0), point("b", 4.0), point("b", 1.0, "F1")]
    # a: mean 2 of 10 rows, b: 4 of 30 rows: (20 + 120) / 40; only b tells of F1
    assert server_checkpoints.weighted_values(points, {"a": 10, "b": 30}) == {"Loss": 3.5, "F1": 1.0}


class Told(ServerCheckpointAndStateModule):
    """Writes down of which models it is told what they score."""

    def __init__(self, *args):
        super().__init__(*args)
        self.heard = []

    def measured_model(self, model, loss, metrics):
        self.heard.append((dict(model), loss))
        super().measured_model(model, loss, metrics)


@pytest.mark.parametrize(("trainer", "known"), [(ModelTrainer, [1, 2, 3]), (None, [0, 1, 3])])
def test_when_the_best_aggregated_model_is_known(made, trainer, known):
    experiment = made(trainer=trainer, round_limit=3)
    best = BestLossCheckpointer(Path(experiment.experimentation_path()) / "kept", "best")
    module = experiment.set_checkpointer(Told(best))
    found = []
    for _ in range(3):
        experiment.run(rounds=1)
        found.append(len(module.heard))
    assert found == known, "after a model test at once; else with the next round, and after the last one by its own test"
    assert all(equal(model, experiment.aggregated_params()[round_]["params"]) for round_, (model, _) in enumerate(module.heard))
    losses = [loss for _, loss in module.heard]
    assert best.best_score == min(losses)
    assert equal(best.load_checkpoint(), module.heard[losses.index(min(losses))][0])
