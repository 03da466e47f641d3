"""Breakpoints of whole experiments, over real nodes and transports in memory."""

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedExperimentError
from fedbiomed.researcher.aggregators import Aggregator, FedAverage
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.memory_federation import TAGS
from tests.support.plans import LinePlan, SidePlan

NODE_COUNT = 3

TORCH = {
    "training_plan_class": LinePlan,
    "training_args": {"epochs": 2, "loader_args": {"batch_size": 8}, "random_seed": 7, "test_ratio": 0.2},
}
SKLEARN = {
    "training_plan_class": SidePlan,
    "model_args": {"n_features": 2, "n_classes": 2, "loss": "log_loss"},
    "training_args": {"epochs": 2, "loader_args": {"batch_size": 8}, "random_seed": 7, "test_ratio": 0.25, "test_on_global_updates": True},
}


class TwoAtRandom(Strategy):
    """Two nodes, drawn by numpy and by Python; remembers whom."""

    def __init__(self, data=None):
        super().__init__(data)
        self.drawn = []

    def sample_nodes(self, round_i):
        nodes = sorted(self._data.node_ids())
        first = nodes.pop(int(np.random.randint(len(nodes))))
        self.drawn.append([first, random.choice(nodes)])
        return list(self.drawn[-1])

    def _parameters(self):
        return {"drawn": self.drawn}

    def load_state_breakpoint(self, state):
        super().load_state_breakpoint(state)
        self.drawn = state["parameters"]["drawn"]


class Slow(Aggregator):
    """Half a step towards the first node's parameters; its state is a file of its own."""

    def __init__(self):
        super().__init__()
        self.last = {}

    def aggregate(self, model_params, weights, *args, **kwargs):
        first = next(iter(model_params.values()))
        self.last = {name: value / 2 + self.last.get(name, 0) / 2 for name, value in first.items()}
        return dict(self.last)

    def save_state_breakpoint(self, breakpoint_path=None, **kwargs):
        path = Path(breakpoint_path) / "slow.pt"
        torch.save(self.last, path)
        return {**super().save_state_breakpoint(breakpoint_path), "parameters": {"last": str(path)}}

    def load_state_breakpoint(self, state):
        super().load_state_breakpoint(state)
        self.last = torch.load(state["parameters"]["last"], weights_only=True)


EXPERIMENT = {"save_breakpoints": True, **TORCH}


def loaded(requests, folder=None):
    return Experiment.load_breakpoint(folder, requests=requests, show_progress=False)


def last(experiment):
    return Path(experiment.experimentation_path()) / f"breakpoint_{experiment.round_current() - 1:04d}"


def weights(experiment, round_):
    return {name: np.asarray(value).tobytes() for name, value in experiment.aggregated_params()[round_]["params"].items()}


@pytest.fixture
def finished(made):
    """An experiment of one round, with its breakpoint."""
    experiment = made(round_limit=3)
    experiment.run(rounds=1)
    return experiment


@pytest.mark.parametrize("what", [TORCH, SKLEARN], ids=["torch", "sklearn"])
def test_two_rounds_and_two_more_are_four(made, requests, what):
    unbroken = made(round_limit=4, **what)
    assert unbroken.run() == 4
    broken = made(round_limit=4, **what)
    broken.run(rounds=2)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(99)  # what the process draws in between must not matter
    resumed = loaded(requests, last(broken))
    assert resumed.round_current() == 2
    assert resumed.run() == 2
    for round_ in range(4):
        assert weights(resumed, round_) == weights(unbroken, round_), round_
    assert weights(resumed, 3) != weights(resumed, 2)
    one, other = resumed.history, unbroken.history
    assert one[["round", "node", "metric", "value"]].equals(other[["round", "node", "metric", "value"]])
    for one, other in zip(resumed.training_replies()[1], unbroken.training_replies()[1], strict=True):
        assert all(np.array_equal(one["params"][name], other["params"][name]) for name in other["params"])


def test_strategy_and_aggregator_of_users_go_on(made, requests):
    random.seed(3)
    np.random.seed(3)
    unbroken = made(node_selection_strategy=TwoAtRandom, aggregator=Slow)
    unbroken.run(rounds=4)
    random.seed(3)
    np.random.seed(3)
    broken = made(node_selection_strategy=TwoAtRandom, aggregator=Slow)
    broken.run(rounds=2)
    resumed = loaded(requests, last(broken))
    assert isinstance(resumed.strategy(), TwoAtRandom)
    assert isinstance(resumed.aggregator(), Slow)
    resumed.run(rounds=2)
    assert resumed.strategy().drawn == unbroken.strategy().drawn
    assert len({tuple(drawn) for drawn in unbroken.strategy().drawn}) > 1
    assert weights(resumed, 3) == weights(unbroken, 3)


def test_everything_comes_back(made, requests):
    experiment = made(
        nodes=["node_0", "node_1"],
        node_selection_strategy=DefaultStrategy(min_nodes=1),
        round_limit=7,
        model_args={"n": [1, 2]},
        experimentation_folder="mine",
    )
    experiment.run(rounds=2)
    folder = last(experiment)
    assert folder.name == "breakpoint_0001"
    resumed = loaded(requests, folder)
    assert resumed.tags() == TAGS
    assert resumed.nodes() is None
    assert resumed.training_data().data() == experiment.training_data().data()
    assert type(resumed.aggregator()) is type(experiment.aggregator())
    assert resumed.strategy().min_nodes == 1
    assert (resumed.round_limit(), resumed.round_current()) == (7, 2)
    assert resumed.experimentation_path() == experiment.experimentation_path()
    assert resumed.training_plan_class() == "LinePlan"
    assert resumed.training_plan_path() == str(folder / "model_0001.py")
    assert resumed.model_args() == {"n": [1, 2]}
    assert resumed.training_args() == experiment.training_args()
    assert resumed.save_breakpoints() is True
    assert resumed.job().id == experiment.job().id
    assert resumed.history.equals(experiment.history)
    assert resumed.history_points().equals(experiment.history_points())
    assert sorted(resumed.aggregated_params()) == [0, 1]
    assert weights(resumed, 0) == weights(experiment, 0)
    assert sorted(resumed.training_replies()) == [0, 1]
    model, other = resumed.training_plan().model(), experiment.training_plan().model()
    assert all(torch.equal(one, two) for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for one, two in zip(resumed.training_replies()[1], experiment.training_replies()[1], strict=True):
        assert one["params_path"] == two["params_path"]
        assert {key: one[key] for key in one if "params" not in key} == {key: two[key] for key in two if "params" not in key}


def test_the_folder_is_as_promised(finished):
    folder = last(finished)
    names = sorted(path.name for path in folder.iterdir())
    state = json.loads((folder / "breakpoint_0000.json").read_text(encoding="utf-8"))
    assert sorted(state["files"]) == [name for name in names if not name.endswith(".json")]
    assert {"breakpoint_0000.json", "model_0000.py", "aggregated_params_current.mpk", "random_states.mpk"} < set(names)
    assert sum(name.startswith("node_params_") for name in names) == 3
    assert state["breakpoint_version"] == "1"
    assert state["round_current"] == 1
    assert state["aggregator"] == {"class": "FedAverage", "module": "fedbiomed.researcher.aggregators.fedavg", "parameters": {}}
    assert set(state["node_selection_strategy"]) == {"class", "module", "parameters", "fds"}
    assert {"researcher_id", "job_id", "model_params_path", "training_replies", "node_state"} <= set(state["job"])
    assert "/" not in state["job"]["model_params_path"].removeprefix("./")


def test_a_breakpoint_can_be_written_by_hand(made, requests):
    experiment = made(save_breakpoints=False)
    with pytest.raises(FedbiomedExperimentError, match="no round is done"):
        experiment.breakpoint()
    experiment.run_once()
    assert not last(experiment).exists()
    experiment.breakpoint()
    assert loaded(requests).round_current() == 1


def test_without_a_path_the_newest_is_taken(made, finished, requests):
    made()  # a newer experiment without a breakpoint
    finished.run(rounds=1)
    assert loaded(requests).round_current() == 2
    assert loaded(requests, finished.experimentation_path()).round_current() == 2


def test_nothing_to_load(requests, tmp_path):
    with pytest.raises(FedbiomedBreakpointError, match="has a breakpoint"):
        loaded(requests)
    with pytest.raises(FedbiomedBreakpointError, match="nowhere"):
        loaded(requests, tmp_path / "nowhere")
    with pytest.raises(FedbiomedBreakpointError, match="is not a breakpoint"):
        loaded(requests, tmp_path)


def test_an_experiment_that_moved_goes_on_there(finished, federation, requests, tmp_path):
    expected = weights(finished, 0)
    with federation.researcher(tmp_path / "other") as others:
        target = others.connection.config.experiments / finished.experimentation_folder()
        shutil.copytree(finished.experimentation_path(), target)
        shutil.rmtree(finished.experimentation_path())
        resumed = loaded(others, target / "breakpoint_0000")
        assert resumed.experimentation_path() == str(target)
        assert weights(resumed, 0) == expected
        shutil.rmtree(target / "breakpoint_0000")  # its files were copied, not linked, and are those of the experiment all the same
        assert weights(resumed, 0) == expected
        assert resumed.run(rounds=1) == 1
        assert (target / "breakpoint_0001").is_dir()


def test_breakpoints_may_be_removed_after_a_resume(finished, requests, tmp_path):
    expected = weights(finished, 0)
    moved = tmp_path / "breakpoint_0000"
    shutil.copytree(last(finished), moved)
    for folder in (last(finished), moved):
        resumed = loaded(requests, folder)
        shutil.rmtree(folder)
        assert weights(resumed, 0) == expected
        assert len(resumed.training_replies()[0][0]["params"]) > 0
        resumed.run(rounds=1)
        assert loaded(requests, last(resumed)).round_current() == 2


def test_a_file_of_the_experiment_that_was_changed_is_not_used(finished, requests):
    expected = weights(finished, 0)
    path = Path(finished.aggregated_params()[0]["params_path"])
    path.unlink()
    path.write_bytes(b"other")
    assert weights(loaded(requests, last(finished)), 0) == expected


def test_a_moved_breakpoint_does_not_write_into_another_experiment(finished, made, requests, tmp_path):
    name = finished.experimentation_folder()
    moved = tmp_path / "usb" / "breakpoint_0000"
    shutil.copytree(last(finished), moved)
    resumed = loaded(requests, moved)
    assert resumed.experimentation_folder() != name
    shutil.rmtree(finished.experimentation_path())
    assert loaded(requests, moved).experimentation_folder() == name


def test_two_experiments_with_plans_of_one_name(made, requests):
    one = made()
    one.run_once()
    other = made(**SKLEARN)
    other.run_once()
    first, second = loaded(requests, last(one)), loaded(requests, last(other))
    assert type(first.training_plan()).__name__ == "LinePlan"
    assert type(second.training_plan()).__name__ == "SidePlan"


def test_going_back_to_an_earlier_round_takes_the_later_ones_place(finished, requests):
    finished.run(rounds=2)
    expected = weights(finished, 2)
    back = loaded(requests, Path(finished.experimentation_path()) / "breakpoint_0000")
    assert back.run(rounds=2) == 2
    again = loaded(requests, last(back))
    assert again.round_current() == 3
    assert weights(again, 2) == expected


def test_a_damaged_breakpoint_is_refused_and_changes_nothing(finished, requests, tmp_path):
    folders = sorted(path.name for path in requests.connection.config.experiments.iterdir())
    for index, name in enumerate(sorted(path.name for path in last(finished).iterdir())):
        part = tmp_path / str(index) / "breakpoint_0000"
        shutil.copytree(last(finished), part)
        (part / name).unlink()
        with pytest.raises(FedbiomedBreakpointError) as caught:
            loaded(requests, part)
        assert name in str(caught.value)
        shutil.copy(last(finished) / name, part / name)
        content = (part / name).read_bytes()
        (part / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with pytest.raises(FedbiomedBreakpointError) as caught:
            loaded(requests, part)
        assert name in str(caught.value)
    assert sorted(path.name for path in requests.connection.config.experiments.iterdir()) == folders


def rewritten(folder, key, value):
    """As an attacker would write it, who can make digests."""
    from fedbiomed.researcher import breakpoints

    path = folder / f"{folder.name}.json"
    state = {**json.loads(path.read_text(encoding="utf-8")), key: value}
    del state["checksum"]
    path.write_text(json.dumps({**state, "checksum": breakpoints._checksum(state)}), encoding="utf-8")


@pytest.mark.parametrize("key", ["aggregator", "node_selection_strategy"])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("antigravity", "Slow"),
        ("os", "system"),
        ("subprocess", "Popen"),
        ("fedbiomed.researcher.aggregators.os", "system"),
        ("fedbiomed.researcher.strategies.nothing", "Nothing"),
        ("fedbiomed.researcher.aggregators.fedavg", "RunningMean"),
        (None, None),
    ],
)
def test_a_class_that_is_not_defined_here_is_neither_imported_nor_made(finished, requests, key, module, name):
    folder = last(finished)
    rewritten(folder, key, {"class": name, "module": module, "parameters": {}, "fds": {}})
    with pytest.raises(FedbiomedBreakpointError, match=r"defined|has no"):
        loaded(requests, folder)
    assert "antigravity" not in sys.modules


def test_a_malformed_history_is_refused_before_anything_is_made(finished, federation, requests):
    folder = last(finished)
    rewritten(folder, "history", [[1]])
    stored = set(federation.files._entries)
    with pytest.raises(FedbiomedBreakpointError, match="not a list of reports"):
        loaded(requests, folder)
    assert set(federation.files._entries) == stored


class Needy(FedAverage):
    """Cannot be made without an argument."""

    def __init__(self, needed):
        super().__init__()


def test_a_class_that_cannot_be_made_again_is_said(finished, requests):
    folder = last(finished)
    rewritten(folder, "aggregator", {"class": "Needy", "module": __name__, "parameters": {}})
    with pytest.raises(
        FedbiomedBreakpointError, match=r"uses Needy, which cannot be made again: .*'needed'; let its arguments have defaults"
    ):
        loaded(requests, folder)


def test_a_failed_round_leaves_the_last_breakpoint_usable(finished, requests):
    finished.set_training_args({"epochs": 1, "loader_args": {"batch_size": 8}, "test_ratio": 1.0})
    with pytest.raises(FedbiomedExperimentError, match="samples"):
        finished.run_once()
    resumed = loaded(requests)
    assert resumed.round_current() == 1
    assert resumed.run(rounds=1) == 1
