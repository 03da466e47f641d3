"""Every getter and setter of an experiment; none of it needs a network."""

import copy
import logging

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedExperimentError, FedbiomedSecureAggregationError, FedbiomedUserInputError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.researcher.aggregators import Aggregator, FedAverage
from fedbiomed.researcher.datasets import FederatedDataSet
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from tests.support.plans import LinePlan

DATA = {"node_a": {"dataset_id": "dataset_a", "shape": [10, 2], "name": "a"}, "node_b": [{"dataset_id": "dataset_b", "shape": [5, 2]}]}


class FirstNode(Strategy):
    """Only the first node."""

    def sample_nodes(self, round_i):
        return self._data.node_ids()[:1]


class Keep(Aggregator):
    """The first node's parameters."""

    def aggregate(self, model_params, weights, *args, **kwargs):
        return next(iter(model_params.values()))


class NeedsMore(Keep):
    """Cannot be made without arguments."""

    def __init__(self, needed):
        super().__init__()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(tmp_path / "researcher"))
    return tmp_path / "researcher" / "var" / "experiments"


@pytest.fixture
def experiment():
    return Experiment()


def snapshot(experiment):
    left_out = ("_breakpoints", "_history", "_monitor", "_fds", "_stop")
    return copy.deepcopy({name: value for name, value in vars(experiment).items() if name not in left_out})


def test_an_empty_experiment_needs_no_network(experiment, folder):
    assert experiment.tags() is None
    assert experiment.nodes() is None
    assert experiment.training_data() is None
    assert isinstance(experiment.aggregator(), FedAverage)
    assert experiment.agg_optimizer() is None
    assert experiment.strategy() is None
    assert (experiment.round_limit(), experiment.round_current()) == (None, 0)
    assert experiment.experimentation_folder() == "Experiment_0000"
    assert experiment.experimentation_path() == str(folder / "Experiment_0000")
    assert (folder / "Experiment_0000").is_dir()
    assert (experiment.training_plan_class(), experiment.training_plan_path()) == (None, None)
    assert experiment.model_args() == {}
    assert experiment.training_args() == TrainingArgs({}, only_required=False).dict()
    assert (experiment.test_ratio(), experiment.test_metric(), experiment.test_metric_args()) == (0.0, None, {})
    assert (experiment.test_on_local_updates(), experiment.test_on_global_updates()) == (False, False)
    assert experiment.job() is None
    assert experiment.save_breakpoints() is False
    assert experiment.aggregated_params() == {}
    assert experiment.monitor()._metric_store == {}
    assert experiment.history.empty
    assert isinstance(experiment.secagg, SecureAggregation)
    assert experiment.secagg.active is False


def test_what_there_is_not_yet_is_none_with_a_line_in_the_log(experiment, caplog):
    assert experiment.training_replies() is None
    assert experiment.training_plan() is None
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_info_of_an_empty_experiment(experiment, capsys):
    assert experiment.info() is None
    text = capsys.readouterr().out
    for row in (
        "Tags",
        "Nodes filter",
        "Training Data",
        "Aggregator",
        "Strategy",
        "Job",
        "Aggregator Optimizer",
        "Training Plan Path",
        "Training Plan Class",
        "Model Arguments",
        "Training Arguments",
        "Rounds already run",
        "Rounds total",
        "Experiment folder",
        "Experiment Path",
        "Breakpoint State",
        "Secure Aggregation",
    ):
        assert f"\n{row} " in text
    end = text.split("Experiment cannot be run (not fully defined), missing :")[1]
    assert [line.strip(" -") for line in end.split("\n") if line.strip()] == ["Training Data", "Strategy", "Training Plan", "Job"]


@pytest.mark.parametrize("what", ["run", "run_once", "breakpoint", "training_plan_file", "check_training_plan_status"])
def test_what_needs_more_says_what_is_missing(experiment, what):
    experiment.set_round_limit(1)
    with pytest.raises(FedbiomedExperimentError, match=r"FB411.*Training Data.*Job"):
        getattr(experiment, what)()


def test_folders_are_numbered_on_even_when_one_was_deleted(experiment, folder):
    (folder / "Experiment_0007").mkdir()
    (folder / "mine").mkdir()
    assert Experiment().experimentation_folder() == "Experiment_0008"
    (folder / "Experiment_0000").rmdir()
    assert Experiment().experimentation_folder() == "Experiment_0009"


@pytest.mark.parametrize(("given", "made"), [("mine", "mine"), ("my study/1", "my_study_1"), ("../up", "_up"), (".hidden", "hidden")])
def test_a_folder_has_a_plain_name(experiment, folder, given, made, caplog):
    assert experiment.set_experimentation_folder(given) == made
    assert (folder / made).is_dir()
    assert bool(caplog.records) == (given != made)
    assert experiment.experimentation_path() == str(folder / made)


def test_a_folder_that_cannot_be_made(experiment, folder):
    (folder / "file").touch()
    with pytest.raises(FedbiomedExperimentError, match="file"):
        experiment.set_experimentation_folder("file")
    assert experiment.experimentation_folder() == "Experiment_0000"


@pytest.mark.parametrize(
    ("setter", "given", "expected"),
    [
        ("set_tags", "one", ["one"]),
        ("set_tags", ["one", "two"], ["one", "two"]),
        ("set_tags", [], []),
        ("set_tags", None, None),
        ("set_nodes", ["node_a"], ["node_a"]),
        ("set_nodes", None, None),
        ("set_agg_optimizer", None, None),
        ("set_round_limit", 3, 3),
        ("set_round_limit", 0, 0),
        ("set_round_limit", None, None),
        ("set_training_plan_class", LinePlan, LinePlan),
        ("set_training_plan_class", "LinePlan", "LinePlan"),
        ("set_training_plan_class", None, None),
        ("set_training_plan_path", None, None),
        ("set_model_args", {"n": [1, {"x": None}]}, {"n": [1, {"x": None}]}),
        ("set_model_args", {"n": np.int64(3)}, {"n": 3}),
        ("set_test_ratio", 0.25, 0.25),
        ("set_test_on_local_updates", False, False),
        ("set_test_on_global_updates", True, True),
        ("set_save_breakpoints", True, True),
        ("set_tensorboard", False, False),
        ("set_tensorboard", True, True),
        ("set_use_secagg", False, False),
        ("set_use_secagg", True, True),
    ],
)
def test_a_setter_returns_what_it_set_and_the_getter_gives_it(experiment, setter, given, expected):
    value = getattr(experiment, setter)(given)
    assert value == expected
    assert type(value) is type(expected)
    getter = getattr(experiment, setter.removeprefix("set_"), lambda: expected)
    assert (getter() if callable(getter) else getter) == expected


def test_flags_of_tests_are_true_by_default(experiment):
    assert experiment.set_test_on_local_updates() is True
    assert experiment.set_test_on_global_updates() is True


@pytest.mark.parametrize("metric", ["f1_score", "F1_SCORE", MetricTypes.F1_SCORE])
def test_a_metric_has_one_name(experiment, metric):
    assert experiment.set_test_metric(metric, average="macro") == ("F1_SCORE", {"average": "macro"})
    assert (experiment.test_metric(), experiment.test_metric_args()) == ("F1_SCORE", {"average": "macro"})
    assert experiment.training_args()["test_metric"] == "F1_SCORE"
    assert experiment.set_test_metric(None) == (None, {})


def test_training_args_replace_all(experiment):
    assert experiment.set_training_args({"epochs": 2})["epochs"] == 2
    assert experiment.set_training_args(TrainingArgs({"num_updates": 3}))["epochs"] is None
    assert experiment.training_args()["num_updates"] == 3
    assert experiment.set_training_args(None)["num_updates"] is None


def test_what_was_given_or_got_is_not_shared(experiment):
    tags, model_args, training_args = ["one"], {"a": [1]}, {"optimizer_args": {"lr": 0.1}}
    experiment.set_tags(tags).append("x")
    experiment.set_model_args(model_args)["a"].append(2)
    experiment.set_training_args(training_args)["optimizer_args"]["lr"] = 1
    tags.append("y")
    model_args["a"].append(3)
    training_args["optimizer_args"]["lr"] = 2
    assert experiment.tags() == ["one"]
    assert experiment.model_args() == {"a": [1]}
    assert experiment.training_args()["optimizer_args"] == {"lr": 0.1}


@pytest.mark.parametrize(
    ("setter", "given", "part"),
    [
        ("set_tags", 1, "tags"),
        ("set_tags", [""], "tags"),
        ("set_tags", {"a"}, "tags"),
        ("set_nodes", "node_a", "nodes"),
        ("set_nodes", [1], "nodes"),
        ("set_training_data", 1, "training_data"),
        ("set_training_data", {"node_a": []}, "node_a"),
        ("set_training_data", {"node_a": [{}, {}]}, "node_a"),
        ("set_aggregator", 1, "aggregator"),
        ("set_aggregator", DefaultStrategy, "aggregator"),
        ("set_aggregator", NeedsMore, "NeedsMore"),
        ("set_agg_optimizer", 1, "agg_optimizer"),
        ("set_strategy", FedAverage, "node_selection_strategy"),
        ("set_round_limit", -1, "round_limit"),
        ("set_round_limit", 1.0, "round_limit"),
        ("set_round_limit", True, "round_limit"),
        ("set_training_plan_class", "not a name", "training_plan_class"),
        ("set_training_plan_class", int, "training_plan_class"),
        ("set_training_plan_class", 1, "training_plan_class"),
        ("set_training_plan_path", "/nowhere/plan.py", "training_plan_path"),
        ("set_training_plan_path", __file__ + "c", "training_plan_path"),
        ("set_training_plan_path", 1, "training_plan_path"),
        ("set_model_args", [1], "model_args"),
        ("set_model_args", {"a": {1}}, "model_args"),
        ("set_model_args", {"a": {1: 2}}, "model_args"),
        ("set_training_args", {"epoch": 1}, "epochs"),
        ("set_training_args", {"test_ratio": 2.0}, "test_ratio"),
        ("set_training_args", [1], "training_args"),
        ("set_test_ratio", 1, "test_ratio"),
        ("set_test_ratio", -0.1, "test_ratio"),
        ("set_test_metric", "LOSS", "test_metric"),
        ("set_test_on_local_updates", 1, "test_on_local_updates"),
        ("set_test_on_global_updates", "yes", "test_on_global_updates"),
        ("set_save_breakpoints", 1, "save_breakpoints"),
        ("set_tensorboard", 1, "tensorboard"),
        ("set_secagg", 1, "secagg"),
        ("set_secagg", None, "secagg"),
        ("set_use_secagg", SecureAggregation(active=False), "use_secagg"),
        ("set_experimentation_folder", 1, "experimentation_folder"),
        ("set_experimentation_folder", "..", "experimentation_folder"),
        ("set_experimentation_folder", "", "experimentation_folder"),
    ],
)
def test_a_setter_that_refuses_changes_nothing(experiment, setter, given, part):
    before = snapshot(experiment)
    with pytest.raises((FedbiomedExperimentError, FedbiomedUserInputError, FedbiomedSecureAggregationError), match=part) as caught:
        getattr(experiment, setter)(given)
    assert "\n" not in str(caught.value)
    after = snapshot(experiment)
    assert after.keys() == before.keys()
    assert repr({**after, "_aggregator": 0}) == repr({**before, "_aggregator": 0})


@pytest.mark.parametrize(
    "args",
    [
        {"secagg": "on"},
        {"tensorboard": 1},
        {"agg_optimizer": object()},
        {"round_limit": -1},
        {"training_args": {"epoch": 1}},
        {"training_data": {"node_a": []}},
        {"show_progress": 1},
    ],
)
def test_an_experiment_that_is_refused_leaves_no_folder(args, folder):
    with pytest.raises(FedbiomedError):
        Experiment(**args)
    assert not folder.exists()


def test_a_search_needs_tags(experiment):
    with pytest.raises(FedbiomedExperimentError, match="tags"):
        experiment.set_training_data(None, from_tags=True)


def test_training_data_may_be_a_dict(experiment):
    data = experiment.set_training_data(DATA)
    assert isinstance(data, FederatedDataSet)
    assert data.node_ids() == ["node_a", "node_b"]
    assert experiment.training_data() is data
    assert isinstance(DATA["node_b"], list), "what was given is not changed"
    assert experiment.strategy() is None, "the strategy is set by set_strategy"
    assert experiment.set_training_data(data) is data
    assert experiment.set_training_data(None) is None


def test_a_strategy_is_an_object_a_class_or_the_default(experiment):
    assert experiment.set_strategy(FirstNode) is None, "none without training data"
    data = experiment.set_training_data(DATA)
    assert isinstance(experiment.set_strategy(None), DefaultStrategy)
    assert experiment.strategy().sample_nodes(0) == ["node_a", "node_b"]
    assert isinstance(experiment.set_strategy(FirstNode), FirstNode)
    assert experiment.strategy().sample_nodes(0) == ["node_a"]
    made = FirstNode(FederatedDataSet({}))
    assert experiment.set_strategy(made) is made
    assert made.sample_nodes(0) == ["node_a"], "it is told of the training data"
    experiment.set_training_data(None)
    assert experiment.set_strategy(None) is None
    assert Experiment(training_data=data, node_selection_strategy=FirstNode).strategy().sample_nodes(0) == ["node_a"]


def test_an_aggregator_is_an_object_a_class_or_the_default(experiment):
    made = Keep()
    assert experiment.set_aggregator(made) is made
    assert isinstance(experiment.set_aggregator(Keep), Keep)
    assert isinstance(experiment.set_aggregator(None), FedAverage)
    assert isinstance(Experiment(aggregator=Keep).aggregator(), Keep)


@pytest.mark.parametrize(
    ("plan", "path", "is_defined"),
    [
        (LinePlan, None, True),
        ("LinePlan", "plan.py", True),
        (LinePlan, "plan.py", False),
        ("LinePlan", None, False),
        (None, "plan.py", False),
    ],
)
def test_a_plan_is_a_class_or_a_name_in_a_file(tmp_path, plan, path, is_defined, capsys):
    if path:
        path = tmp_path / path
        path.write_text("class LinePlan: pass\n", encoding="utf-8")
    experiment = Experiment()
    experiment.set_training_plan_class(plan)
    assert experiment.set_training_plan_path(path) == (str(path) if path else None)
    experiment.info()
    assert ("- Training Plan" not in capsys.readouterr().out) == is_defined
    assert experiment.set_job() is None, "no job without training data"


def test_run_without_a_limit_runs_nothing(experiment, caplog):
    caplog.set_level(logging.WARNING)
    assert experiment.run() == 0
    assert "round limit" in caplog.text
