"""The notebooks run as they stand, against the demo's hospitals with plan approval on."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from fedbiomed.common.config import broker_address
from fedbiomed.demo.hospitals import write_sites
from fedbiomed.demo.plans import BreastCancerNetwork
from fedbiomed.demo.processes import Federation
from tests.support.federation import command

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    root = tmp_path_factory.mktemp("hospitals")
    sites = write_sites(root / "data", 2)
    with Federation(root, sites.hospitals) as federation:
        plan = BreastCancerNetwork()
        plan.configure_dependencies()
        plan.save_code(str(root / "plan.py"))
        federation.register(root / "plan.py", "getting started")
        yield federation


@pytest.fixture
def executed(hospitals, tmp_path):
    """Run a notebook in `tmp_path`; gives it with its outputs."""

    def execute(name):
        host, port = broker_address(hospitals.broker)
        env = {**os.environ, "MQTT_BROKER": host, "MQTT_BROKER_PORT": str(port), "UPLOADS_URL": hospitals.repository}
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute(env=env)
        return notebook

    return execute


def texts(notebook):
    return [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def test_getting_started(executed, tmp_path):
    notebook = executed("101_getting-started.ipynb")
    assert any("rounds done: 10" in text for text in texts(notebook))
    assert len(pictures(notebook)) == 2
    assert (tmp_path / "breast-cancer-network.pt").exists()
    assert command("experiment", "list", "--dir", str(tmp_path / "fbm-researcher")).returncode == 0


def test_tensorboard(executed, tmp_path):
    notebook = executed("tensorboard.ipynb")
    assert len(list((tmp_path / "fbm-researcher" / "runs").glob("*/events.out.tfevents.*"))) == 2
    shown = "".join(texts(notebook))
    # each round, and the validation after the last
    assert shown.count("VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR last step 4") == 2
    assert shown.count("VALIDATION ON LOCAL UPDATES/MEAN_SQUARE_ERROR last step 3") == 2
    assert len(pictures(notebook)) == 1
    assert "rounds in the monitor: [1, 2, 3, 4]" in shown
