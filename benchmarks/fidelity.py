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
import resource
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
    code = exit_code(report)
    print(json.dumps({"experiments": report, "left_out": skipped, "within": not code}, indent=2))
    return code


def exit_code(report: Mapping[str, Any]) -> int:
    """2 when nothing ran, 1 when a number lies outside of its band, else 0."""
    return 2 if not report else int(not all(experiment["within"] for experiment in report.values()))


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
            findings, more = future.result()
            title = f"{EXPERIMENTS[name].title}: {more['seconds']:.0f} s, {more['processor_seconds']:.0f} s of a processor"
            print(table(title, findings, more["form"]), file=sys.stderr, flush=True)
            report[name] = entry(name, findings, more)
    return report


def _timed(name: str, data: Path, seeds: int) -> Result:
    torch.set_num_threads(1)  # two experiments share the machine
    began, processor_began = time.monotonic(), _processor_s()
    with tempfile.TemporaryDirectory() as work:
        findings, more = EXPERIMENTS[name].run(data, Path(work), seeds)
    spent = {"seconds": time.monotonic() - began, "processor_seconds": _processor_s() - processor_began}
    return findings, {**{what: round(value, 1) for what, value in spent.items()}, **more}


def _processor_s() -> float:
    """Of this process and those that it has started and seen end."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def entry(name: str, findings: Sequence[Finding], more: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment in the report."""
    return {
        "title": EXPERIMENTS[name].title,
        "within": all(finding.within for finding in findings),
        "findings": [finding.row() for finding in findings],
        **more,
    }


if __name__ == "__main__":
    raise SystemExit(main())
