"""Every trainer, and differential privacy of samples, over three real nodes: two rounds, and one from a breakpoint and another."""

from pathlib import Path

import numpy as np
import pytest

from fedbiomed.researcher.aggregated_params import read_params
from fedbiomed.researcher.experiment import Experiment
from tests.support.plans import LinePlan
from tests.support.trainers import CASES, family

NODE_COUNT = 3
ARGS = {
    "num_updates": 3,
    "loader_args": {"batch_size": 8},
    "random_seed": 7,
    "test_ratio": 0.2,
    "test_on_global_updates": True,
    "test_metric": "MEAN_SQUARE_ERROR",
}
EXPERIMENT = {"training_plan_class": LinePlan, "training_args": ARGS, "round_limit": 2}
PRIVATE = {**ARGS, "dp_args": {"type": "local", "clip": 1.0, "sigma": 1.0, "delta": 1e-3}}
MADE = {
    **{f"{trainer.__name__} {name}".strip(): case for trainer, cases in CASES.items() for name, case in cases.items()},
    "DP-SGD": lambda: {"training_args": PRIVATE},
}


def test_each_trainer_has_a_case():
    assert CASES.keys() == family(), "a new trainer needs a case in tests/support/trainers.py"


def ends(experiment):
    """All that two rounds left: models of all and of single nodes, states of optimizers, moments."""
    job = experiment.job()
    models = {f"round {round_}": entry["params"] for round_, entry in experiment.aggregated_params().items()}
    own = {f"model of {node}": read_params(path) for node, path in job.node_params.paths().items()}
    states = {f"state of {node}": Path(path).read_bytes() for node, path in job.node_params.optimizers.paths().items()}
    moments = getattr(experiment.trainer(), "moments", None)
    told = {} if moments is None else {"first": moments.first, "second": moments.second}
    found = {**models, **own, **told}
    return {**{what: {name: np.asarray(value).tobytes() for name, value in params.items()} for what, params in found.items()}, **states}


@pytest.mark.parametrize("case", MADE)
def test_a_round_and_another_from_the_breakpoint_are_two(made, requests, case):
    unbroken = made(save_breakpoints=True, **MADE[case]())
    assert unbroken.run(rounds=2) == 2
    first = Path(unbroken.experimentation_path()) / "breakpoint_0000"
    resumed = Experiment.load_breakpoint(first, requests=requests, show_progress=False)
    assert type(resumed.trainer()) is type(unbroken.trainer())
    assert resumed.round_current() == 1
    assert resumed.run(rounds=1) == 1
    assert ends(unbroken), "something was made"
    assert ends(resumed) == ends(unbroken)
    assert [len(replies) for replies in resumed.training_replies().values()][1:] == [
        len(replies) for replies in unbroken.training_replies().values()
    ][1:]
    assert resumed.trainer().training.metrics.get(2) == unbroken.trainer().training.metrics.get(2)
