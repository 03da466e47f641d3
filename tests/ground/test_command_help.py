"""Every command says what it does and shows an example that the command line takes."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from fedbiomed.cli.main import parser


def leaves(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands that have none below them."""
    groups = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield command
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)


COMMANDS = {command.prog: command for command in leaves(parser())}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_that_is_understood(name: str) -> None:
    text = COMMANDS[name].format_help()
    examples = re.findall(r"^  (fedbiomed .*)$", text.partition("example:\n")[2], re.MULTILINE)
    assert examples, text
    for example in examples:
        assert example.startswith(name)
        assert parser().parse_args(shlex.split(example)[1:]).run == COMMANDS[name].get_default("run")


def test_there_are_the_commands_that_users_know() -> None:
    assert {name.removeprefix("fedbiomed ") for name in COMMANDS} >= {
        *("network start", "network stop", "node create", "node start", "node status", "node jobs", "node doctor"),
        *(f"node dataset {verb}" for verb in ("add", "list", "remove")),
        *(f"node peers {verb}" for verb in ("list", "trust", "forget")),
        *(f"node plan {verb}" for verb in ("list", "register", "approve", "reject", "view", "diff", "update", "delete")),
        *("researcher create", "researcher start", "experiment list", "experiment show", "experiment resume", "doctor", "demo"),
    }
