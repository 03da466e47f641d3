"""`fedbiomed`: one command for the network, the nodes, the researcher and the demo."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from fedbiomed import __version__
from fedbiomed.cli import demo, doctor, experiment, network, node, researcher
from fedbiomed.common.exceptions import FedbiomedError

EXAMPLE = """examples:
  fedbiomed demo                                  three hospitals on this machine, start to finish
  fedbiomed network start                         broker and repository on this machine
  fedbiomed node create --dir site-a              a node's folder
  fedbiomed node dataset add --dir site-a --type csv --path patients.csv --name patients --tags heart
  fedbiomed node start --dir site-a               run it
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 when it did what was asked, 1 when not (one line on stderr says why), 130 after Ctrl-C.
    """
    args = parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if args.debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(args.run(args))
    except FedbiomedError as error:
        if args.debug:
            raise
        print(f"fedbiomed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("fedbiomed: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # the border of the command: one line for a user, the trace with --debug
        if args.debug:
            raise
        print(f"fedbiomed: internal error: {type(error).__name__}: {error} (see the trace with --debug)", file=sys.stderr)
    return 1
