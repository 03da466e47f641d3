"""Secure rounds of the scheme `joye_libert` over a federation in memory: all nodes answer, and the sum opens, or the round is refused."""

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedSecaggError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.aggregators import Scaffold
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.memory_federation import MemoryFederation
from tests.support.moody import ARGS, MoodyPlan, assert_close, same, state, weights
from tests.support.plans import LinePlan

pytest.importorskip("gmpy2", reason="the scheme joye_libert is an extra")
NODE_COUNT = 3
COUNTING = {"training_plan_class": LinePlan, "training_args": dict(ARGS)}
TWO = {"node_selection_strategy": DefaultStrategy(min_nodes=2)}
Make = Callable[..., Experiment]


class SinkingPlan(TorchTrainingPlan):
    """All parameters sink by 20 in a round, far below the range of 16, so that all of a hidden block but the weight is zeros."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self, model_args):
        return nn.Linear(1, 3, bias=False)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        return 100 * self.model().weight.sum()


class Noticing(logging.Filter):
    """Lets all records pass, and notices one."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part, self.seen = part, threading.Event()

    def filter(self, record: logging.LogRecord) -> bool:
        if self._part in record.getMessage():
            self.seen.set()
        return True


def joye_libert(**settings: Any) -> SecureAggregation:
    """The scheme, with some patience: the test's machine may be busy."""
    return SecureAggregation(**{"scheme": "joye_libert", "timeout": 30, **settings})


SCAFFOLD = {"aggregator": Scaffold, "training_plan_class": MoodyPlan, "training_args": dict(ARGS)}


@pytest.mark.parametrize("what", [{}, COUNTING, SCAFFOLD], ids=["line", "with counters", "scaffold"])
def test_a_secure_mean_is_the_plain_mean(secured: Make, what: dict[str, Any]) -> None:
    plain, lom, secure = secured(secagg=False, **what), secured(**what), secured(secagg=joye_libert(), **what)
    for experiment in (plain, lom, secure):
        experiment.run_once()
    assert_close(secure, weights(plain, 0))
    assert same(weights(lom, 0), weights(secure, 0))  # the same sums of integers


def test_zeros_at_the_end_of_a_block_survive(secured: Make) -> None:
    secure = secured(secagg=joye_libert(), training_plan_class=SinkingPlan)
    before = secure.training_plan().get_model_params()["weight"].numpy().copy()
    secure.run_once()
    np.testing.assert_allclose(weights(secure, 0)["weight"], before - 16, rtol=0, atol=1e-6)


def test_rounds_go_on_in_one_session_and_a_resumed_experiment_makes_new_keys(
    secured: Make, one_researcher: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    unbroken, broken = secured(), secured(save_breakpoints=True, secagg=joye_libert())
    unbroken.run()
    broken.run(rounds=1)
    servkey, biprime = broken.secagg.servkey, broken.secagg.biprime
    broken.run(rounds=1)
    assert (broken.secagg.servkey, broken.secagg.biprime) == (servkey, biprime)
    assert servkey.parties == [one_researcher.researcher_id, "node_0", "node_1", "node_2"] == biprime.parties
    assert (servkey.job_id, servkey.status, biprime.job_id, biprime.status) == (broken.job().id, True, None, True)
    assert (servkey.context["scheme"], servkey.context["threshold"]) == ("joye_libert", 3)
    assert biprime.context["biprime"].bit_length() >= 2048
    for reply in [*broken.training_replies()[0], *broken.training_replies()[1]]:
        assert (reply["sample_size"], reply["params"], reply["params_path"]) == (0, None, None)
    folder = Path(broken.experimentation_path()) / "breakpoint_0001"
    secrets = [str(broken.secagg._session.server_key)[1:], str(-broken.secagg._session.server_key % 10**200)]
    kept = json.dumps(json.loads((folder / "breakpoint_0001.json").read_text())["secagg"])
    assert not any(secret in kept + caplog.text + repr(broken.secagg._session) for secret in secrets)
    resumed = Experiment.load_breakpoint(folder, requests=one_researcher, show_progress=False)
    assert resumed.secagg.scheme == "joye_libert"
    assert resumed.secagg.biprime.context == biprime.context
    resumed.run()
    assert resumed.secagg.servkey.context["session"] != servkey.context["session"]
    assert resumed.secagg.biprime.context["biprime"] != biprime.context["biprime"]
    assert same(weights(unbroken, 2), weights(resumed, 2))


def test_a_round_that_lacks_a_node_is_refused_and_the_next_one_has_new_keys(
    federation: MemoryFederation, secured: Make, mood: Callable[[int, str], Path], one_researcher: Requests
) -> None:
    plain, secure = secured(secagg=False), secured(secagg=joye_libert(), **TWO)
    plain.run_once()
    with federation.node(3):
        secure = secured(secagg=joye_libert(), **TWO)
        before, lost = state(secure), mood(3, "fails")
        with pytest.raises(FedbiomedSecureAggregationError) as caught:
            secure.run_once()
        assert "all nodes must answer" in str(caught.value)
        assert "node_3: " in str(caught.value)
        assert "bad mood" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert state(secure) == before
        first = secure.secagg.servkey.context["session"]
        one_researcher.ping_nodes()  # answered after what was told before
        with NodeStore(federation.root / "node_0" / "var" / "node.sqlite") as store, store.transaction() as connection:
            kept = [bytes(row["sid"]).hex() for row in connection.execute("SELECT sid FROM secagg_sessions")]
        assert first not in kept  # its keys are gone
        lost.unlink()
    secure.run_once()  # without node_3, which is not there any more
    assert secure.secagg.servkey.parties[1:] == ["node_0", "node_1", "node_2"]
    assert secure.secagg.servkey.context["session"] != first
    assert_close(secure, weights(plain, 0))


def test_nodes_do_not_work_on_for_a_sum_that_cannot_be_opened(
    federation: MemoryFederation, secured: Make, mood: Callable[[int, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    left_out = Noticing("node_9 is left out")
    mood(0, "waits")  # for ever
    os.mkfifo(federation.data(0) / "begun")
    with caplog.filtering(left_out), contextlib.ExitStack() as other, federation.node(9, plan_approval=True), ThreadPoolExecutor(1) as pool:
        other.enter_context(federation.node(10))
        secure = secured(secagg=joye_libert(), **TWO)
        future = pool.submit(secure.run_once)
        assert left_out.seen.wait(60)  # the plan was not approved there
        other.close()  # something is heard then
        with pytest.raises(FedbiomedSecureAggregationError, match="all nodes must answer") as caught:
            future.result(timeout=60)
    (federation.data(0) / "begun").unlink()
    assert "node_9: " in str(caught.value)
    assert "node_0: " not in str(caught.value)


def test_numbers_that_are_none_stay_on_the_node(secured: Make, mood: Callable[[int, str], Path]) -> None:
    secure = secured(secagg=joye_libert())
    mood(1, "nan")
    with pytest.raises(FedbiomedSecureAggregationError, match=r"all nodes must answer.*node_1: .*NaN"):
        secure.run_once()


def test_a_node_that_starts_again_keeps_its_keys(federation: MemoryFederation, secured: Make) -> None:
    with federation.node(7):
        secure = secured(secagg=joye_libert())
        secure.run(rounds=1)
        session = secure.secagg.servkey.context
    with federation.node(7, is_new=False):
        secure.run(rounds=1)
        assert secure.secagg.servkey.context == session


def test_a_node_whose_identity_changed_is_refused(federation: MemoryFederation, secured: Make) -> None:
    with federation.node(8) as node:
        secured(secagg=joye_libert()).run_once()
        identity = node._config.identity
    identity.unlink()
    with federation.node(8, is_new=False):
        secure = secured(secagg=joye_libert())
        with pytest.raises(FedbiomedSecaggError, match=r"node_8.*pinned"):
            secure.run_once()


def test_two_nodes_that_consent_train_with_it_only_and_validate(federation: MemoryFederation, secured: Make) -> None:
    settings = {"allow_two_node_sums": True, "force_secure_aggregation": True}
    with federation.node(5, **settings), federation.node(6, **settings):
        args = {**ARGS, "test_ratio": 0.2, "test_on_global_updates": True, "test_metric": "MEAN_SQUARE_ERROR"}
        secure = secured(nodes=["node_5", "node_6"], training_args=args, secagg=joye_libert(allow_two_nodes=True))
        secure.run_once(test_after=True)
        assert "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR" in set(secure.history["metric"])


def test_without_gmpy2_one_line_names_the_extra_and_the_experiment_goes_on(secured: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = secured(secagg=joye_libert())
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "gmpy2", None)  # as where it is not installed
        with pytest.raises(FedbiomedSecaggError) as caught:
            experiment.run_once()
    assert "pip install 'fedbiomed[joye-libert]'" in str(caught.value)
    assert "\n" not in str(caught.value)
    experiment.set_secagg(True)
    assert experiment.run_once() == 1


def test_the_cost_of_a_large_model_is_told_once(secured: Make, caplog: pytest.LogCaptureFixture) -> None:
    secure = secured(secagg=joye_libert())
    secure.run_once()
    assert "takes each node about" not in caplog.text  # three values take no time
    session, secagg = secure.secagg._session, secure.secagg
    secagg._cost_told = None
    for round_ in (1, 2):
        secagg.tell_cost(round_, session, {Purpose.WEIGHTS: 10**11})
    assert caplog.text.count("hiding 100000000000 values by joye_libert takes each node about") == 1
    assert "Raise round_timeout_s, which is 3600" in caplog.text
