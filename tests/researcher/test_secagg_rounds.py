"""Secure rounds over a federation in memory: the same model as without, and nothing of a single node in the researcher's hands."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedError, FedbiomedSecaggError, FedbiomedSecureAggregationError, FedbiomedStrategyError
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.secagg.update import COUNTER_RANGE
from fedbiomed.common.serializer import Serializer
from fedbiomed.researcher.aggregators import APFL, FedAdam, FedNova, FedProx, Krum, Median, Scaffold
from fedbiomed.researcher.events import DaisyChainTrainer, MergeTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg import SecaggBiprimeContext, SecaggServkeyContext, SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.memory_federation import TAGS, MemoryFederation
from tests.support.moody import ARGS, NODES, MoodyPlan, same, state, weights
from tests.support.plans import LinePlan, SidePlan

NODE_COUNT = 3
COUNTING = {"training_plan_class": LinePlan, "training_args": dict(ARGS)}
SIDE = {
    "training_plan_class": SidePlan,
    "model_args": {"n_features": 2, "n_classes": 2, "loss": "log_loss"},
    "training_args": {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7},
}
Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def requests(federation: MemoryFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requests]:
    """One researcher for all tests of this file: the nodes pin its key."""
    with federation.researcher(tmp_path_factory.mktemp("researcher"), idle_timeout_s=20.0) as made:
        yield made


@pytest.fixture
def made(requests: Requests) -> Make:
    def make(**changes):
        what = {"training_plan_class": MoodyPlan, "training_args": dict(ARGS), "round_limit": 3, "secagg": True}
        return Experiment(**{"tags": TAGS, "requests": requests, "show_progress": False, **what, **changes})

    return make


@pytest.mark.parametrize("what", [{}, COUNTING, SIDE], ids=["line", "with counters", "sklearn"])
def test_a_secure_mean_is_the_plain_mean(made: Make, what: dict[str, object]) -> None:
    plain, secure = made(secagg=False, **what), made(secagg=SecureAggregation(clipping_range=32), **what)
    plain.run_once()
    secure.run_once()
    one, other = weights(plain, 0), weights(secure, 0)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        # C / 2**(bits - 1), and what the dtype of the model itself rounds
        limit = (COUNTER_RANGE if "num_batches" in name else 32) / 2**31 + np.spacing(np.abs(value).max())
        np.testing.assert_allclose(other[name], value, rtol=0, atol=limit)


def test_rounds_go_on_in_one_session(made: Make) -> None:
    plain, secure = made(secagg=False), made()
    plain.run()
    secure.run(rounds=1)
    context = secure.secagg.servkey.context
    secure.run()
    assert secure.secagg.servkey.context == context
    for name, value in weights(plain, 2).items():
        np.testing.assert_allclose(weights(secure, 2)[name], value, rtol=0, atol=1e-6)


def test_a_server_optimizer_gets_the_mean(made: Make) -> None:
    plain, secure = made(secagg=False, aggregator=FedAdam()), made(aggregator=FedAdam())
    for experiment in (plain, secure):
        experiment.run(rounds=2)
    for name, value in weights(plain, 1).items():
        np.testing.assert_allclose(weights(secure, 1)[name], value, rtol=0, atol=1e-5)


def test_nothing_of_a_single_node_reaches_the_researcher(made: Make, federation: MemoryFederation, requests: Requests) -> None:
    experiment = made(training_args={**ARGS, "test_ratio": 0.2, "test_on_global_updates": True})
    experiment.run_once(test_after=True)
    replies = experiment.training_replies()
    for reply in [*replies[0], *replies[1]]:
        assert (reply["sample_size"], reply["test_sample_size"]) == (0, 0)
        assert reply["params"] is None
        assert reply["params_path"] is None
        assert "told" not in reply
    kept = {path.name.split("_")[0] for path in Path(experiment.experimentation_path()).glob("*.mpk")}
    assert kept == {"aggregated"}
    assert "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR" in set(experiment.history["metric"]) | {"VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR"}
    for index in range(NODE_COUNT):
        spool = federation.root / f"node_{index}" / "var"
        assert not list(spool.glob("spool/*/result.mpk"))
        assert not list((spool / "secagg").glob("*"))  # kept updates go when the round is closed
