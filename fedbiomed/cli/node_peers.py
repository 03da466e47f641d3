"""`fedbiomed node peers`: which keys of other nodes and of researchers this node trusts."""

import argparse
from typing import Any

from fedbiomed.cli.asking import add_yes, require_consent
from fedbiomed.cli.commands import Subparsers, add_group
from fedbiomed.cli.node_folder import add_command, database
from fedbiomed.cli.node_output import show_json, show_table
from fedbiomed.node.peers import PeerBook

_COLUMNS = ("peer_id", "fingerprint", "trusted", "refused")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Add the commands to the command line."""
    group = add_group(subparsers, "peers", "compare and pin the keys of other nodes and of researchers")
    about = "list keys; the first that a peer shows is pinned, another one is refused and shown here"
    add_command(group, "list", about, "node peers list --dir site-a --json", _list, has_json=True)
    about = "say that a key is right: the one given, else the one that was refused last, else the pinned one"
    trust = add_command(group, "trust", about, "node peers trust node_5c1d --dir site-a", _trust, has_json=True)
    trust.add_argument("peer_id", metavar="ID", help="of the node or researcher")
    trust.add_argument("fingerprint", metavar="FINGERPRINT", nargs="?", help="64 hex digits, as its people read them to you")
    add_yes(trust)
    forget = add_command(group, "forget", "forget a key; the next one shown is pinned", "node peers forget node_5c1d --dir site-a", _forget)
    forget.add_argument("peer_id", metavar="ID", help="of the node or researcher")
    add_yes(forget)


def _list(args: argparse.Namespace) -> int:
    with database(args) as store:
        rows = PeerBook(store).all()
    if args.json:
        show_json(rows)
        return 0
    shown = [{**row, "trusted": "yes" if row["is_trusted"] else "first seen", "refused": row["refused_fingerprint"]} for row in rows]
    show_table(shown, _COLUMNS, "no keys; those of other nodes and of researchers are pinned when they are seen first")
    return 0


def _trust(args: argparse.Namespace) -> int:
    with database(args) as store:
        book, wanted = PeerBook(store), args.fingerprint
        if wanted is None:
            peer = book.get(args.peer_id)
            wanted = peer["refused_fingerprint"] or peer["fingerprint"]
            require_consent(args, f"Did the people of {args.peer_id} tell you by another way that its key is {wanted}?")
        peer = book.trust(args.peer_id, wanted)
    if args.json:
        show_json(peer)
    else:
        print(f"{peer['peer_id']} {peer['fingerprint']}")
    return 0


def _forget(args: argparse.Namespace) -> int:
    with database(args) as store:
        book = PeerBook(store)
        peer = book.get(args.peer_id)
        require_consent(args, f"Forget the key {peer['fingerprint']} of {args.peer_id}?")
        book.forget(args.peer_id)
    print(f"forgot {args.peer_id}")
    return 0
