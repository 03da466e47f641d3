"""Stages on which a researcher and scripted nodes meet (in memory, over either broker), and federations of real nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbiomed.node.worker import Worker
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from tests.conftest import Addresses
from tests.support.memory_federation import TAGS, MemoryFederation, memory_federation
from tests.support.moody import ARGS, MoodyPlan
from tests.support.researchers import MemoryStage, NetworkStage, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[MemoryStage]:
    """In memory."""
    made = MemoryStage(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["memory", "network", "network_mosquitto"])
def any_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """On each transport in turn."""
    if request.param == "memory":
        made: Stage = MemoryStage(tmp_path)
    else:
        addresses: Addresses = request.getfixturevalue(request.param)
        made = NetworkStage(tmp_path, addresses.mqtt_address, addresses.http_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def federation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_worker: Worker
) -> Iterator[MemoryFederation]:
    """Real nodes in this process, shared by the tests of a file: as many as it says by `NODE_COUNT`, else two."""
    with memory_federation(tmp_path_factory.mktemp("federation"), getattr(request.module, "NODE_COUNT", 2), shared_worker) as started:
        yield started


@pytest.fixture
def requests(federation: MemoryFederation, tmp_path: Path) -> Iterator[Requests]:
    """A researcher beside these nodes."""
    with federation.researcher(tmp_path / "researcher", idle_timeout_s=20.0) as made:
        yield made


@pytest.fixture
def made(request: pytest.FixtureRequest, requests: Requests) -> Callable[..., Experiment]:
    """Makes an experiment on these nodes with what the file says by `EXPERIMENT`; other arguments may be given."""

    def make(**changes: Any) -> Experiment:
        return Experiment(**{"tags": TAGS, "requests": requests, "show_progress": False, **request.module.EXPERIMENT, **changes})

    return make


@pytest.fixture(scope="module")
def one_researcher(federation: MemoryFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requests]:
    """One researcher for all tests of a file: with secure aggregation nodes pin its key."""
    with federation.researcher(tmp_path_factory.mktemp("researcher"), idle_timeout_s=20.0, offline_grace_s=0.2) as made:
        yield made


@pytest.fixture
def secured(one_researcher: Requests) -> Callable[..., Experiment]:
    """Makes an experiment with secure aggregation; other arguments may be given."""

    def make(**changes: Any) -> Experiment:
        what = {"training_plan_class": MoodyPlan, "training_args": dict(ARGS), "round_limit": 3, "secagg": True}
        return Experiment(**{"tags": TAGS, "requests": one_researcher, "show_progress": False, **what, **changes})

    return make


@pytest.fixture
def mood(federation: MemoryFederation) -> Iterator[Callable[[int, str], Path]]:
    """Puts a node into a mood (see `MoodyPlan`) for the length of a test."""
    put = []

    def into(index: int, name: str) -> Path:
        put.append(federation.data(index) / name)
        put[-1].touch()
        return put[-1]

    yield into
    for path in put:
        path.unlink(missing_ok=True)
