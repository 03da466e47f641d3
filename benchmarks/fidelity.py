"""Published results made again: Fed-Heart-Disease, FedDC's example, FedProx's synthetic data, MNIST in a short form.

Fed-Heart-Disease runs through real nodes, each a process. The others have more rounds or larger models than processes could train in
minutes: they go through the same `Experiment`, `Node` and `Round` in this process, shorter where that would still be too long; what is
shorter, and how that is tied to the published length, stands under each table.

Run with `scripts/bench fidelity --data FOLDER [--only heart,feddc,synthetic,mnist] [--seeds N]`; prints JSON, and a table on stderr. FOLDER
holds `heart-disease` (the four `processed.*.data` of UCI's set, https://doi.org/10.24432/C52P4X) and `mnist` (its four IDX files); an
experiment whose data are missing is left out, which is said. Ends with 1 when a number lies outside of its band, with 2 when nothing ran.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.published import feddc, heart, mnist, synthetic
from benchmarks.published.findings import Finding, table

Result = tuple[list[Finding], dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """An experiment: its title, the folder of its data (empty: it makes them), and how it runs on these, in an empty folder, with so many
    seeds."""

    title: str
    data: str
    run: Callable[[Path, Path, int], Result]


EXPERIMENTS = {
    "heart": Published(
        "Fed-Heart-Disease, FLamby (NeurIPS 2022)", "heart-disease", lambda data, work, seeds: heart.run(data, work, heart.SEEDS[:seeds])
    ),
    "synthetic": Published("FedProx, synthetic data (MLSys 2020)", "", lambda data, work, seeds: synthetic.run(work, (1, 2)[:seeds])),
    "mnist": Published("MNIST, Dirichlet(0.5), short form", "mnist", lambda data, work, seeds: mnist.run(data, work)),
    "feddc": Published("FedDC, numerical example (ICLR 2023)", "", lambda data, work, seeds: feddc.run(work, (1, 2)[:seeds])),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit code whether all is within its band."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of heart-disease and mnist")
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help=f"some of {','.join(EXPERIMENTS)}")
    parser.add_argument(
        "--seeds", type=int, default=5, choices=range(1, 6), help="of Fed-Heart-Disease, whose bands are for 5; of the rest at most 2"
    )
    args = parser.parse_args(arguments)
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        parser.error(f"--only: there is no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    skipped = {name: reason for name in names if (reason := missing(EXPERIMENTS[name], args.data))}
    report = measured([name for name in names if name not in skipped], args.data, args.seeds)
    for name, reason in skipped.items():
        print(f"{EXPERIMENTS[name].title}: left out: {reason}", file=sys.stderr)
    is_within = all(experiment["within"] for experiment in report.values())
    print(json.dumps({"experiments": report, "left_out": skipped, "within": is_within and bool(report)}, indent=2))
    return 2 if not report else int(not is_within)


def missing(experiment: Published, data: Path) -> str:
    """Why an experiment cannot run; empty where it can."""
    folder = data / experiment.data
    return "" if not experiment.data or folder.is_dir() else f"there is no folder {folder}; --data names the one that holds it"


def measured(names: Sequence[str], data: Path, seeds: int) -> dict[str, Any]:
    """Run experiments, two at a time, each in a process of its own; a table of each goes to stderr when it is done."""
    report: dict[str, Any] = {}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {name: pool.submit(_timed, name, data, seeds) for name in names}
        for name, future in running.items():
            findings, more, seconds = future.result()
            title = f"{EXPERIMENTS[name].title}: {seconds:.0f} s"
            print(table(title, findings, str(more["form"])), file=sys.stderr, flush=True)
            report[name] = _entry(name, findings, more, seconds)
    return report


def _timed(name: str, data: Path, seeds: int) -> tuple[list[Finding], dict[str, Any], float]:
    torch.set_num_threads(1)  # two experiments share the machine
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        findings, more = EXPERIMENTS[name].run(data, Path(work), seeds)
    return findings, more, time.monotonic() - began


def _entry(name: str, findings: Sequence[Finding], more: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "title": EXPERIMENTS[name].title,
        "seconds": round(seconds, 1),
        "within": all(finding.within for finding in findings),
        "findings": [finding.row() for finding in findings],
        **more,
    }


if __name__ == "__main__":
    raise SystemExit(main())
