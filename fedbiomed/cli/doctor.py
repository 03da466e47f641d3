"""`fedbiomed doctor`: which hop between this machine and a federation fails."""

import argparse
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fedbiomed.cli import hops
from fedbiomed.cli.findings import Finding, found_by, report
from fedbiomed.common.config import ComponentConfig

EXAMPLE = """example:
  fedbiomed doctor --broker broker.example.org:1883 --repository https://files.example.org

Without options it looks at localhost:1883 and http://localhost:8844, or where MQTT_BROKER, MQTT_BROKER_PORT and UPLOADS_URL say.
"""
_LIBRARIES = ("torch", "sklearn", "pandas", "numpy", "paho", "requests", "msgpack", "flask", "amqtt", "rich", "validators")


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="which hop to a federation fails",
        description="Check libraries, torch, disk, broker, login (a message), repository (a file) and clock; exit code 1 when one fails.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--broker", metavar="HOST:PORT", help="where the MQTT broker listens")
    parser.add_argument("--repository", metavar="URL", help="base URL of the file repository")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at every hop."""
    import os

    from fedbiomed.common.config import ResearcherConfig, broker_address, build

    settings: dict[str, Any] = {"id": f"doctor_{uuid.uuid4().hex}"}
    environment = {name: value for name, value in os.environ.items() if name != "RESEARCHER_ID"}
    if args.broker:
        settings["broker"], settings["broker_port"] = broker_address(args.broker)
        environment = {name: value for name, value in environment.items() if not name.startswith("MQTT_BROKER")}
    if args.repository:
        settings["repository"] = args.repository
        environment = {name: value for name, value in environment.items() if not name.startswith("UPLOADS_")}
    return report(_examine(build(ResearcherConfig, Path.cwd(), settings, environment)), as_json=args.json)


def _examine(config: ComponentConfig) -> Iterator[Finding]:
    yield found_by("libraries", partial(hops.libraries, _LIBRARIES), hops.REMEDIES)
    yield found_by("torch", hops.torch_works, hops.REMEDIES)
    yield found_by("disk", partial(hops.disk, Path.cwd()), hops.REMEDIES)
    for check, ask in (("broker", hops.broker), ("login", hops.message), ("repository", hops.repository), ("clock", hops.clock)):
        yield found_by(check, partial(ask, config), hops.REMEDIES)
