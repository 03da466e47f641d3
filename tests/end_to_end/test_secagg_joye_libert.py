"""The scheme `joye_libert` over a real broker, with real node processes, one of which is killed while a round is under way."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedbiomed.common.config import NodeConfig, load
from fedbiomed.common.exceptions import FedbiomedSecureAggregationError
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecureAggregation
from fedbiomed.researcher.strategies import DefaultStrategy
from tests.support.federation import TAGS, Running, running
from tests.support.moody import ARGS, MoodyPlan, assert_close, weights

pytestmark = pytest.mark.slow  # four nodes; the same in memory is in tests/researcher/test_secagg_joye_libert.py


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("joye_libert"), nodes=4, offline_grace_s=0.2, idle_timeout_s=20.0) as started:
        yield started


def test_a_round_without_a_node_is_refused_and_goes_on_without_it(federation: Running) -> None:
    what = {"training_plan_class": MoodyPlan, "training_args": dict(ARGS), "show_progress": False}
    plain = Experiment(tags=TAGS, requests=federation.requests, **what)
    plain.run_once()
    scheme, two = SecureAggregation(scheme="joye_libert", timeout=30), DefaultStrategy(min_nodes=2)
    secure = Experiment(tags=TAGS, requests=federation.requests, secagg=scheme, node_selection_strategy=two, **what)
    secure.run_once()
    assert_close(secure, weights(plain, 0))
    site = federation.federation.sites[-1]
    node_id, data = load(NodeConfig, site.folder, {}).id, site.hospital.path.parent
    os.mkfifo(data / "begun")
    (data / "waits").touch()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(secure.run_once)
        assert (data / "begun").read_text() == "begun"
        os.kill(federation.federation.nodes[site.hospital.name].pid, signal.SIGKILL)
        with pytest.raises(FedbiomedSecureAggregationError, match=f"all nodes must answer.*{node_id}: "):
            future.result(timeout=60)
    assert secure.round_current() == 1
    secure.run_once()
    assert node_id not in secure.secagg.servkey.parties
    assert len(secure.training_replies()[1]) == 3
