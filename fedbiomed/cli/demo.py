"""`fedbiomed demo`: three hospitals on this machine, start to finish."""

import argparse
import importlib.util
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbiomed.common.config import broker_address
from fedbiomed.common.exceptions import FedbiomedUserInputError

if TYPE_CHECKING:
    from fedbiomed.demo.processes import Federation

EXAMPLE = """example:
  fedbiomed demo --nodes 3 --rounds 10 --out my-demo

With --keep the network and the hospitals go on running for your own notebook, until Ctrl-C; they hold digits and diabetes patients, too.
With --secagg the researcher sees only the sum of the hospitals' updates; the models are as good.
With --any-plan they train whatever plan you send, which no real hospital should do.
"""
_LEAST_SECURE = 3
_SCHEMES = ("lom", "joye_libert")


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="train over three hospitals on this machine",
        description="Start a network and three hospitals, train two models over real patients' data, stop, resume, compare.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="hospitals, 2 to 10 (default 3)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="federated rounds, 2 to 1000 (default 10)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder for results (default: demo-DATE-TIME here)")
    parser.add_argument("--broker", metavar="HOST:PORT", help="use an MQTT broker that runs already")
    parser.add_argument("--keep", action="store_true", help="leave the network (ports 1883 and 8844) and the nodes running until Ctrl-C")
    parser.add_argument("--any-plan", action="store_true", help="do not ask the hospitals' operators to approve a plan")
    parser.add_argument("--secagg", action="store_true", help="see only sums of the hospitals' updates (3 hospitals or more)")
    parser.add_argument("--secagg-scheme", choices=_SCHEMES, help=f"how --secagg hides updates (default {_SCHEMES[0]})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when federated learning was as good as it must be."""
    from rich.console import Console

    _check(args)
    out = _new_folder(args.out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded: small models, and the hospitals need the cores
    from fedbiomed.demo.processes import interrupted_by_sigterm  # late: these load torch
    from fedbiomed.demo.story import Options
    from fedbiomed.demo.story import run as tell

    options = Options(
        nodes=args.nodes,
        rounds=args.rounds,
        out=out,
        broker=args.broker,
        keep=args.keep,
        any_plan=args.any_plan,
        secagg=args.secagg,
        secagg_scheme=args.secagg_scheme or _SCHEMES[0],
    )
    with interrupted_by_sigterm():
        shortfalls = tell(options, Console(), _wait_for_user)
    for sentence in shortfalls:
        print(f"fedbiomed: {sentence}", file=sys.stderr)
    return 1 if shortfalls else 0


def _check(args: argparse.Namespace) -> None:
    if not 2 <= args.nodes <= 10:
        raise FedbiomedUserInputError(f"--nodes must be between 2 and 10, not {args.nodes}")
    if args.secagg and args.nodes < _LEAST_SECURE:
        raise FedbiomedUserInputError(
            f"--secagg needs --nodes {_LEAST_SECURE} or more, not {args.nodes}: of two, each learns the other's update from the sum"
        )
    if args.secagg_scheme and not args.secagg:
        raise FedbiomedUserInputError(f"--secagg-scheme {args.secagg_scheme} says how --secagg hides updates: give --secagg, too")
    if args.secagg_scheme == "joye_libert" and importlib.util.find_spec("gmpy2") is None:
        raise FedbiomedUserInputError("--secagg-scheme joye_libert needs gmpy2: pip install 'fedbiomed[joye-libert]'")
    if not 2 <= args.rounds <= 1000:
        raise FedbiomedUserInputError(f"--rounds must be between 2 and 1000, not {args.rounds}: one before the stop, one after")
    if args.broker is not None:
        broker_address(args.broker)


def _new_folder(asked: Path | None) -> Path:
    out = (asked or Path(f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}")).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FedbiomedUserInputError(f"--out {out} exists and is not an empty folder: name a new one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedbiomedUserInputError(f"cannot make the folder {out}: {error.strerror}; name another with --out") from error
    return out


def _wait_for_user(federation: "Federation") -> None:
    host, _, port = federation.broker.rpartition(":")
    print("The hospitals go on running. For a notebook in another terminal:")
    print(f"  export MQTT_BROKER={host} MQTT_BROKER_PORT={port} UPLOADS_URL={federation.repository}")
    print("Ctrl-C ends them.", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()
