"""Whole federations of real processes for tests: network, nodes, and a researcher's connection in the test's process."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbiomed.common.config import ResearcherConfig, broker_address, save
from fedbiomed.demo.hospitals import Hospital
from fedbiomed.demo.processes import Federation, fedbiomed
from fedbiomed.researcher.connect import connect
from fedbiomed.researcher.requests import Requests
from tests.support.plans import write_rows

TAGS = ["breast-cancer"]


@dataclass(frozen=True)
class Running:
    """A federation, and a researcher connected to it."""

    federation: Federation
    requests: Requests
    root: Path


def sites(folder: Path, count: int) -> list[Hospital]:
    """Files of 30, 40, 50 ... rows."""
    hospitals = []
    for index in range(count):
        path = folder / "data" / f"site-{index}" / "rows.csv"
        path.parent.mkdir(parents=True)
        write_rows(path, 30 + 10 * index, seed=index)
        hospitals.append(Hospital(name=f"site-{index}", path=path, patients=30 + 10 * index, malignant=0))
    return hospitals


def researcher_config(root: Path, federation: Federation, **settings: float) -> ResearcherConfig:
    """Settings of a researcher on that federation, saved below its folder."""
    host, port = broker_address(federation.broker)
    where: dict[str, Any] = {"broker": host, "broker_port": port, "repository": federation.repository, "answer_timeout_s": 20.0}
    config = ResearcherConfig(root=root, id="researcher_test", **{**where, **settings})
    save(config)
    return config


@contextlib.contextmanager
def running(
    folder: Path, nodes: int, *, broker: str | None = None, node_options: Sequence[str] = ("--no-plan-approval",), **settings: float
) -> Iterator[Running]:
    """Start everything below a folder; all of it ends with the block."""
    with (
        Federation(folder, sites(folder, nodes), broker=broker, node_options=node_options) as federation,
        connect(researcher_config(folder / "researcher", federation, **settings)) as connection,
    ):
        yield Running(federation=federation, requests=Requests(connection), root=folder)


def command(
    *arguments: str, timeout: float = 60, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one `fedbiomed` command to its end."""
    return subprocess.run(
        fedbiomed(*arguments), capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL, env=env, cwd=cwd
    )
