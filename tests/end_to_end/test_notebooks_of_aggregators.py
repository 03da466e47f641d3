"""The notebooks on Scaffold and FedProx run as they stand, against the sites that their script starts."""

import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from fedbiomed.demo.processes import Federation
from tests.support.scripts import loaded_script

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Environment in which the notebooks find the sites."""
    script = loaded_script(NOTEBOOKS / "digit_hospitals.py")
    folder = tmp_path_factory.mktemp("digits")
    sites = script.write_sites(folder / "data")
    assert [site.patients for site in sites] == [479, 479, 479]
    with Federation(folder, sites, node_options=["--no-plan-approval"], dataset="digits", tags=script.TAGS) as federation:
        host, _, port = federation.broker.rpartition(":")
        yield {**os.environ, "OMP_NUM_THREADS": "1", "MQTT_BROKER": host, "MQTT_BROKER_PORT": port, "UPLOADS_URL": federation.repository}


def executed(name, where, work):
    """Texts and tables of a notebook, and how many pictures it has."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(work)}}).execute(env=where)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return texts, sum("image/png" in output.get("data", {}) for output in outputs)


def last_row(texts, column):
    """Numbers of a printed table of one row."""
    (table,) = [text for text in texts if column in text and len(text.splitlines()) == 2]
    return [float(number) for number in re.findall(r"\d+\.\d+", table.splitlines()[1])]


def test_scaffold(where, tmp_path):
    texts, pictures = executed("scaffold.ipynb", where, tmp_path)
    averaged, corrected = last_row(texts, "Scaffold")
    assert corrected > averaged
    assert any("rounds done: 9" in text for text in texts)
    assert pictures == 2


def test_fedprox(where, tmp_path):
    texts, pictures = executed("fedprox.ipynb", where, tmp_path)
    tables = [text for text in texts if "mu 0.3" in text and len(text.splitlines()) == 2]
    drifts = [float(number) for number in re.findall(r"\d+\.\d+", tables[0].splitlines()[1])]
    assert drifts == sorted(drifts, reverse=True)
    assert pictures == 2
