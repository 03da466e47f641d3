"""Secure rounds over a federation in memory: the same model as without, and nothing of a single node in the researcher's hands."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbiomed.common.exceptions import (
    FedbiomedSecaggError,
    FedbiomedStrategyError,
    FileStoreError,
)
from fedbiomed.common.files import FileRef
from fedbiomed.common.transport.memory_bus import MemoryBus
from fedbiomed.common.transport.memory_store import MemoryFiles, MemoryFileStore
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.aggregators import FedAdam
from fedbiomed.researcher.connect import Connection
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg import SecaggBiprimeContext, SecaggServkeyContext, SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.memory_federation import MemoryFederation
from tests.support.moody import ARGS, assert_close, same, weights
from tests.support.plans import LinePlan, SidePlan
from tests.support.strategies import ActsBeforeReveal

NODE_COUNT = 3
COUNTING = {"training_plan_class": LinePlan, "training_args": dict(ARGS)}
SIDE = {
    "training_plan_class": SidePlan,
    "model_args": {"n_features": 2, "n_classes": 2, "loss": "log_loss"},
    "training_args": {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7},
}
Make = Callable[..., Experiment]
TWO = {"node_selection_strategy": DefaultStrategy(min_nodes=2)}


@pytest.mark.parametrize("what", [{}, COUNTING, SIDE], ids=["line", "with counters", "sklearn"])
def test_a_secure_mean_is_the_plain_mean(secured: Make, what: dict[str, Any]) -> None:
    plain, secure = secured(secagg=False, **what), secured(secagg=SecureAggregation(clipping_range=32), **what)
    plain.run_once()
    secure.run_once()
    assert_close(secure, weights(plain, 0), clip=32)


def test_central_noise_is_in_the_secure_mean(secured: Make) -> None:
    pytest.importorskip("opacus", reason="differential privacy is an extra")
    private = {**ARGS, "random_seed": 3, "dp_args": {"type": "central", "sigma": 0.5, "clip": 1.0}}
    unprotected = secured(secagg=False, training_args={**private, "dp_args": {"type": "central", "sigma": 0.0, "clip": 1.0}})
    plain, secure = secured(secagg=False, training_args=private), secured(training_args=private)
    for experiment in (unprotected, plain, secure):
        experiment.run_once()
    assert_close(secure, weights(plain, 0))
    assert max(float(np.abs(value - weights(unprotected, 0)[name]).max()) for name, value in weights(secure, 0).items()) > 0.05
    for reply in secure.training_replies()[0]:
        assert reply["privacy"].keys() == {"epsilon", "delta"}, "the rate of sampling would tell the number of samples"


def test_rounds_go_on_in_one_session_and_the_contexts_tell_of_it(secured: Make, one_researcher: Requests) -> None:
    plain, secure = secured(secagg=False), secured()
    assert secure.secagg_context() == (None, None)
    plain.run()
    secure.run(rounds=1)
    servkey, biprime = secure.secagg.servkey, secure.secagg.biprime
    assert isinstance(servkey, SecaggServkeyContext)
    assert isinstance(biprime, SecaggBiprimeContext)
    assert servkey.parties == [one_researcher.researcher_id, "node_0", "node_1", "node_2"] == secure.secagg.parties
    assert (servkey.job_id, servkey.status, biprime.job_id, biprime.status) == (secure.job().id, True, None, True)
    assert (servkey.context["threshold"], biprime.context["bits"]) == (2, 32)
    secure.run()
    assert secure.secagg.servkey is servkey
    for name, value in weights(plain, 2).items():
        np.testing.assert_allclose(weights(secure, 2)[name], value, rtol=0, atol=1e-6)


def test_a_server_optimizer_gets_the_mean(secured: Make) -> None:
    plain, secure = secured(secagg=False, aggregator=FedAdam()), secured(aggregator=FedAdam())
    for experiment in (plain, secure):
        experiment.run(rounds=2)
    for name, value in weights(plain, 1).items():
        np.testing.assert_allclose(weights(secure, 1)[name], value, rtol=0, atol=1e-5)


def test_nothing_of_a_single_node_reaches_the_researcher(secured: Make, federation: MemoryFederation) -> None:
    experiment = secured(training_args={**ARGS, "test_ratio": 0.2, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"})
    experiment.run_once(test_after=True)
    replies = experiment.training_replies()
    for reply in [*replies[0], *replies[1]]:
        assert (reply["sample_size"], reply["test_sample_size"]) == (0, 0)
        assert (reply["params"], reply["params_path"], reply["optimizer_args"], reply["optim_aux_var"]) == (None,) * 4
    reported = experiment.job().reported_metrics
    assert {point["iteration"] for round_ in reported.values() for points in round_.values() for point in points} == {1}
    kept = {path.name.split("_")[0] for path in Path(experiment.experimentation_path()).glob("*.mpk")}
    assert kept == {"aggregated", "secagg"}  # the new model, and the opened mean
    assert "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR" in set(experiment.history["metric"])
    for index in range(NODE_COUNT):
        var = federation.root / f"node_{index}" / "var"
        assert not list(var.glob("spool/*/result.mpk"))
        assert (var / "node.sqlite").stat().st_mode & 0o077 == 0


def test_a_node_that_fails_is_left_out_of_the_sum(secured: Make, mood: Callable[[int, str], Path]) -> None:
    plain = secured(secagg=False, nodes=["node_0", "node_1"])
    plain.run_once()
    mood(2, "fails")
    secure = secured(**TWO)
    secure.run_once()
    assert "bad mood" in secure.job().failures[0]["node_2"]
    assert_close(secure, weights(plain, 0))


def test_numbers_that_are_none_stay_on_the_node(secured: Make, mood: Callable[[int, str], Path]) -> None:
    mood(1, "nan")
    secure = secured(**TWO)
    secure.run_once()
    assert "NaN" in secure.job().failures[0]["node_1"]


def test_a_node_that_is_lost_after_its_upload_stays_in_the_sum(
    federation: MemoryFederation, secured: Make, one_researcher: Requests
) -> None:
    with contextlib.ExitStack() as fourth:
        fourth.enter_context(federation.node(3))
        plain = secured(secagg=False)
        plain.run_once()
        secure = secured(secagg=SecureAggregation(timeout=30), node_selection_strategy=ActsBeforeReveal(fourth.close))
        secure.run_once()
        assert "node_3" not in one_researcher.online_nodes()
    assert_close(secure, weights(plain, 0))


class Losing(MemoryFileStore):
    """A researcher's way to the repository on which the first files are lost."""

    def __init__(self, files: MemoryFiles, component_id: str, lost: int) -> None:
        super().__init__(files, component_id)
        self._lost = lost

    def get(self, ref: FileRef, path: Path) -> None:
        if self._lost:
            self._lost -= 1
            raise FileStoreError("lost on its way")
        super().get(ref, path)


def test_updates_that_were_lost_are_masked_anew(federation: MemoryFederation, secured: Make, one_researcher: Requests) -> None:
    plain = secured(secagg=False)
    plain.run_once()
    bus = MemoryBus(federation.broker, "researcher_test.losing", persistent=False)
    bus.connect(5)
    config = one_researcher.connection.config
    with Connection(config, bus, Losing(federation.files, config.id, lost=2)) as connection:
        secure = secured(requests=Requests(connection))
        secure.run_once()
        assert len(secure.training_replies()[0]) == 1  # the others' first attempts never came
    assert_close(secure, weights(plain, 0))


def test_nodes_that_are_silent_are_left_out_of_the_agreement(federation: MemoryFederation, secured: Make) -> None:
    plain = secured(secagg=False)
    plain.run_once()
    with federation.node(3, is_new=False):
        secure, all_needed = secured(**TWO), secured()
    secure.run_once()
    assert "no answer" in secure.secagg._session.absent["node_3"]
    assert_close(secure, weights(plain, 0))
    with pytest.raises(FedbiomedStrategyError, match="3 of 4 nodes"):
        all_needed.run_once()


def test_a_node_that_starts_again_keeps_the_session(federation: MemoryFederation, secured: Make, one_researcher: Requests) -> None:
    with federation.node(7):
        secure = secured()
        secure.run(rounds=1)
        session = secure.secagg.servkey.context
    with federation.node(7, is_new=False):
        secure.run(rounds=1)
        assert secure.secagg.servkey.context == session
        secure.set_secagg(False)
        one_researcher.ping_nodes()  # answered after what was told before
    with NodeStore(federation.root / "node_0" / "var" / "node.sqlite") as store, store.transaction() as connection:
        kept = [bytes(row["sid"]).hex() for row in connection.execute("SELECT sid FROM secagg_sessions")]
    assert session["session"] not in kept  # it was closed


def test_signed_survivors(secured: Make) -> None:
    plain, secure = secured(secagg=False), secured(secagg=SecureAggregation(signed_survivors=True))
    plain.run_once()
    secure.run_once()
    assert secure.secagg.servkey.context["threshold"] == 3
    assert_close(secure, weights(plain, 0))


def test_what_is_cut_is_told_and_the_range_grows(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    given, own = secured(secagg=SecureAggregation(clipping_range=1), **SIDE), secured(secagg=SecureAggregation(), **SIDE)
    own.secagg._clip = 1.0
    for experiment in (given, own):
        experiment.run_once()
    assert "set it: SecureAggregation(clipping_range=4)" in caplog.text
    assert (given.secagg.clip, own.secagg.clip) == (1.0, 4.0)
    rows = given.history[given.history["metric"] == "TRAINING/Clipped fraction"]
    assert list(rows["node"]) == ["node_0", "node_1", "node_2"]
    assert (rows["value"] > 0.1).all()


def test_a_resumed_experiment_agrees_anew(secured: Make, one_researcher: Requests) -> None:
    unbroken, broken = secured(), secured(save_breakpoints=True, secagg=SecureAggregation(timeout=7, minimum_nodes=3))
    unbroken.run()
    broken.run(rounds=2)
    folder = Path(broken.experimentation_path()) / "breakpoint_0001"
    resumed = Experiment.load_breakpoint(folder, requests=one_researcher, show_progress=False)
    assert (resumed.secagg.active, resumed.secagg.timeout, resumed.secagg.minimum_nodes) == (True, 7, 3)
    old = resumed.secagg.servkey
    assert old.context == broken.secagg.servkey.context
    assert old.secagg_id == broken.secagg.servkey.secagg_id
    resumed.run()
    assert resumed.secagg.servkey.context["session"] != old.context["session"]
    assert same(weights(unbroken, 2), weights(resumed, 2))


def test_setup_by_hand(secured: Make, one_researcher: Requests) -> None:
    secagg = SecureAggregation()
    parties = [one_researcher.researcher_id, "node_0", "node_1", "node_2"]
    assert secagg.setup(parties, "job_by_hand", requests=one_researcher) is True
    first = secagg.servkey.context
    secagg.setup(parties, "job_by_hand", requests=one_researcher)
    assert secagg.servkey.context == first
    secagg.setup(parties, "job_by_hand", force=True, requests=one_researcher)
    assert secagg.servkey.context != first
    assert secagg.train_arguments()["secagg_servkey_id"] == secagg.servkey.secagg_id
    for wrong, part in (([*parties[1:], parties[0]], "the first party"), ([*parties, "node_gone"], "node_gone: no answer")):
        with pytest.raises(FedbiomedSecaggError, match=part):
            secagg.setup(wrong, "job_other", requests=one_researcher)


def test_the_old_names(secured: Make, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = secured(secagg=False)
    assert experiment.set_use_secagg(use_secagg=True) is True
    assert experiment.use_secagg() is True
    experiment.run_once()
    assert [type(context).__name__ for context in experiment.secagg_context()] == ["SecaggServkeyContext", "SecaggBiprimeContext"]
    experiment.info()
    assert "Active: True" in capsys.readouterr().out


def test_the_log_tells_of_no_key(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    experiment = secured()
    experiment.run_once()
    session = experiment.secagg._session
    assert session.reveal_private.private_bytes_raw().hex() not in caplog.text
    assert "pair_keys" not in caplog.text
