"""Training arguments: the table of the contract, and one clear line for each mistake."""

import json
import math

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedUserInputError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.training_args import DPArgsValidator, TrainingArgs

DEFAULTS = {
    "optimizer_args": {},
    "loader_args": {},
    "epochs": None,
    "num_updates": None,
    "dry_run": False,
    "batch_maxnum": None,
    "test_ratio": 0.0,
    "test_on_local_updates": False,
    "test_on_global_updates": False,
    "test_metric": None,
    "test_metric_args": {},
    "log_interval": 10,
    "fedprox_mu": None,
    "use_gpu": False,
    "dp_args": None,
    "share_persistent_buffers": True,
    "random_seed": None,
}


def test_what_is_not_given_has_its_default():
    for given in (None, {}):
        assert TrainingArgs(given).dict() == DEFAULTS
        assert TrainingArgs(given, only_required=False).dict() == DEFAULTS
    assert TrainingArgs({"epochs": 3}).dict() == DEFAULTS | {"epochs": 3}
    assert TrainingArgs.default_scheme().keys() == DEFAULTS.keys()
    assert {key: TrainingArgs().default_value(key) for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        (
            "optimizer_args",
            {"lr": np.float64(0.1), "betas": (0.9, 0.999), "n": [np.int64(1)]},
            {"lr": 0.1, "betas": (0.9, 0.999), "n": [1]},
        ),
        ("loader_args", {"batch_size": np.int32(4), "shuffle": True, "x": None}, {"batch_size": 4, "shuffle": True, "x": None}),
        ("epochs", np.int64(2), 2),
        ("epochs", 0, 0),
        ("num_updates", 100, 100),
        ("batch_maxnum", 0, 0),
        ("test_ratio", 1.0, 1.0),
        ("test_ratio", np.float64(0.25), 0.25),
        ("test_metric", "accuracy", "ACCURACY"),
        ("test_metric", "Mean_Square_Error", "MEAN_SQUARE_ERROR"),
        ("test_metric", MetricTypes.F1_SCORE, "F1_SCORE"),
        ("test_metric_args", {"average": "macro"}, {"average": "macro"}),
        ("log_interval", 1, 1),
        ("fedprox_mu", 0.1, 0.1),
        ("dp_args", {"sigma": 0.4, "clip": 0.005}, {"type": "central", "sigma": 0.4, "clip": 0.005}),
        ("dp_args", {"type": "local", "sigma": 0.4, "clip": 0.005}, {"type": "local", "sigma": 0.4, "clip": 0.005}),
        ("random_seed", 2**32 - 1, 2**32 - 1),
    ],
)
def test_what_is_allowed_is_kept_in_its_normal_form(key, value, kept):
    args = TrainingArgs({key: value})
    changed = TrainingArgs()
    changed[key] = value
    for each in (args[key], args.get(key), args.dict()[key], changed[key]):
        assert each == kept
        assert type(each) is type(kept)
    json.dumps(args.dict())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("epochs", "ten", "training_args['epochs'] = 'ten' (str) is not allowed: None or an integer of 0 or more is needed"),
        ("epochs", 1.0, "integer of 0 or more"),
        ("epochs", -1, "integer of 0 or more"),
        ("epochs", True, "integer of 0 or more"),
        ("num_updates", "1", "integer of 0 or more"),
        ("batch_maxnum", 2.5, "integer of 0 or more"),
        ("dry_run", 1, "training_args['dry_run'] = 1 (int) is not allowed: a bool is needed"),
        ("use_gpu", None, "a bool is needed"),
        ("share_persistent_buffers", "yes", "a bool is needed"),
        ("test_ratio", 1, "a float from 0.0 to 1.0"),
        ("test_ratio", 0, "a float from 0.0 to 1.0"),
        ("test_ratio", 1.01, "a float from 0.0 to 1.0"),
        ("test_ratio", -0.1, "a float from 0.0 to 1.0"),
        ("test_ratio", math.nan, "a float from 0.0 to 1.0"),
        ("test_ratio", None, "a float from 0.0 to 1.0"),
        ("test_metric", "ACURACY", "None or one of ACCURACY, F1_SCORE"),
        ("test_metric", 3, "None or one of ACCURACY"),
        ("test_metric_args", None, "a dict"),
        ("log_interval", 0, "integer of 1 or more"),
        ("log_interval", 2.0, "integer of 1 or more"),
        ("fedprox_mu", 1, "a float of 0 or more"),
        ("fedprox_mu", -0.1, "a float of 0 or more"),
        ("fedprox_mu", math.inf, "a float of 0 or more"),
        ("optimizer_args", [("lr", 1)], "a dict"),
        ("optimizer_args", {"lr": {1, 2}}, "['lr'] is a set, which cannot travel to the nodes"),
        ("loader_args", {"collate": [print]}, "['collate'][0] is a builtin_function_or_method, which cannot travel"),
        ("loader_args", {1: 2}, "keys must be text"),
        ("loader_args", {"a": {1: 2}}, "keys of ['a'] must be text"),
        ("dp_args", [], "a dict with 'sigma', 'clip'"),
        ("dp_args", {"clip": 1.0}, "dp_args['sigma'] is missing; a float of 0 or more is needed"),
        ("dp_args", {"sigma": 1.0}, "dp_args['clip'] is missing"),
        ("dp_args", {"sigma": 1, "clip": 1.0}, "dp_args['sigma'] = 1 (int) is not allowed"),
        ("dp_args", {"sigma": 1.0, "clip": 1.0, "type": "global"}, "'central' or 'local' is needed"),
        ("dp_args", {"sigma": 1.0, "clip": 1.0, "clipp": 1.0}, "dp_args has no key 'clipp'; did you mean 'clip'?"),
        ("random_seed", 1.5, "an integer from 0 to 4294967295"),
        ("random_seed", -1, "an integer from 0 to 4294967295"),
        ("random_seed", 2**32, "an integer from 0 to 4294967295"),
        ("epoch", 1, "training_args has no key 'epoch'; did you mean 'epochs'? known are optimizer_args, loader_args, epochs"),
        ("batch_size", 1, "training_args has no key 'batch_size'; "),
        ("nothing like it", 1, "training_args has no key 'nothing like it'; known are"),
        (3, 1, "training_args has no key 3; "),
        ("epochs", np.zeros((5, 5)), "training_args['epochs'] = array([[0., 0., 0., 0., 0.], [0., 0."),
    ],
)
def test_a_mistake_gives_one_clear_line_and_changes_nothing(key, value, reason):
    args = TrainingArgs({"num_updates": 1})
    before = args.dict()
    attempts = (
        lambda: TrainingArgs({key: value}),
        lambda: args.update({"num_updates": 7, key: value}),
        lambda: args.__setitem__(key, value),
    )
    for attempt in attempts:
        with pytest.raises(FedbiomedUserInputError) as caught:
            attempt()
        assert str(caught.value).startswith("FB414")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert args.dict() == before


def test_a_dict_that_is_nested_without_end_is_refused():
    loop = {}
    loop["again"] = loop
    with pytest.raises(FedbiomedUserInputError, match="nested more than 8 deep"):
        TrainingArgs({"optimizer_args": loop})


@pytest.mark.parametrize("given", [[], "epochs", 3])
def test_arguments_that_are_no_dict_are_refused(given):
    with pytest.raises(FedbiomedUserInputError, match="training_args must be a dict, not"):
        TrainingArgs(given)


def test_groups_of_arguments():
    args = TrainingArgs(
        {"loader_args": {"batch_size": 2}, "optimizer_args": {"lr": 0.1}, "dp_args": {"sigma": 1.0, "clip": 1.0}, "epochs": 1}
    )
    assert args.loader_arguments() == {"batch_size": 2}
    assert args.optimizer_arguments() == {"lr": 0.1}
    assert args.dp_arguments() == {"type": "central", "sigma": 1.0, "clip": 1.0}
    assert TrainingArgs().dp_arguments() is None
    assert args.testing_arguments() == {
        "test_ratio": 0.0,
        "test_on_local_updates": False,
        "test_on_global_updates": False,
        "test_metric": None,
        "test_metric_args": {},
    }
    assert args.pure_training_arguments() == {
        "batch_maxnum": None,
        "fedprox_mu": None,
        "log_interval": 10,
        "dry_run": False,
        "epochs": 1,
        "use_gpu": False,
        "num_updates": None,
    }


def test_changes_are_checked_and_give_the_object():
    args = TrainingArgs({"epochs": 1})
    assert args.update({"epochs": 2, "test_ratio": 0.5}) is args
    args ^= {"epochs": 3}
    args["test_metric"] = "recall"
    assert (args["epochs"], args["test_ratio"], args["test_metric"]) == (3, 0.5, "RECALL")
    assert "epochs" in args
    assert "epoch" not in args


def test_what_was_given_and_what_comes_out_are_copies():
    mine = {"loader_args": {"batch_size": 2}}
    args = TrainingArgs(mine)
    mine["loader_args"]["batch_size"] = 3
    for copy in (args["loader_args"], args.dict()["loader_args"], args.loader_arguments(), args.get("loader_args")):
        copy["batch_size"] = 4
    TrainingArgs.default_scheme()["optimizer_args"]["default"]["lr"] = 1
    args.default_value("optimizer_args")["lr"] = 1
    assert args["loader_args"] == {"batch_size": 2}
    assert TrainingArgs()["optimizer_args"] == {}


def test_get_takes_a_default_and_brackets_do_not():
    args = TrainingArgs()
    assert args.get("none such") is None
    assert args.get("none such", 5) == 5
    assert args.get("log_interval", 5) == 10
    with pytest.raises(FedbiomedUserInputError, match="no key 'epoch'; did you mean 'epochs'"):
        args["epoch"]
    with pytest.raises(FedbiomedUserInputError, match="no key 'epoch'"):
        args.default_value("epoch")


def is_even(value):
    return value % 2 == 0


def is_short(value):
    return len(value) < 4, f"{value!r} is too long"


EXTRA = {
    "even": {"rules": [int, is_even], "required": True, "default": 2},
    "word": {"rules": (str, is_short), "required": False, "default": "abc"},
    "must": {"rules": [float], "required": True},
    "free": {"rules": []},
}


def test_extra_keys():
    args = TrainingArgs({"must": 1.0}, EXTRA)
    assert args.dict() == DEFAULTS | {"even": 2, "must": 1.0}
    assert TrainingArgs({"must": 1.0}, EXTRA, False).dict() == DEFAULTS | {"even": 2, "word": "abc", "must": 1.0}
    assert args.default_value("word") == "abc"
    assert args.scheme().keys() == DEFAULTS.keys() | EXTRA.keys()
    with pytest.raises(FedbiomedUserInputError, match=r"training_args\['word'\] was not given"):
        args["word"]
    with pytest.raises(FedbiomedUserInputError, match=r"training_args\['must'\] has no default"):
        args.default_value("must")
    args["free"] = {1, 2}
    assert args["free"] == {1, 2}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, r"training_args\['must'\] is missing; a float is needed"),
        ({"must": 1.0, "even": 3}, r"training_args\['even'\] = 3 \(int\) is not allowed: a is_even is needed"),
        ({"must": 1.0, "even": True}, "a int is needed"),
        ({"must": 1.0, "word": "abcd"}, "is not allowed: 'abcd' is too long"),
    ],
)
def test_extra_rules_are_kept(given, reason):
    with pytest.raises(FedbiomedUserInputError, match=reason):
        TrainingArgs(given, EXTRA)


@pytest.mark.parametrize("entry", [int, {}, {"rules": 3}, {"rules": ["int"]}])
def test_a_malformed_extra_scheme_is_refused(entry):
    with pytest.raises(FedbiomedUserInputError, match=r"extra_scheme\['x'\] must be a dict with 'rules'"):
        TrainingArgs({}, {"x": entry})


def test_it_can_be_read():
    args = TrainingArgs({"epochs": 3})
    assert str(args) == str(args.dict())
    assert "'epochs': {'rules': [None or an integer of 0 or more], 'required': True, 'default': None}" in repr(args)
    assert str(args) in repr(args)


def test_the_validator_of_differential_privacy_stands_alone():
    assert DPArgsValidator.validate({"sigma": 1.0, "clip": 1.0})
    assert DPArgsValidator.populate_with_defaults({"sigma": 1.0, "clip": 1.0})["type"] == "central"
    with pytest.raises(FedbiomedUserInputError, match="dp_args must be a dict"):
        DPArgsValidator.validate(None)


def test_an_extra_scheme_is_a_dict():
    with pytest.raises(FedbiomedUserInputError, match="extra_scheme must be a dict of rules by key, not 3"):
        TrainingArgs({}, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("-inf")])
def test_numbers_that_json_has_not_are_told_before_they_travel(value):
    with pytest.raises(FedbiomedUserInputError, match=r"optimizer_args.*\['betas'\]\[1\] is (nan|-?inf), which cannot travel to the nodes"):
        TrainingArgs({"optimizer_args": {"betas": [0.9, value]}})
