"""The notebooks run as they stand, each in a kernel of its own, against hospitals that run as the demo leaves them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from fedbiomed.common.config import broker_address
from fedbiomed.demo.hospitals import write_sites
from fedbiomed.demo.more_data import write_more
from fedbiomed.demo.plans import BreastCancerNetwork
from fedbiomed.demo.processes import Federation
from tests.support.federation import command

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WITH_APPROVAL = ("101_getting-started", "training-plan-approval")
TEXTS = {
    "101_getting-started": ["rounds done: 10"],
    "breakpoint-save-resume": ["rounds done before: 2 - now run: 2", "equal to the bit: True"],
    "experiment-interface": [
        "run once: 1",
        "run what is left: 2",
        "run, the limit is reached: 0",
        "limit is now 5",
        "the experiment is as it was: 0.0 60 6",
    ],
    "list-datasets-select-nodes": ["rounds done: 3"],
    "training-plan-approval": ["Pending", "Approved", "Rejected", "+        inputs = "],
    "use-gpu": ["'cpu', 'torch.float32'"],
}


@dataclass(frozen=True)
class Hospitals:
    """Where a federation is, and the folder with its nodes."""

    federation: Federation
    out: Path

    def run(self, name: str, work: Path) -> "Done":
        """Execute a notebook in a folder.

        Raises:
            CellExecutionError: a cell failed.
        """
        host, port = broker_address(self.federation.broker)
        network = {"MQTT_BROKER": host, "MQTT_BROKER_PORT": str(port), "UPLOADS_URL": self.federation.repository}
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(work)}})
        client.execute(env={"OMP_NUM_THREADS": "1", **os.environ, **network, "DEMO_OUT": str(self.out)})
        return Done([output for cell in notebook.cells for output in cell.get("outputs", [])])


@dataclass(frozen=True)
class Done:
    """What a notebook showed."""

    outputs: list[Any]

    @property
    def text(self) -> str:
        """All that was printed or returned."""
        return "\n".join([o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in self.outputs])

    @property
    def pictures(self) -> int:
        """How many plots."""
        return sum("image/png" in output.get("data", {}) for output in self.outputs)

    @property
    def tables(self) -> int:
        """How many tables."""
        return sum("<table" in output.get("data", {}).get("text/html", "") for output in self.outputs)


def started(out: Path, *options: str) -> Iterator[Hospitals]:
    """Two hospitals with all data of the demo."""
    sites = write_sites(out / "data", 2)
    more = write_more(out / "data", [hospital.name for hospital in sites.hospitals])
    with Federation(out, sites.hospitals, node_options=options, more=more) as federation:
        yield Hospitals(federation, out)


@pytest.fixture(scope="module")
def any_plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Hospitals that train whatever comes."""
    yield from started(tmp_path_factory.mktemp("any-plan"), "--no-plan-approval")


@pytest.fixture(scope="module")
def with_approval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Hospitals at which only the plan of the first notebook is approved."""
    out = tmp_path_factory.mktemp("approval")
    for hospitals in started(out):
        plan = BreastCancerNetwork()
        plan.configure_dependencies()
        plan.save_code(str(out / "plan.py"))
        hospitals.federation.register(out / "plan.py", "getting started")
        yield hospitals


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_runs_and_shows_something(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    hospitals: Hospitals = request.getfixturevalue("with_approval" if name in WITH_APPROVAL else "any_plan")
    done = hospitals.run(name, tmp_path)
    for text in TEXTS.get(name, ()):
        assert text in done.text
    assert done.pictures + done.tables >= 1
    assert command("experiment", "list", "--dir", str(tmp_path / "fbm-researcher")).returncode == 0
