"""`fedbiomed network`: broker and repository on this machine."""

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

EXAMPLE = """example:
  fedbiomed network start --dir fbm-network --mqtt-port 1883 --http-port 8844

Port 0 takes a free one; the line `ready mqtt=HOST:PORT http=URL` tells which. Ctrl-C ends it; files survive.
"""
_SWITCH_S = 0.0005
_END = (signal.SIGINT, signal.SIGTERM)


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the command line."""
    parser = subparsers.add_parser("network", help="broker and repository on this machine", description="Broker and file repository.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = commands.add_parser(
        "start",
        help="run them until Ctrl-C",
        description="Run the embedded MQTT broker and the file repository in one process.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    start.add_argument("--dir", type=Path, default=Path("fbm-network"), metavar="DIR", help="folder for files (default fbm-network)")
    start.add_argument("--host", default=None, help="where to listen (default 127.0.0.1)")
    start.add_argument("--mqtt-port", type=int, default=None, metavar="PORT", help="port of the broker (default 1883)")
    start.add_argument("--http-port", type=int, default=None, metavar="PORT", help="port of the repository (default 8844)")
    start.add_argument("--no-broker", action="store_true", help="the repository alone, beside a broker that runs already")
    start.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until told to end."""
    from fedbiomed.common import config as settings
    from fedbiomed.network.config import load_network, save_network
    from fedbiomed.network.serve import Network, RepositoryServer

    config = load_network(args.dir, host=args.host, mqtt_port=args.mqtt_port, http_port=args.http_port)
    sys.setswitchinterval(_SWITCH_S)  # broker and repository share the interpreter: neither waits long for the other
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # before any thread starts: one that comes early waits for `sigwait`
    try:
        with ExitStack() as stack:
            if args.no_broker:
                line = f"ready http={stack.enter_context(RepositoryServer(config)).url}"
            else:
                network = stack.enter_context(Network(config))
                host, port = network.mqtt_address
                line = f"ready mqtt={host}:{port} http={network.http_url}"
            if not settings.exists(args.dir):
                save_network(config)
            print("development mode: lets in every component of this machine that names itself by its id", file=sys.stderr, flush=True)
            print(line, flush=True)
            signal.sigwait(_END)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0
