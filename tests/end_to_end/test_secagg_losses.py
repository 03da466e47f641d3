"""Secure aggregation over a real broker, with real node processes that are killed while a round is under way.

Each test kills one of the nodes that are left, so that their order does not matter.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedbiomed.common.config import NodeConfig, load
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode
from fedbiomed.common.messages.secagg import SecaggSurvivors
from fedbiomed.common.transport.mqtt import MqttBus
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.federation import TAGS, Running, running
from tests.support.moody import ARGS, MoodyPlan, assert_close, weights
from tests.support.strategies import ActsBeforeReveal

pytestmark = pytest.mark.slow  # five nodes; the same losses in memory are in tests/researcher/test_secagg_rounds.py
Victim = tuple[str, int, Path]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("losses"), nodes=5, offline_grace_s=0.2, idle_timeout_s=20.0) as started:
        yield started


@pytest.fixture
def victim(federation: Running) -> Iterator[Victim]:
    """Id, process and data folder of the last node that is there; gone afterwards."""
    there = set(federation.requests.ping_nodes())
    for site in reversed(federation.federation.sites):
        node_id = load(NodeConfig, site.folder, {}).id
        if node_id in there:
            pid = federation.federation.nodes[site.hospital.name].pid
            yield node_id, pid, site.hospital.path.parent
            os.kill(pid, signal.SIGKILL)
            return


def experiment(federation: Running, **changes: Any) -> Experiment:
    what = {"training_plan_class": MoodyPlan, "training_args": dict(ARGS), "show_progress": False}
    return Experiment(tags=TAGS, requests=federation.requests, **{**what, **changes})


def plain(federation: Running, without: str = "") -> dict[str, Any]:
    """The plain mean over the nodes that are there, or without one of them."""
    nodes = [node for node in federation.requests.ping_nodes() if node != without]
    done = experiment(federation, nodes=nodes)
    done.run_once()
    return weights(done, 0)


def test_a_node_that_dies_before_its_upload_is_left_out(federation: Running, victim: Victim) -> None:
    node_id, pid, data = victim
    expected = plain(federation, without=node_id)
    os.mkfifo(data / "begun")
    (data / "waits").touch()
    secure = experiment(federation, secagg=True, node_selection_strategy=DefaultStrategy(min_nodes=2))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(secure.run_once)
        assert (data / "begun").read_text() == "begun"
        os.kill(pid, signal.SIGKILL)
        assert future.result(timeout=30) == 1
    assert node_id in secure.job().failures[0]
    assert_close(secure, expected)


def test_a_node_that_dies_after_its_upload_stays_in_the_sum(federation: Running, victim: Victim) -> None:
    node_id, pid, _ = victim
    expected = plain(federation)
    strategy = ActsBeforeReveal(lambda: os.kill(pid, signal.SIGKILL))
    secure = experiment(federation, secagg=SecureAggregation(timeout=30), node_selection_strategy=strategy)
    assert secure.run_once() == 1
    assert node_id in {reply["node_id"] for reply in secure.training_replies()[0]}
    assert_close(secure, expected)


def test_a_node_that_dies_when_it_is_to_reveal_stays_in_the_sum(federation: Running, victim: Victim) -> None:
    node_id, pid, _ = victim
    expected = plain(federation)
    config = federation.requests.connection.config
    asked: list[str] = []

    def kill(_topic: str, payload: bytes) -> None:
        if isinstance(decode(payload), SecaggSurvivors):
            asked.append(node_id)
            os.kill(pid, signal.SIGKILL)

    with MqttBus("watcher", config.broker, config.broker_port, persistent=False) as bus:
        bus.connect(10)
        bus.subscribe(topics.orders(config.federation, node_id), kill)
        strategy = ActsBeforeReveal(lambda: os.kill(pid, signal.SIGSTOP))  # what it is asked reaches it, and is never answered
        secure = experiment(federation, secagg=SecureAggregation(timeout=30), node_selection_strategy=strategy)
        assert secure.run_once() == 1
    assert asked == [node_id]
    assert_close(secure, expected)
