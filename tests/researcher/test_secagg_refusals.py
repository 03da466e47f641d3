"""What goes wrong in secure rounds: refused in one line, and the experiment goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbiomed.common.exceptions import (
    AggregationError,
    FedbiomedSecaggError,
    FedbiomedSecureAggregationError,
    FedbiomedStrategyError,
)
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.researcher.aggregators import ClientLevelDP, FedAverage, FedDGGA, FedNova, FedPCA, FedPM, Krum, Median, Scaffold
from fedbiomed.researcher.events import DaisyChainTrainer, MergeTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.aux_modules import Average, Latest, Named
from tests.support.memory_federation import MemoryFederation
from tests.support.moody import ARGS, assert_close, state, weights

NODE_COUNT = 3
Make = Callable[..., Experiment]
TWO = {"node_selection_strategy": DefaultStrategy(min_nodes=2)}


class Refining(DefaultStrategy):
    """Looks at all replies."""

    def refine(self, training_replies, round_i):
        return super().refine(training_replies, round_i)


def test_too_few_nodes_reveal_nothing_and_the_experiment_goes_on(
    secured: Make, mood: Callable[[int, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    plain, secure = secured(secagg=False), secured(**TWO)
    plain.run_once()
    before = state(secure)
    moods = [mood(1, "fails"), mood(2, "fails")]
    with pytest.raises(FedbiomedStrategyError, match="1 of 3 nodes"):
        secure.run_once()
    assert "asking once more" in caplog.text  # and the two have nothing to mask again
    assert state(secure) == before
    for path in moods:
        path.unlink()
    secure.run_once()
    assert_close(secure, weights(plain, 0))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"aggregator": Median}, "Median needs the update of each"),
        ({"aggregator": Krum}, "Krum needs"),
        ({"aggregator": FedNova}, "FedNova needs"),
        ({"aggregator": FedDGGA}, "FedDGGA needs"),
        ({"aggregator": FedPM}, "FedPM needs"),
        ({"aggregator": FedPCA}, "FedPCA needs"),
        ({"aggregator": ClientLevelDP(weighted=True)}, "ClientLevelDP needs"),
        ({"agg_optimizer": Optimizer(lr=1.0, modules=[Latest()])}, "module 'latest' (latest) cannot be summed: LatestAux combines"),
        ({"agg_optimizer": Optimizer(lr=1.0, modules=[Named()])}, "module 'named' (named) cannot be summed: field 'names'"),
        ({"agg_optimizer": Optimizer(lr=1.0, modules=[Average()])}, "module 'average' (average) cannot be summed: AverageAux combines"),
        ({"aggregator": Scaffold(weighted=True), "agg_optimizer": Optimizer(lr=1.0, modules=["scaffold-server"])}, "choose one of them"),
        ({"node_selection_strategy": Refining}, "Refining judges single replies"),
        ({"trainer": DaisyChainTrainer(aggregation_period=2)}, "DaisyChainTrainer needs the models"),
        ({"trainer": MergeTrainer}, "MergeTrainer needs the models"),
        ({"nodes": ["node_0", "node_1"]}, "each learns the other's update"),
        ({"nodes": ["node_0"]}, "three nodes or more"),
        ({"nodes": ["node_0", "node_1"], "secagg": SecureAggregation(allow_two_nodes=True)}, "consent of both operators"),
        ({"secagg": SecureAggregation(minimum_nodes=4)}, "minimum_nodes = 4, but 3 nodes"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(secured: Make, changes: dict[str, Any], part: str) -> None:
    experiment = secured(**changes)
    before = state(experiment)
    with pytest.raises((FedbiomedSecureAggregationError, FedbiomedSecaggError)) as caught:
        experiment.run_once()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state(experiment) == before
    experiment.set_secagg(False)
    experiment.set_aggregator(FedAverage)
    experiment.set_agg_optimizer(None)
    experiment.set_strategy(DefaultStrategy)
    experiment.set_trainer(None)
    assert experiment.run_once() == 1


def test_models_are_not_merged_unseen(secured: Make) -> None:
    experiment = secured(secagg=False, trainer=MergeTrainer)
    experiment.run_once()
    experiment.set_secagg(True)
    with pytest.raises(FedbiomedSecureAggregationError, match="merge_models needs the models of single nodes"):
        experiment.merge_models()


@pytest.mark.parametrize("scheme", ["lom", "joye_libert"])
@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"secure_aggregation": False}, "switched off on node node_4"),
        ({"minimum_nodes_in_sum": 5}, "SecureAggregation(minimum_nodes=5)"),
    ],
)
def test_the_word_of_the_node_wins(federation: MemoryFederation, secured: Make, settings: dict[str, Any], part: str, scheme: str) -> None:
    if scheme == "joye_libert":
        pytest.importorskip("gmpy2", reason="the scheme joye_libert is an extra")
    with federation.node(4, is_new=not (federation.root / "node_4").exists(), **settings):
        experiment = secured(secagg=SecureAggregation(scheme=scheme, timeout=30))
        with pytest.raises(FedbiomedSecaggError) as caught:
            experiment.run_once()
        assert part in str(caught.value)
        experiment.set_secagg(False)
        assert experiment.run_once() == 1


def test_two_nodes_where_all_consent(federation: MemoryFederation, secured: Make) -> None:
    with (
        federation.node(5, allow_two_node_sums=True),
        federation.node(6, allow_two_node_sums=True, force_secure_aggregation=True),
    ):
        secure = secured(nodes=["node_5", "node_6"], secagg=SecureAggregation(allow_two_nodes=True))
        secure.run_once()
        experiment = secured(nodes=["node_5", "node_6"], secagg=False)
        with pytest.raises(FedbiomedStrategyError, match="secure aggregation only"):
            experiment.run_once()


class Refusing(FedAverage):
    """Refuses the mean when it is told to."""

    is_moody = True

    def finish(self):
        if type(self).is_moody:
            raise AggregationError("not today")
        return super().finish()


def test_a_sum_that_was_opened_is_used_and_not_asked_for_again(secured: Make, mood: Callable[[int, str], Path]) -> None:
    plain, secure = secured(secagg=False), secured(aggregator=Refusing(), **TWO)
    plain.run_once()
    with pytest.raises(AggregationError, match="not today"):
        secure.run_once()
    place = Path(secure.experimentation_path()) / "secagg_opened.mpk"
    assert place.stat().st_mode & 0o777 == 0o600
    mood(2, "fails")  # if it were asked, the sum would be another one
    secure.aggregator().__class__.is_moody = False
    secure.run_once()
    assert [reply["node_id"] for reply in secure.training_replies()[0]] == ["node_0", "node_1", "node_2"]
    assert_close(secure, weights(plain, 0))
    secure.run_once()  # the next round asks
    assert "bad mood" in secure.job().failures[1]["node_2"]
    Refusing.is_moody = True


def test_an_opened_sum_of_other_arguments_is_not_used(secured: Make) -> None:
    secure = secured(aggregator=Refusing())
    with pytest.raises(AggregationError, match="not today"):
        secure.run_once()
    first = secure.secagg.servkey.context["session"]
    secure.set_training_args({**ARGS, "num_updates": 3})
    secure.set_aggregator(FedAverage)
    secure.run_once()
    assert secure.secagg.servkey.context["session"] != first
