"""`fedbiomed`: one command for the network, the nodes, the researcher and the demo."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence

from fedbiomed import __version__
from fedbiomed.cli import demo, doctor, experiment, network, node, researcher
from fedbiomed.cli.commands import CommandParser
from fedbiomed.cli.node_output import LOG_FORMAT, LineFormatter, printable
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedUserInputError

EXAMPLE = """examples:
  fedbiomed demo                                  three hospitals on this machine, start to finish
  fedbiomed network start                         broker and repository on this machine
  fedbiomed node create --dir site-a              a node's folder
  fedbiomed node dataset add --dir site-a --type csv --path patients.csv --name patients --tags heart
  fedbiomed node start --dir site-a               run it
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = CommandParser(
        prog="fedbiomed",
        description="Federated learning for hospitals and research centres.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"fedbiomed {__version__}")
    top.add_argument("--debug", action="store_true", help="log everything, and show the trace of an error")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (network, node, researcher, experiment, doctor, demo):
        module.add_parser(subparsers)
    return top


def main(argv: Sequence[str] | None = None, *, answers_from_pipe: bool = False) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None: this process's.
        answers_from_pipe: ask also where no person sits at a terminal, see `asking`.

    Returns:
        The exit code: 0 when it did what was asked, 1 when not (one line on stderr says why), 130 after Ctrl-C.

    Raises:
        SystemExit: the command line is wrong (2; one line, too), or asks for help (0).
    """
    _write_whatever_comes()
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(words, argparse.Namespace(answers_from_pipe=answers_from_pipe))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if args.debug else logging.WARNING)
    try:
        _require_text(words)
        return int(args.run(args))
    except FedbiomedError as error:
        if args.debug:
            raise
        print(f"fedbiomed: {_line(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("fedbiomed: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # the border of the command: one line for a user, the trace with --debug
        if args.debug:
            raise
        print(f"fedbiomed: internal error: {type(error).__name__}: {_line(error)} (see the trace with --debug)", file=sys.stderr)
    return 1


def _line(error: BaseException) -> str:
    """An error on one line; its text may quote what others wrote."""
    return printable(" ".join(str(error).splitlines()))


def _require_text(words: Sequence[str]) -> None:
    """Refuse what no database and no message can hold: names of files, for instance, that some old disk spells otherwise."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise FedbiomedUserInputError(
                f"{word!r:.200} is not UTF-8; give the file another name, or type it at a UTF-8 terminal"
            ) from error


def _write_whatever_comes() -> None:
    """A terminal that has no letter for something shows its number instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
