"""`fedbiomed doctor`: which hop between this machine and a federation fails."""

import argparse
import email.utils
import importlib.util
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from fedbiomed.cli.findings import Finding, found_by, report

EXAMPLE = """example:
  fedbiomed doctor --broker broker.example.org:1883 --repository https://files.example.org

Without options it looks at localhost:1883 and http://localhost:8844, or where MQTT_BROKER, MQTT_BROKER_PORT and UPLOADS_URL say.
"""
_ANSWER_S = 5.0
_CLOCK_SKEW_S = 600.0
_FREE_BYTES = 1 << 30
_LIBRARIES = ("torch", "sklearn", "pandas", "numpy", "paho", "requests", "msgpack", "flask", "amqtt", "rich", "validators")


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="which hop to a federation fails",
        description="Check libraries, disk, broker (with a message), repository (with a file) and clock; exit code 1 when one fails.",
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


def _examine(config: Any) -> Iterator[Finding]:
    for check, look in (("libraries", _libraries), ("disk", _disk)):
        yield found_by(check, look)
    for check, ask in (("broker", _broker), ("repository", _repository), ("clock", _clock)):
        yield found_by(check, partial(ask, config))


def _libraries() -> str:
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise OSError(f"not installed: {', '.join(missing)}; install fedbiomed anew")
    return f"installed: {', '.join(_LIBRARIES)}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _FREE_BYTES:
        raise OSError(f"{free >> 20} MiB are free on the disk of {Path.cwd()}, models need more: make room")
    return f"{free >> 30} GiB are free"


def _broker(config: Any) -> str:
    from fedbiomed.common.messages import topics
    from fedbiomed.common.transport.mqtt import MqttBus

    heard, topic = threading.Event(), topics.replies(config.federation, config.id, config.id)
    with MqttBus(config.id, config.broker, config.broker_port, persistent=False) as bus:
        bus.connect(_ANSWER_S)
        bus.subscribe(topic, lambda _topic, _payload: heard.set())
        began = time.perf_counter()
        bus.publish(topic, b"hello")
        if not heard.wait(_ANSWER_S):
            raise OSError(f"{config.broker}:{config.broker_port} took a message and did not deliver it: look at its access rules")
        return f"{config.broker}:{config.broker_port} delivers a message in {1000 * (time.perf_counter() - began):.0f} ms"


def _repository(config: Any) -> str:
    from fedbiomed.common.transport.http import HttpFileStore

    with tempfile.TemporaryDirectory() as folder, HttpFileStore(config.repository, config.id, timeout_s=_ANSWER_S) as store:
        path = Path(folder) / "hello"
        path.write_bytes(b"hello")
        began = time.perf_counter()
        store.get(store.put(path, experiment=config.id), path.with_name("back"))
        took_ms = 1000 * (time.perf_counter() - began)
        store.discard(config.id)
    return f"{config.repository} takes a file and gives it back in {took_ms:.0f} ms"


def _clock(config: Any) -> str:
    import requests

    try:
        with closing(requests.get(f"{config.repository}/v1/health", timeout=_ANSWER_S)) as answer:
            there = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except requests.RequestException as error:
        raise OSError("cannot be compared: the repository does not answer") from error
    except (KeyError, ValueError) as error:
        raise OSError("cannot be compared: the repository tells no time") from error
    skew_s = abs(time.time() - there)
    if skew_s > _CLOCK_SKEW_S:
        raise OSError(f"this machine and the repository differ by {skew_s:.0f} s; orders expire by the clock: set it")
    return f"differs by {skew_s:.0f} s from the repository's"
