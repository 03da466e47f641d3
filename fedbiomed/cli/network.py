"""`fedbiomed network`: broker and repository on this machine."""

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedbiomed.cli.commands import Subparsers, add_command, add_group

_EXAMPLE = """network start --dir fbm-network --mqtt-port 1883 --http-port 8844

Port 0 takes a free one; the line `ready mqtt=HOST:PORT http=URL` tells which. Ctrl-C ends it; files survive."""
FOLDER = Path("fbm-network")
_STOP_S = 30.0
_SWITCH_S = 0.0005
_END = (signal.SIGINT, signal.SIGTERM)


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    commands = add_group(subparsers, "network", "broker and repository on this machine")
    start = add_command(commands, "start", "run them in one process until Ctrl-C", _EXAMPLE, run, component="network", folder=FOLDER)
    start.add_argument("--host", default=None, help="where to listen (default 127.0.0.1)")
    start.add_argument("--mqtt-port", type=int, default=None, metavar="PORT", help="port of the broker (default 1883)")
    start.add_argument("--http-port", type=int, default=None, metavar="PORT", help="port of the repository (default 8844)")
    start.add_argument("--no-broker", action="store_true", help="the repository alone, beside a broker that runs already")
    add_command(
        commands, "stop", "end the one that runs in a folder", "network stop --dir fbm-network", stop, component="network", folder=FOLDER
    )


def run(args: argparse.Namespace) -> int:
    """Run until told to end."""
    from fedbiomed.common import config as settings
    from fedbiomed.network.config import load_network, save_network
    from fedbiomed.network.running import held
    from fedbiomed.network.serve import Network, RepositoryServer

    config = load_network(args.dir, host=args.host, mqtt_port=args.mqtt_port, http_port=args.http_port)
    sys.setswitchinterval(_SWITCH_S)  # broker and repository share the interpreter: neither waits long for the other
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # before any thread starts: one that comes early waits for `sigwait`
    try:
        with ExitStack() as stack:
            stack.enter_context(held(config))
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


def stop(args: argparse.Namespace) -> int:
    """End the network that runs in the folder."""
    from fedbiomed.network.running import stop as stop_network

    print(f"stopped network process={stop_network(args.dir, _STOP_S)}")
    return 0
