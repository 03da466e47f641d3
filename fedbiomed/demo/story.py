"""The demo from start to end: start a federation, train two models with a stop in between, compare, write down."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fedbiomed.common.config import ResearcherConfig, broker_address, save
from fedbiomed.demo import report
from fedbiomed.demo.hospitals import Sites, described, write_sites
from fedbiomed.demo.models import RECIPES, Trained, compare, train_together
from fedbiomed.demo.more_data import write_more
from fedbiomed.demo.processes import Federation
from fedbiomed.researcher.connect import connect
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user of the demo may choose.

    Args:
        nodes: hospitals, 2 to 10.
        rounds: federated rounds, at least 2 (one before the stop, one after).
        out: a folder that is new or empty.
        broker: `HOST:PORT` of a broker that runs already, or None.
        keep: leave network and nodes running afterwards, until Ctrl-C; the hospitals have more data then, for the notebooks.
        any_plan: the hospitals train whatever plan comes.
        secagg: the researcher sees only sums of the hospitals' updates; three hospitals or more.
        secagg_scheme: how their updates are hidden then.
    """

    nodes: int
    rounds: int
    out: Path
    broker: str | None
    keep: bool
    any_plan: bool = False
    secagg: bool = False
    secagg_scheme: str = "lom"


class Stopwatch:
    """Seconds by name of the part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)

    def total(self) -> None:
        """Note what has passed since the start."""
        self.seconds["total"] = round(time.monotonic() - self._began, 2)


def run(options: Options, console: Console, wait_for_user: Any) -> list[str]:
    """Tell the whole story.

    Args:
        options: the user's choices.
        console: where to show it.
        wait_for_user: called with the running `Federation` when it is to be kept; returns when the user is done.

    Returns:
        Why federated learning did not keep its promise, one sentence each; empty when it did.
    """
    watch = Stopwatch()
    sites = write_sites(options.out / "data", options.nodes)
    _introduce(sites, console)
    with _federation(options, sites, watch) as federation:
        trained = _train(options, federation, sites, watch, console)
        with watch.part("alone and pooled"):
            models = {r.name: compare(r, options.rounds, sites, trained[r.name]) for r in RECIPES}
        watch.total()
        _write(options, sites, models, trained, watch.seconds)
        report.show(models, console)
        console.print(f"results, curves.png, breakpoints and logs are in {options.out} ({watch.seconds['total']:.0f} s)")
        if options.keep:
            wait_for_user(federation)
    return report.shortfalls(models)


def _introduce(sites: Sites, console: Console) -> None:
    patients, hospitals = sum(site.patients for site in sites.hospitals), len(sites.hospitals)
    console.print(f"{patients} real patients at {hospitals} hospitals, {len(sites.held_out)} held out for testing:")
    for site in described(sites.hospitals):
        console.print(f"  {site['hospital']}: {site['patients']} patients, {site['malignant']:.0%} malignant")


@contextmanager
def _federation(options: Options, sites: Sites, watch: Stopwatch) -> Iterator[Federation]:
    mqtt_port, http_port = (1883, 8844) if options.keep else (0, 0)
    federation = Federation(
        options.out,
        sites.hospitals,
        broker=options.broker,
        mqtt_port=mqtt_port,
        http_port=http_port,
        node_options=("--no-plan-approval",) if options.any_plan else (),
        more=write_more(options.out / "data", [h.name for h in sites.hospitals]) if options.keep else None,
    )
    with ExitStack() as stack:
        stack.push(federation)  # before it begins: whatever interrupts the start, all of it is ended
        with watch.part("start of network and nodes"):
            federation.__enter__()
        yield federation


def _train(options: Options, federation: Federation, sites: Sites, watch: Stopwatch, console: Console) -> dict[str, Trained]:
    broker, port = broker_address(federation.broker)
    config = ResearcherConfig(
        root=(options.out / "researcher").absolute(),
        id="researcher_demo",
        broker=broker,
        broker_port=port,
        repository=federation.repository,
    )
    save(config)
    trained = {}
    with connect(config) as connection:
        requests = Requests(connection)
        for recipe in RECIPES:
            how = f", with secure aggregation ({options.secagg_scheme})" if options.secagg else ""
            console.print(f"\n[bold]{recipe.name}[/bold]: {options.rounds} rounds over {options.nodes} hospitals{how}")
            with watch.part(f"federated {recipe.name}"):
                secagg = SecureAggregation(active=options.secagg, scheme=options.secagg_scheme)
                trained[recipe.name] = train_together(recipe, options.rounds, federation, requests, sites.held_out, secagg)
    return trained


def _write(options: Options, sites: Sites, models: dict[str, Any], trained: dict[str, Trained], seconds: dict[str, float]) -> None:
    resumed = {name: str(t.breakpoint_folder.relative_to(options.out)) for name, t in trained.items() if t.breakpoint_folder}
    results = {
        "models": models,
        "seconds": seconds,
        "resumed_from": resumed,
        "hospitals": described(sites.hospitals),
        "rounds": options.rounds,
        "secagg": options.secagg,
        "secagg_scheme": options.secagg_scheme if options.secagg else None,
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report.draw(models, options.out / "curves.png")
