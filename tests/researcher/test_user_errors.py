"""A hundred and more wrong inputs: each gives one typed error, in one line, that says what to do, and changes nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.training_args import DPArgsValidator, TrainingArgs
from fedbiomed.researcher.aggregators import APFL, ClientLevelDP, FedAverage, FedProx, GeometricMedian, Scaffold
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.local_job import localJob
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.responses import Responses
from fedbiomed.researcher.secagg import SecaggServkeyContext, SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.plans import LinePlan
from tests.support.researchers import MemoryStage

DATA = {"node_a": {"dataset_id": "dataset_a", "shape": [10, 2], "name": "a"}}


class Demanding(FedAverage):
    """Cannot be made from its class alone."""

    def __init__(self, needed: int) -> None:
        super().__init__()


class NeedyPlan(LinePlan):
    """Cannot be made without an argument."""

    def __init__(self, needed):  # type: ignore[no-untyped-def]
        super().__init__()


class Choosy(Strategy):
    """Takes more than a data set."""

    def __init__(self, data: FederatedDataSet, needed: int) -> None:
        super().__init__(data)

    def sample_nodes(self, round_i: int) -> list[str]:
        """Nobody."""
        return []


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[MemoryStage]:
    """A researcher in memory, with one node that is there."""
    made = MemoryStage(tmp_path, answer_timeout_s=2.0)
    made.node("a")
    yield made
    made.close()


@pytest.fixture
def requests(stage: MemoryStage) -> Requests:
    """Its line."""
    return stage.requests()


@pytest.fixture
def experiment(requests: Requests) -> Experiment:
    """With something in every setting."""
    made = Experiment(tags=["#a"], nodes=None, training_args={"num_updates": 1}, requests=requests, show_progress=False, round_limit=3)
    made.set_training_plan_class(LinePlan)
    made.set_model_args({"a": 1})
    return made


# (setter, arguments, what the error says)
SETTERS: list[tuple[str, Any, str]] = [
    ("set_tags", 1, "a list of strings or None"),
    ("set_tags", [""], "a list of strings or None"),
    ("set_tags", ["a", 2], "a list of strings or None"),
    ("set_tags", {"a"}, "a list of strings or None"),
    ("set_tags", b"a", "a list of strings or None"),
    ("set_nodes", "node_a", "a list of strings or None"),
    ("set_nodes", [None], "a list of strings or None"),
    ("set_nodes", {"node_a": 1}, "a list of strings or None"),
    ("set_training_data", 1, "a FederatedDataSet, a dict by node, or None"),
    ("set_training_data", ["node_a"], "a FederatedDataSet, a dict by node, or None"),
    ("set_training_data", {"node_a": []}, "choose exactly one per node"),
    ("set_training_data", {"node_a": [{}, {}]}, "choose exactly one per node"),
    ("set_training_data", {"node_a": "dataset"}, "described by a dict"),
    ("set_training_data", {1: {}}, "named by its id"),
    ("set_aggregator", "FedAverage", "an Aggregator, a class of one, or None"),
    ("set_aggregator", DefaultStrategy, "an Aggregator, a class of one, or None"),
    ("set_aggregator", Demanding, "give an object"),
    ("set_agg_optimizer", 0.1, "agg_optimizer"),
    ("set_agg_optimizer", "Adam", "agg_optimizer"),
    ("set_strategy", FedAverage, "a Strategy, a class of one, or None"),
    ("set_strategy", "all", "a Strategy, a class of one, or None"),
    ("set_strategy", Choosy, "give an object"),
    ("set_round_limit", -1, "an integer of 0 or more"),
    ("set_round_limit", 1.0, "an integer of 0 or more"),
    ("set_round_limit", True, "an integer of 0 or more"),
    ("set_round_limit", "3", "an integer of 0 or more"),
    ("set_training_plan_class", "not a name", "a class derived from a training plan"),
    ("set_training_plan_class", int, "a class derived from a training plan"),
    ("set_training_plan_class", 1, "a class derived from a training plan"),
    ("set_training_plan_class", LinePlan(), "a class derived from a training plan"),
    ("set_training_plan_path", "/nowhere/plan.py", "the path of an existing file that ends in .py"),
    ("set_training_plan_path", __file__ + "c", "the path of an existing file that ends in .py"),
    ("set_training_plan_path", str(Path(__file__).parent), "the path of an existing file that ends in .py"),
    ("set_training_plan_path", "", "the path of a Python file, or None"),
    ("set_training_plan_path", 1, "the path of a Python file, or None"),
    ("set_model_args", [1], "a dict of None, bool"),
    ("set_model_args", {"a": {1}}, "cannot travel to the nodes"),
    ("set_model_args", {1: "a"}, "keys must be text"),
    ("set_model_args", {"a": {1: 2}}, "must be text"),
    ("set_model_args", {"a": np.ones(2)}, "cannot travel to the nodes"),
    ("set_training_args", {"epoch": 1}, "did you mean 'epochs'"),
    ("set_training_args", [1], "a dict, a TrainingArgs, or None"),
    ("set_training_args", {"epochs": 1.5}, "an integer of 0 or more"),
    ("set_test_ratio", 1, "a float from 0.0 to 1.0"),
    ("set_test_ratio", -0.1, "a float from 0.0 to 1.0"),
    ("set_test_ratio", 1.1, "a float from 0.0 to 1.0"),
    ("set_test_ratio", float("nan"), "a float from 0.0 to 1.0"),
    ("set_test_ratio", None, "a float from 0.0 to 1.0"),
    ("set_test_metric", "LOSS", "one of ACCURACY, F1_SCORE"),
    ("set_test_metric", 3, "one of ACCURACY, F1_SCORE"),
    ("set_test_on_local_updates", 1, "bool"),
    ("set_test_on_global_updates", "yes", "bool"),
    ("set_save_breakpoints", 1, "True or False"),
    ("set_save_breakpoints", None, "True or False"),
    ("set_tensorboard", 1, "True or False"),
    ("set_secagg", "on", "True, False or a SecureAggregation"),
    ("set_use_secagg", 1, "True or False"),
    ("set_experimentation_folder", 1, "the name of a folder, or None"),
    ("set_experimentation_folder", "..", "a plain name of letters"),
    ("set_experimentation_folder", "", "a plain name of letters"),
]

# What else an experiment is asked to do.
CALLS: list[tuple[Callable[[Experiment], object], str]] = [
    (lambda e: e.set_training_data(None, from_tags="yes"), "True or False"),
    (lambda e: e.set_training_args({}, reset="no"), "True or False"),
    (lambda e: e.set_test_metric("ACCURACY", average={1}), "cannot travel"),
    (lambda e: e.run(rounds=0), "an integer of 1 or more"),
    (lambda e: e.run(rounds=-3), "an integer of 1 or more"),
    (lambda e: e.run(rounds=1.0), "an integer of 1 or more"),
    (lambda e: e.run(rounds="2"), "an integer of 1 or more"),
    (lambda e: e.run(rounds=True), "an integer of 1 or more"),
    (lambda e: e.run(increase=1), "True or False"),
    (lambda e: e.run(rounds=5, increase=True), "missing"),
    (lambda e: e.run_once(increase=None), "True or False"),
    (lambda e: e.run_once(test_after="yes"), "True or False"),
    (lambda e: e.training_plan_file(display=1), "display must be True or False"),
    (lambda e: e.training_plan_approve(LinePlan, nodes="node_a"), "nodes must be a list of strings"),
    (lambda e: e.training_plan_approve(LinePlan, timeout=0), "a number of seconds above 0"),
    (lambda e: e.training_plan_approve(LinePlan, description=3), "description must be text"),
    (lambda e: Experiment.load_breakpoint(5, requests=e._requests), "the path of a folder"),
    (lambda e: Experiment.load_breakpoint("", requests=e._requests), "the path of a folder"),
    (lambda e: Experiment.load_breakpoint("/nowhere", requests=e._requests), "/nowhere"),
    (lambda e: Experiment.load_breakpoint(requests=e._requests), "save_breakpoints=True"),
    (lambda e: e.breakpoint(), "set_job()"),
]

# Arguments of the constructor; what has a setter is checked by it.
CONSTRUCTOR: list[tuple[dict[str, Any], str]] = [
    ({"tags": 1}, "tags"),
    ({"nodes": "node_a"}, "nodes"),
    ({"tags": "nowhere"}, "Requests().list()"),
    ({"tags": "#a", "nodes": []}, "no node among [] offers"),
    ({"training_data": 3}, "training_data"),
    ({"aggregator": 1}, "aggregator"),
    ({"node_selection_strategy": 1, "training_data": DATA}, "node_selection_strategy"),
    ({"round_limit": -1}, "round_limit"),
    ({"training_plan_class": int}, "training_plan_class"),
    ({"training_plan_path": "/nowhere.py"}, "training_plan_path"),
    ({"model_args": 1}, "model_args"),
    ({"training_args": {"epochs": "1"}}, "epochs"),
    ({"save_breakpoints": "no"}, "save_breakpoints"),
    ({"experimentation_folder": 3}, "experimentation_folder"),
    ({"secagg": "on"}, "True, False or a SecureAggregation"),
    ({"show_progress": 1}, "show_progress"),
]

# Questions to nodes.
QUESTIONS: list[tuple[Callable[[Requests], object], str]] = [
    (lambda r: r.list("node_a"), "nodes must be a list of strings"),
    (lambda r: r.list([1]), "nodes must be a list of strings"),
    (lambda r: r.search(1), "tags must be a list of strings"),
    (lambda r: r.search(None), "tags must be a list of strings"),
    (lambda r: r.search([1]), "tags must be a list of strings"),
    (lambda r: r.search("a", nodes="node_a"), "nodes must be a list of strings"),
    (lambda r: r.search("a", nodes=["not an id/"]), "not an id"),
    (lambda r: r.send_message({"command": "fly"}), "ping, search, list"),
    (lambda r: r.send_message({"command": "search"}), "tags: a list of strings"),
    (lambda r: r.send_message({"command": "ping"}, client=3), "nodes must be a list of strings"),
    (lambda r: r.get_responses("pong"), "look_for_commands must be a list of strings"),
    (lambda r: r.get_responses(["pong"], timeout=-1), "a number of seconds above 0"),
    (lambda r: r.get_responses(["pong"], timeout="5"), "a number of seconds above 0"),
    (lambda r: r.add_monitor_callback(3), "a function of one dict"),
]

# Objects that users make by themselves.
OBJECTS: list[tuple[Callable[[], object], str]] = [
    (lambda: FederatedDataSet([{}]), "a dict of one dataset per node"),
    (lambda: FederatedDataSet({"node_a": [1]}), "described by a dict"),
    (lambda: FederatedDataSet({"node_a": {"shape": []}}).shapes(), "begins with its number of rows"),
    (lambda: FederatedDataSet({"node_a": {}}).sample_sizes(), "begins with its number of rows"),
    (lambda: Responses("reply"), "a list of dicts"),
    (lambda: Responses([1]), "a list of dicts"),
    (lambda: Responses([]).append(3), "a list of dicts"),
    (lambda: TrainingArgs({"nothing": 1}), "known are"),
    (lambda: TrainingArgs({"num_updates": -1}), "an integer of 0 or more"),
    (lambda: TrainingArgs({"batch_maxnum": "all"}), "an integer of 0 or more"),
    (lambda: TrainingArgs({"log_interval": 0}), "an integer of 1 or more"),
    (lambda: TrainingArgs({"dry_run": 1}), "bool"),
    (lambda: TrainingArgs({"use_gpu": "yes"}), "bool"),
    (lambda: TrainingArgs({"optimizer_args": [("lr", 1)]}), "a dict of"),
    (lambda: TrainingArgs({"loader_args": {"sampler": object()}}), "cannot travel"),
    (lambda: TrainingArgs({"fedprox_mu": 1}), "a float of 0 or more"),
    (lambda: TrainingArgs({"random_seed": -1}), "an integer from 0"),
    (lambda: TrainingArgs({"dp_args": {"type": "global", "sigma": 1.0, "clip": 1.0}}), "'central' or 'local'"),
    (lambda: TrainingArgs({"dp_args": {"sigma": 1.0}}), "clip"),
    (lambda: TrainingArgs({"share_persistent_buffers": None}), "bool"),
    (lambda: TrainingArgs()["epoch"], "did you mean 'epochs'"),
    (lambda: TrainingArgs().default_value("nothing"), "known are"),
    (lambda: TrainingArgs().update([1]), "must be a dict"),
    (lambda: DPArgsValidator.validate({"sigma": 1, "clip": 1.0}), "a float of 0 or more"),
    (lambda: SecureAggregation(timeout="10"), "an integer of 0 or more"),
    (lambda: SecaggServkeyContext(["researcher_1"], "job_1"), "at least 3"),
    (lambda: localJob(None, LinePlan, training_args=[1]), "training_args must be a dict"),
    (lambda: localJob(None, LinePlan, training_args="epochs"), "training_args must be a dict"),
    (lambda: localJob(None, LinePlan, model_args=[1]), "model_args must be a dict or None"),
    (lambda: localJob(None, "LinePlan", training_plan_path=5), "the path of a Python file"),
    (lambda: localJob(None, NeedyPlan), "cannot be made without arguments"),
    (lambda: Scaffold(weighted="no"), "weighted of Scaffold must be True or False"),
    (lambda: Scaffold(warm_start=1), "warm_start of Scaffold must be True or False"),
    (lambda: GeometricMedian(weighted="no"), "weighted of GeometricMedian must be True or False"),
    (lambda: ClientLevelDP(weighted=1), "weighted of ClientLevelDP must be True or False"),
    (lambda: ClientLevelDP(adaptive_clipping="no"), "adaptive_clipping of ClientLevelDP must be True or False"),
    (lambda: ClientLevelDP(seed="a"), "seed of ClientLevelDP must be an integer"),
    (lambda: ClientLevelDP(per_client_example_cap=0), "per_client_example_cap of ClientLevelDP"),
    (lambda: FedProx(adaptive=1), "adaptive of FedProx must be True or False"),
    (lambda: APFL(adaptive=1), "adaptive of APFL must be True or False"),
]


def test_there_are_enough_of_them() -> None:
    assert len(SETTERS) + len(CALLS) + len(CONSTRUCTOR) + len(QUESTIONS) + len(OBJECTS) >= 100


def shown(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> str:
    """All that `info` shows."""
    capsys.readouterr()
    experiment.info()
    return capsys.readouterr().out


def refused(call: Callable[[], object], part: str) -> None:
    """It is, with one line that says this."""
    with pytest.raises(FedbiomedError) as caught:
        call()
    text = str(caught.value)
    assert part in text
    assert "\n" not in text
    assert len(text) < 900


@pytest.mark.parametrize(("setter", "given", "part"), SETTERS)
def test_a_setter(experiment: Experiment, setter: str, given: Any, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = shown(experiment, capsys)
    refused(lambda: getattr(experiment, setter)(given), part)
    assert shown(experiment, capsys) == before


@pytest.mark.parametrize(("call", "part"), CALLS)
def test_a_call(experiment: Experiment, call: Callable[[Experiment], object], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = shown(experiment, capsys)
    refused(lambda: call(experiment), part)
    assert shown(experiment, capsys) == before


@pytest.mark.parametrize(("arguments", "part"), CONSTRUCTOR)
def test_the_constructor(requests: Requests, arguments: dict[str, Any], part: str) -> None:
    experiments = requests.connection.config.experiments
    refused(lambda: Experiment(requests=requests, **arguments), part)
    assert not experiments.exists() or list(experiments.iterdir()) == []


@pytest.mark.parametrize(("call", "part"), QUESTIONS)
def test_a_question(requests: Requests, call: Callable[[Requests], object], part: str) -> None:
    refused(lambda: call(requests), part)
    assert len(requests.ping_nodes()) == 1


@pytest.mark.parametrize(("make", "part"), OBJECTS)
def test_an_object(make: Callable[[], object], part: str) -> None:
    refused(make, part)
