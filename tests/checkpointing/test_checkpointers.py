"""Which models are kept: the table of decisions, wrong inputs, files that are whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDRegressor
from torch import nn

from fedbiomed.common.checkpointing import (
    BestLossCheckpointer,
    BestMetricCheckpointer,
    Checkpointer,
    CheckpointMode,
    ClientCheckpointAndStateModule,
    FunctionCheckpointer,
    LatestCheckpointer,
    PerRoundStateCheckpointer,
    ServerCheckpointAndStateModule,
)
from fedbiomed.common.exceptions import FedbiomedCheckpointError, FedbiomedTypeError, FedbiomedValueError, FedbiomedVersionError
from fedbiomed.common.models.sklearn_model import SGDRegressorModel
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.serializer import Serializer

NAN = float("nan")
PRE, POST = CheckpointMode.PRE_AGGREGATION, CheckpointMode.POST_AGGREGATION


def marked(value):
    """Parameters that tell which model they are."""
    return {"w": np.full(3, float(value))}


def mark_of(keeper):
    return float(keeper.load_checkpoint()["w"][0])


@pytest.mark.parametrize(
    ("scores", "maximize", "saved", "kept"),
    [
        ([1.0, 1.0, 0.5, 0.7, 0.5, 0.4], False, "YYYNYY", 5),  # equal ones save: the later model wins
        ([0.3, 0.0, 0.5, 0.2], False, "YYNN", 1),  # 0.0 is a score, not "no best yet"
        ([0.0, 0.1, 0.2], False, "YNN", 0),
        ([NAN, 0.5, 0.1], False, "NYY", 2),
        ([0.5, NAN, 0.4], False, "YNY", 2),
        ([float("-inf"), 0.5], False, "NY", 1),
        ([-1, 0, -3, -2], True, "YYNN", 1),
        ([0, 0, 0.5, 0.4, 0.5], True, "YYYNY", 4),
        ([NAN, -5.0], True, "NY", 1),
        ([NAN], False, "N", None),
    ],
)
@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_table_of_decisions(  # noqa: PLR0917  the columns of the table
    tmp_path, scores, maximize, saved, kept, is_restarted
):
    def make():
        return FunctionCheckpointer(tmp_path, "best", lambda loss, metrics: loss, "score", maximize=maximize)

    keeper, decisions = make(), ""
    assert keeper.best_score is None
    for index, score in enumerate(scores):
        keeper = make() if is_restarted else keeper
        decisions += "Y" if keeper.maybe_checkpoint(marked(index), score, {}) else "N"
    assert decisions == saved
    if kept is None:
        assert not keeper.checkpoint_path.exists()
        return
    assert mark_of(keeper) == kept
    assert make().best_score == scores[kept]


def test_best_metric_says_its_direction_and_misses_loudly(tmp_path):
    keeper = BestMetricCheckpointer(tmp_path, "best", "ACCURACY", "val - ", maximize=True)
    for index, value in enumerate([0.5, 0.4, 0.6]):
        keeper.maybe_checkpoint(marked(index), 0.0, {"val - ACCURACY": value})
    assert mark_of(keeper) == 2
    with pytest.raises(KeyError, match=r"val - ACCURACY.*F1"):
        keeper.maybe_checkpoint(marked(3), 0.0, {"F1": 1.0})
    with pytest.raises(TypeError):
        BestMetricCheckpointer(tmp_path, "best", "ACCURACY")
    assert BestMetricCheckpointer(**keeper.parameters()).best_score == 0.6


def test_latest_keeps_every_call(tmp_path):
    keeper = LatestCheckpointer(tmp_path / "made" / "when needed", "latest")
    assert not (tmp_path / "made").exists()
    assert all(keeper.maybe_checkpoint(marked(index), NAN, {}) for index in range(4))
    assert mark_of(keeper) == 3
    assert list((tmp_path / "made" / "when needed").iterdir()) == [keeper.checkpoint_path]


class EveryOther(Checkpointer):
    """One of a user's own: keeps each second model."""

    calls = 0

    def maybe_checkpoint(self, model, loss, metrics):
        self.calls += 1
        if self.calls % 2:
            self._write(model, {"score": None})
        return bool(self.calls % 2)


_FAMILY = [
    EveryOther,
    LatestCheckpointer,
    BestLossCheckpointer,
    lambda folder, name: BestMetricCheckpointer(folder, name, "F1", maximize=True),
    lambda folder, name: FunctionCheckpointer(folder, name, lambda loss, metrics: loss),
]


@pytest.mark.parametrize("make", _FAMILY)
def test_what_all_checkpointers_do(tmp_path, make):
    keeper = make(tmp_path, "model")
    assert isinstance(keeper, Checkpointer)
    assert keeper.maybe_checkpoint(marked(1), 0.5, {"F1": 0.5}) is True
    net = nn.Linear(2, 1)
    assert make(tmp_path, "model").load_checkpoint()["w"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(FedbiomedCheckpointError, match="does not belong to this model"):
        keeper.load_checkpoint(net)
    make(tmp_path, "net").maybe_checkpoint(net, 0.5, {"F1": 0.5})
    assert keeper.load_checkpoint(path=tmp_path / "net.mpk").keys() == {"weight", "bias"}
    assert keeper.parameters()["checkpoint_name"] == "model.mpk"


def test_slots_have_their_own_best(tmp_path):
    pre, post = BestLossCheckpointer(tmp_path, "pre"), BestLossCheckpointer(tmp_path, "post")
    module = ClientCheckpointAndStateModule(pre, [post])
    for loss, mode in ((0.5, PRE), (0.3, POST), (0.4, "pre_aggregation"), (0.35, POST)):
        module.maybe_checkpoint(marked(loss), loss, {}, mode)
    assert (mark_of(pre), mark_of(post)) == (0.4, 0.3)
    assert module.checkpointers() == (pre, post)
    with pytest.raises(ValueError, match="pre_aggregation, post_aggregation"):
        module.maybe_checkpoint(marked(0), 0.0, {}, "later")


def test_one_that_fails_does_not_keep_the_others_from_it(tmp_path):
    failing, latest = BestMetricCheckpointer(tmp_path, "best", "F1", maximize=True), LatestCheckpointer(tmp_path, "latest")
    with pytest.raises(KeyError, match="F1"):
        ClientCheckpointAndStateModule([failing, latest]).maybe_checkpoint(marked(4), 0.0, {}, PRE)
    assert mark_of(latest) == 4


def test_a_score_function_that_fails_does_not_either(tmp_path):
    failing, latest = FunctionCheckpointer(tmp_path, "own", lambda loss, metrics: metrics["F1"]), LatestCheckpointer(tmp_path, "latest")
    with pytest.raises(KeyError, match="F1"):
        ClientCheckpointAndStateModule([failing, latest]).maybe_checkpoint(marked(4), 0.0, {}, PRE)
    assert mark_of(latest) == 4


def test_the_modes_have_fixed_values():
    assert (CheckpointMode.PRE_AGGREGATION.value, CheckpointMode.POST_AGGREGATION.value) == ("pre_aggregation", "post_aggregation")
    assert len(CheckpointMode) == 2


def test_an_empty_slot_does_nothing(tmp_path):
    module = ClientCheckpointAndStateModule(pre_aggregation=LatestCheckpointer(tmp_path, "model"))
    module.maybe_checkpoint(marked(0), 0.0, {}, POST)
    assert list(tmp_path.iterdir()) == []


def test_two_checkpointers_on_one_path_are_refused(tmp_path):
    one, other = LatestCheckpointer(tmp_path, "model"), BestLossCheckpointer(f"{tmp_path}/../{tmp_path.name}", "model.mpk")
    for slots in ({"pre_aggregation": one, "post_aggregation": other}, {"pre_aggregation": [one, other]}):
        with pytest.raises(ValueError, match=r"two checkpointers write to .*model\.mpk"):
            ClientCheckpointAndStateModule(**slots)
    with pytest.raises(ValueError, match="two checkpointers"):
        ServerCheckpointAndStateModule([one, other])


@pytest.mark.parametrize("wrong", ["text", 1, LatestCheckpointer, [None]])
def test_a_slot_takes_checkpointers(wrong):
    with pytest.raises(FedbiomedTypeError, match="pre_aggregation takes"):
        ClientCheckpointAndStateModule(pre_aggregation=wrong)
    with pytest.raises(FedbiomedTypeError, match="state_checkpointer"):
        ClientCheckpointAndStateModule(state_checkpointer=wrong)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 129, "a\0b"])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(FedbiomedValueError, match="name of a checkpoint"):
        LatestCheckpointer(tmp_path, name)


def test_wrong_arguments(tmp_path):
    with pytest.raises(FedbiomedTypeError):
        LatestCheckpointer(None, "a")
    with pytest.raises(FedbiomedTypeError):
        LatestCheckpointer(tmp_path, 3)
    with pytest.raises(FedbiomedTypeError, match="score_fn"):
        FunctionCheckpointer(tmp_path, "a", "loss")
    with pytest.raises(FedbiomedTypeError, match="maximize"):
        FunctionCheckpointer(tmp_path, "a", max, maximize=1)
    with pytest.raises(FedbiomedTypeError, match="must be a number"):
        BestLossCheckpointer(tmp_path, "a").maybe_checkpoint(marked(0), "low", {})
    for model in (object(), {"w": "text"}):
        with pytest.raises(FedbiomedCheckpointError):
            LatestCheckpointer(tmp_path, "a").maybe_checkpoint(model, 0.0, {})
    assert list(tmp_path.iterdir()) == []


def test_weights_go_back_into_modules_and_models(tmp_path):
    torch.manual_seed(1)
    module, other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    keeper = LatestCheckpointer(tmp_path, "net")
    keeper.maybe_checkpoint(TorchModel(module), 0.0, {})
    keeper.load_checkpoint(other)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
    line = SGDRegressorModel(SGDRegressor(), n_features=2)
    line.set_weights({"coef_": np.array([1.0, 2.0]), "intercept_": np.array([3.0])})
    keeper.maybe_checkpoint(line, 0.0, {})
    fresh = SGDRegressorModel(SGDRegressor(), n_features=2)
    keeper.load_checkpoint(fresh)
    assert fresh.get_weights()["coef_"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("other", "words"), [(nn.Linear(2, 2), "shape"), (nn.Linear(2, 1, bias=False), "in excess"), (nn.Bilinear(1, 1, 1), "shape")]
)
def test_another_model_is_refused_and_untouched(tmp_path, other, words):
    keeper = LatestCheckpointer(tmp_path, "net")
    keeper.maybe_checkpoint(nn.Linear(2, 1), 0.0, {})
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(FedbiomedCheckpointError, match=words):
        keeper.load_checkpoint(other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_files_that_are_no_checkpoints(tmp_path):
    keeper = BestLossCheckpointer(tmp_path, "best")
    with pytest.raises(FedbiomedCheckpointError, match="there is no checkpoint"):
        keeper.load_checkpoint()
    keeper.maybe_checkpoint(marked(1), 1.0, {})
    whole = keeper.checkpoint_path.read_bytes()
    for content in (b"", whole[:-5], Serializer.dumps([1]), Serializer.dumps({"checkpoint_version": "1", "kind": "state"})):
        keeper.checkpoint_path.write_bytes(content)
        with pytest.raises(FedbiomedCheckpointError):
            BestLossCheckpointer(tmp_path, "best").maybe_checkpoint(marked(2), 0.5, {})
        assert keeper.checkpoint_path.read_bytes() == content
    keeper.checkpoint_path.write_bytes(Serializer.dumps({"checkpoint_version": "99", "kind": "model"}))
    with pytest.raises(FedbiomedVersionError, match="99"):
        keeper.load_checkpoint()


def test_a_file_kept_by_another_score_is_not_taken_up(tmp_path):
    BestLossCheckpointer(tmp_path, "best").maybe_checkpoint(marked(1), 1.0, {})
    with pytest.raises(FedbiomedCheckpointError, match="was kept by 'loss'"):
        BestMetricCheckpointer(tmp_path, "best", "F1", maximize=True).maybe_checkpoint(marked(2), 1.0, {"F1": 2.0})


def test_a_model_that_cannot_be_written_leaves_the_former_one(tmp_path):
    keeper = BestLossCheckpointer(tmp_path, "best")
    keeper.maybe_checkpoint(marked(1), 1.0, {})
    with pytest.raises(FedbiomedCheckpointError, match="cannot keep"):
        keeper.maybe_checkpoint({"w": np.array(["text"])}, 0.5, {})
    assert (mark_of(keeper), keeper.best_score, len(list(tmp_path.iterdir()))) == (1, 1.0, 1)
    (tmp_path / "file").touch()
    with pytest.raises(FedbiomedCheckpointError, match="cannot write"):
        LatestCheckpointer(tmp_path / "file", "a").maybe_checkpoint(marked(0), 0.0, {})


_WRITER = """
import sys, numpy as np
from fedbiomed.common.checkpointing.latest import LatestCheckpointer
keeper = LatestCheckpointer(sys.argv[1], "model")
for index in range(10**9):
    keeper.maybe_checkpoint({"w": np.full(200_000, float(index))}, 0.0, {})
    if index in (2, 40):
        print("written", flush=True)
"""


def test_a_reader_never_sees_half_a_file(tmp_path):
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        writer.stdout.readline()
        keeper = LatestCheckpointer(tmp_path, "model")
        seen = [np.unique(keeper.load_checkpoint()["w"]) for _ in range(50)]
        writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)  # in the middle of the next ones
        writer.wait(30)
    assert all(len(values) == 1 for values in [*seen, np.unique(keeper.load_checkpoint()["w"])])
    (tmp_path / ".model.mpk.killed.part").write_bytes(b"half")
    keeper.maybe_checkpoint(marked(1), 0.0, {})
    assert list(tmp_path.iterdir()) == [keeper.checkpoint_path]


def test_states_by_name(tmp_path):
    module = ClientCheckpointAndStateModule(state_checkpointer=PerRoundStateCheckpointer(tmp_path))
    assert module.maybe_load_state("client") is None
    module.save_state("client", {"round": 1, "moments": np.arange(3.0)})
    module.save_state("client", {"round": 2, "moments": np.arange(4.0)})
    again = ClientCheckpointAndStateModule(state_checkpointer=PerRoundStateCheckpointer(tmp_path)).maybe_load_state("client")
    assert (again["round"], again["moments"].tolist()) == (2, [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(FedbiomedTypeError):
        module.save_state("client", [1])
    with pytest.raises(FedbiomedCheckpointError, match="cannot keep"):
        module.save_state("client", {"plan": object()})
    assert module.maybe_load_state("client")["round"] == 2


def test_a_state_checkpointer_alone(tmp_path):
    keeper = PerRoundStateCheckpointer(tmp_path)
    assert not keeper.checkpoint_exists("node")
    with pytest.raises(FedbiomedCheckpointError, match="no checkpoint"):
        keeper.load_checkpoint("node")
    keeper.save_checkpoint("node", {"steps": 3})
    assert keeper.checkpoint_exists("node")
    assert keeper.load_checkpoint("node") == {"steps": 3}
    with pytest.raises(FedbiomedTypeError, match="snapshot_attrs"):
        PerRoundStateCheckpointer(tmp_path, "scheduler")


@pytest.mark.parametrize("module", [ClientCheckpointAndStateModule(), ServerCheckpointAndStateModule()])
def test_without_a_state_checkpointer(module):
    for action in (lambda: module.save_state("a", {}), lambda: module.maybe_load_state("a")):
        with pytest.raises(ValueError, match="no state checkpointer"):
            action()


def test_the_server_module_waits_for_the_score(tmp_path):
    best, latest = BestLossCheckpointer(tmp_path, "best"), LatestCheckpointer(tmp_path, "latest")
    module = ServerCheckpointAndStateModule([best, latest], PerRoundStateCheckpointer(tmp_path))
    assert module.needs_score
    module.new_model(marked(1))
    assert not best.checkpoint_path.exists()
    module.measured_model(marked(1), 0.0, {})
    module.maybe_checkpoint(marked(2), 0.5, {})
    assert (mark_of(best), best.best_score, mark_of(latest)) == (1, 0.0, 2)
    module.save_state("server", {"round": 3})
    assert module.maybe_load_state("server") == {"round": 3}


def test_there_is_no_pickle_in_a_file(tmp_path):
    keeper = LatestCheckpointer(Path(tmp_path), "net")
    keeper.maybe_checkpoint(nn.Linear(1, 1), 0.0, {})
    content = Serializer.load(keeper.checkpoint_path)
    assert content["checkpoint_version"] == "1"
    assert content["params"].keys() == {"weight", "bias"}


def test_aggregated_arrays_are_loaded_into_a_torch_module(tmp_path):
    keeper, net = LatestCheckpointer(tmp_path, "aggregated"), nn.BatchNorm1d(1, affine=False)
    means = {"running_mean": np.array([0.5]), "running_var": np.array([2.0]), "num_batches_tracked": np.array(37.8)}
    keeper.maybe_checkpoint(means, 0.0, {})
    keeper.load_checkpoint(net)
    assert (net.running_mean.item(), net.num_batches_tracked.item()) == (0.5, 38)
