"""Run `fedbiomed node ...` as an operator does: one process per command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "MQTT_BROKER",
    "MQTT_BROKER_PORT",
    "UPLOADS_URL",
    "UPLOADS_IP",
    "NODE_ID",
    "ENABLE_TRAINING_PLAN_APPROVAL",
    "FBM_FEDERATION",
    "CONFIG_FILE",
    "ALLOW_DEFAULT_TRAINING_PLANS",
    "SECURE_AGGREGATION",
    "FORCE_SECURE_AGGREGATION",
}


def without_settings() -> dict[str, str]:
    """The environment of this process, without what would win over a node's settings."""
    return {name: value for name, value in os.environ.items() if name not in _ENVIRONMENT}


def node(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The ended process of `fedbiomed node ARGUMENTS`."""
    env = without_settings() | environment
    command = [sys.executable, "-m", "fedbiomed", "node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, cwd=cwd, env=env)


def told(*arguments: str | Path, **environment: str) -> str:
    """What a command that must succeed prints, without the last line end."""
    answer = node(*arguments, **environment)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.rstrip("\n")


def told_json(*arguments: str | Path) -> Any:
    """The JSON that a command prints."""
    return json.loads(told(*arguments, "--json"))


def refused(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """The one line by which a command that must fail says why."""
    answer = node(*arguments, cwd=cwd, **environment)
    assert answer.returncode == 1, (answer.returncode, answer.stdout, answer.stderr)
    assert answer.stdout == ""
    lines = answer.stderr.splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("fedbiomed: ")
    return lines[0].removeprefix("fedbiomed: ")
