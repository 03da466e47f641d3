"""The notebooks run as they stand, against the demo's hospitals with plan approval on."""

import os
from pathlib import Path

import nbclient
import nbformat

from fedbiomed.common.config import broker_address
from fedbiomed.demo.hospitals import write_sites
from fedbiomed.demo.plans import BreastCancerNetwork
from fedbiomed.demo.processes import Federation
from tests.support.federation import command

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_getting_started(tmp_path):
    sites = write_sites(tmp_path / "data", 2)
    with Federation(tmp_path, sites.hospitals) as federation:
        plan = BreastCancerNetwork()
        plan.configure_dependencies()
        plan.save_code(str(tmp_path / "plan.py"))
        federation.register(tmp_path / "plan.py", "getting started")
        host, port = broker_address(federation.broker)
        env = {**os.environ, "MQTT_BROKER": host, "MQTT_BROKER_PORT": str(port), "UPLOADS_URL": federation.repository}
        notebook = nbformat.read(NOTEBOOKS / "101_getting-started.ipynb", as_version=4)
        work = tmp_path / "work"
        work.mkdir()
        nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(work)}}).execute(env=env)
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("rounds done: 10" in text for text in texts)
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert (work / "breast-cancer-network.pt").exists()
    assert command("experiment", "list", "--dir", str(work / "fbm-researcher")).returncode == 0
