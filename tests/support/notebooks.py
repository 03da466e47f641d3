"""Notebooks, each executed in a kernel of its own, against hospitals that run as the demo leaves them."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbclient
import nbformat

from fedbiomed.common.config import broker_address
from fedbiomed.demo.hospitals import write_sites
from fedbiomed.demo.more_data import write_more
from fedbiomed.demo.processes import Federation

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


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
    def texts(self) -> list[str]:
        """What each output printed or returned."""
        return [o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in self.outputs]

    @property
    def text(self) -> str:
        """All that was printed or returned."""
        return "\n".join(self.texts)

    @property
    def pictures(self) -> int:
        """How many plots."""
        return sum("image/png" in output.get("data", {}) for output in self.outputs)

    @property
    def tables(self) -> int:
        """How many tables."""
        return sum("<table" in output.get("data", {}).get("text/html", "") for output in self.outputs)


def started(out: Path, count: int, *options: str) -> Iterator[Hospitals]:
    """Hospitals with all data of the demo."""
    sites = write_sites(out / "data", count)
    more = write_more(out / "data", [hospital.name for hospital in sites.hospitals])
    with contextlib.ExitStack() as stack:
        federation = stack.enter_context(Federation(out, sites.hospitals, node_options=options, more=more))
        yield Hospitals(federation, out)
