"""The commands of earlier releases, forwarded to today's: `fedbiomed_run ...`, `python -m fedbiomed.node.cli`, `... .researcher.cli`.

They kept several components in one folder, told apart by INI files in its `etc`; one of those is used where it is there, else a folder of
today's kind. As then, a component that is not there yet is made at its first use, and questions may be answered through a pipe.
"""

import argparse
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedbiomed.cli import main as commands
from fedbiomed.cli.commands import CommandParser
from fedbiomed.common import config
from fedbiomed.common.config_ini import INI_FILES
from fedbiomed.common.constants import ComponentType

_MNIST_TAGS = "#MNIST,#dataset"
_GONE = {
    "certificate": "secure aggregation needs no certificates of MP-SPDZ here",
    "certificate-dev-setup": "secure aggregation needs no certificates of MP-SPDZ here",
    "gui": "use `fedbiomed node`",
}
_SWITCHES = {
    "enable-training-plan-approval": ("ENABLE_TRAINING_PLAN_APPROVAL", "True"),
    "disable-training-plan-approval": ("ENABLE_TRAINING_PLAN_APPROVAL", "False"),
    "allow-default-training-plans": ("ALLOW_DEFAULT_TRAINING_PLANS", "True"),
    "disable-default-training-plans": ("ALLOW_DEFAULT_TRAINING_PLANS", "False"),
}
# Word of the launcher, options of `fedbiomed.node.cli`, and the command of today where no value goes with it.
_NODE_COMMANDS: tuple[tuple[str, tuple[str, str], tuple[str, ...]], ...] = (
    ("start", ("-s", "--start-node"), ("start",)),
    ("add", ("-a", "--add"), ("dataset", "add")),
    ("list", ("-l", "--list"), ("dataset", "list")),
    ("delete", ("-d", "--delete"), ("dataset", "remove")),
    ("delete-all", ("-da", "--delete-all"), ("dataset", "remove", "--all")),
    ("delete-mnist", ("-dm", "--delete-mnist"), ("dataset", "remove", "--tags", _MNIST_TAGS)),
    ("register-training-plan", ("-rtp", "--register-training-plan"), ("plan", "register")),
    ("approve-training-plan", ("-atp", "--approve-training-plan"), ("plan", "approve")),
    ("reject-training-plan", ("-rjtp", "--reject-training-plan"), ("plan", "reject")),
    ("update-training-plan", ("-utp", "--update-training-plan"), ("plan", "update")),
    ("delete-training-plan", ("-dtp", "--delete-training-plan"), ("plan", "delete")),
    ("list-training-plans", ("-ltps", "--list-training-plans"), ("plan", "list")),
    ("view-training-plan", ("-vtp", "--view-training-plan"), ("plan", "view")),
    ("add-mnist", ("-am", "--add-mnist"), ()),
    ("add-dataset-from-file", ("-adff", "--add-dataset-from-file"), ()),
)
_OPTION_OF = {word: options[0] for word, options, _ in _NODE_COMMANDS}


class _NoCounterpartError(Exception):
    """An old command that nothing of today stands for."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Commands of today, without the program's name, and variables that they need; None takes one away."""

    commands: list[list[str]]
    environment: dict[str, str | None] = field(default_factory=dict)


def translate(words: Sequence[str], here: Path, env: Mapping[str, str]) -> Forwarded:
    """Say in today's words what an old command line says.

    Args:
        words: `run`, then those of the launcher; or `node`, `researcher` or `common`, then those of their modules.
        here: the working directory.
        env: `CONFIG_FILE` names the INI file.

    Raises:
        SystemExit: it is no command line of earlier releases.
    """
    kind, *rest = words or [""]
    if kind == "run":
        component = rest[0] if rest else ""
        _refuse_gone(component)
        return _chosen("fedbiomed_run", {"network": _network, "node": _run_node, "researcher": _run_researcher}, component)(
            rest[1:], here, env
        )
    return _chosen("old spelling", {"node": _node, "researcher": _researcher, "common": _common}, kind)(rest, here, env)


_Translator = Callable[[Sequence[str], Path, Mapping[str, str]], Forwarded]


def _chosen(program: str, table: Mapping[str, _Translator], word: str) -> _Translator:
    parser = CommandParser(prog=program, add_help=False)
    parser.add_argument("component", choices=list(table))
    return table[str(parser.parse_args([word] if word else []).component)]


def _network(words: Sequence[str], _here: Path, _env: Mapping[str, str]) -> Forwarded:
    parser = CommandParser(prog="fedbiomed_run network")
    parser.add_argument("command", nargs="?", choices=["start", "stop"], default="start")
    return Forwarded([["network", str(parser.parse_args(words).command)]])


def _common(words: Sequence[str], _here: Path, _env: Mapping[str, str]) -> Forwarded:
    _refuse_gone(words[0] if words else "")
    CommandParser(prog="fedbiomed.common.cli").error("the one command was certificate-dev-setup")


def _run_node(words: Sequence[str], here: Path, env: Mapping[str, str]) -> Forwarded:
    rest, chosen = _leading(words, {"config": "CONFIG_FILE", "ip_address": "MQTT_BROKER"}, _SWITCHES)
    if rest and rest[0] in _OPTION_OF:
        rest[0] = _OPTION_OF[rest[0]]
    known = {**env, **chosen}
    forwarded = _node(rest, here, known)
    return Forwarded(forwarded.commands, {**chosen, **forwarded.environment})


def _run_researcher(words: Sequence[str], here: Path, env: Mapping[str, str]) -> Forwarded:
    rest, chosen = _leading(words, {"ip_address": "MQTT_BROKER"}, {})
    forwarded = _researcher(rest, here, {**env, **chosen})
    return Forwarded(forwarded.commands, {**chosen, **forwarded.environment})


def _leading(
    words: Sequence[str], with_value: Mapping[str, str], switches: Mapping[str, tuple[str, str]]
) -> tuple[list[str], dict[str, str | None]]:
    """What stands before the command: variables that it sets."""
    rest, chosen = list(words), {}
    while rest and (rest[0] in switches or (rest[0] in with_value and len(rest) > 1)):
        word = rest.pop(0)
        variable, value = switches[word] if word in switches else (with_value[word], rest.pop(0))
        chosen[variable] = value
        if word == "ip_address":
            chosen["UPLOADS_IP"] = value
    return rest, dict(chosen)


def _node(words: Sequence[str], here: Path, env: Mapping[str, str | None]) -> Forwarded:
    folder, environment = _place(ComponentType.NODE, here, env)
    below = ["--dir", str(folder)]
    create = ["node", "create", *below]
    if _is_create(words, "fedbiomed.node.cli"):
        return Forwarded([create], environment)
    command = ["node", *_node_command(_node_options().parse_args(words), folder), *below]
    is_there = bool(environment.get(config.FILE_VARIABLE)) or config.exists(folder)
    return Forwarded([command] if is_there else [create, command], environment)


def _node_options() -> argparse.ArgumentParser:
    parser = CommandParser(prog="fedbiomed.node.cli", description="The old spelling of `fedbiomed node`.")
    which = parser.add_mutually_exclusive_group(required=True)
    for _, options, command in _NODE_COMMANDS:
        if command:
            told = f"fedbiomed node {' '.join(command)}"
            which.add_argument(*options, action="store_const", const=command, dest="command", help=told)
    which.add_argument("-am", "--add-mnist", nargs="?", const="", metavar="PATH", help="fedbiomed node dataset add --type default")
    which.add_argument("-adff", "--add-dataset-from-file", metavar="FILE", help="fedbiomed node dataset add --from-json FILE")
    parser.add_argument("-g", "--gpu", action="store_true", help="with -s: offer a GPU")
    parser.add_argument("-gn", "--gpu-num", type=int, metavar="N", help="with -s: offer that one")
    parser.add_argument("-go", "--gpu-only", action="store_true", help="with -s: use a GPU also where no researcher asks")
    return parser


def _node_command(args: argparse.Namespace, folder: Path) -> list[str]:
    if args.add_mnist is not None:
        path = args.add_mnist or str(folder / "data")
        options = ["--name", "MNIST", "--tags", _MNIST_TAGS, "--description", "MNIST database"]
        return ["dataset", "add", "--type", "default", "--path", path, *options]
    if args.add_dataset_from_file is not None:
        return ["dataset", "add", "--from-json", args.add_dataset_from_file]
    if args.command != ("start",):
        return list(args.command)
    offered = str(args.gpu_num) if args.gpu_num is not None else "auto" if args.gpu or args.gpu_only else "none"
    return ["start", "--gpu", offered, *(["--gpu-only"] if args.gpu_only else [])]


def _researcher(words: Sequence[str], here: Path, env: Mapping[str, str | None]) -> Forwarded:
    folder, environment = _place(ComponentType.RESEARCHER, here, env)
    if _is_create(words, "fedbiomed.researcher.cli"):
        return Forwarded([["researcher", "create", "--dir", str(folder)]], environment)
    parser = CommandParser(prog="fedbiomed.researcher.cli", description="The old spelling of `fedbiomed researcher`.")
    parser.add_argument("command", choices=["start"])
    parser.parse_args(words)
    return Forwarded([["researcher", "start", "--dir", str(folder)]], environment)


def _is_create(words: Sequence[str], program: str) -> bool:
    _refuse_gone(words[0] if words else "")
    if not words or words[0] != "configuration":
        return False
    parser = CommandParser(prog=f"{program} configuration")
    parser.add_argument("command", choices=["create"])
    parser.parse_args(words[1:])
    return True


def _place(component: ComponentType, here: Path, env: Mapping[str, str | None]) -> tuple[Path, dict[str, str | None]]:
    """The folder of the component, and what becomes of `CONFIG_FILE`."""
    named = env.get(config.FILE_VARIABLE)
    if named:
        ini = here / "etc" / Path(named).with_suffix(".ini")
        if ini.is_file():
            return here, {config.FILE_VARIABLE: str(ini)}
        return here / ini.stem, {config.FILE_VARIABLE: None}
    return (here if (here / "etc" / INI_FILES[component]).is_file() else here / f"fbm-{component.lower()}"), {}


def _refuse_gone(word: str) -> None:
    if word in _GONE:
        raise _NoCounterpartError(f"`{word}` has no counterpart in this release: {_GONE[word]}")


def main(words: Sequence[str]) -> int:
    """Run what an old command line says; 2 where nothing of today stands for it."""
    try:
        forwarded = translate(words, Path.cwd(), os.environ)
    except _NoCounterpartError as error:
        print(f"fedbiomed: {error}", file=sys.stderr)
        return 2
    for variable, value in forwarded.environment.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
    for command in forwarded.commands:
        code = commands.main(command, answers_from_pipe=_answers_come())
        if code:
            return code
    return 0


def _answers_come() -> bool:
    """Whether a pipe or a file stands where answers are read, and not nothing (`/dev/null`)."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # it is closed, or no file of the system
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
