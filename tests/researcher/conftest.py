"""Stages on which a researcher and scripted nodes meet: in memory, over the embedded broker, over Mosquitto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Addresses
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
