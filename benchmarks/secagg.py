"""What secure aggregation costs: protect an update on a node, open the sum of five, beside ChaCha20's raw speed and memcpy.

Run with `scripts/bench secagg [--nodes N] [--params N ...]`; prints JSON. A model is counted as its float32 parameters; the update that is
protected, one model, is counted in `protect_peak_with_update` only.
"""

import argparse
import importlib.util
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedbiomed.common.secagg import joye_libert
from fedbiomed.common.secagg.agreement import NodeAgreement, ResearcherAgreement, Session
from fedbiomed.common.secagg.joye_libert import Context
from fedbiomed.common.secagg.layout import Layout
from fedbiomed.common.secagg.ledger import MemoryLedger
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.lom_messages import Upload
from fedbiomed.common.secagg.lom_node import LomNode, Part
from fedbiomed.common.secagg.lom_server import Attempt, LomServer
from fedbiomed.common.secagg.quantise import mean_of
from fedbiomed.common.secagg.terms import Purpose, Terms, least_threshold
from fedbiomed.common.security.identity import Identity
from fedbiomed.common.security.peers import MemoryPeers

_REPEATS = 5
_CLIP = 3.0
_BLOCKS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--params", type=int, nargs="+", default=[1_000_000, 11_000_000])
    args = parser.parse_args()
    found: dict[str, Any] = {"nodes": args.nodes, "lom": [measure(args.nodes, size) for size in args.params]}
    if importlib.util.find_spec("gmpy2") is not None:
        found["joye_libert"] = joye_libert_cost(args.nodes)
    print(json.dumps(found, indent=2))


class Parties:
    """Nodes and researcher of one session."""

    def __init__(self, count: int) -> None:
        members = tuple(f"node_{index:03}" for index in range(count))
        self.terms = Terms(
            session=os.urandom(16),
            experiment_id="bench",
            researcher_id="researcher",
            members=members,
            threshold=least_threshold(count),
        )
        self.identities = {node: Identity.drawn() for node in members}
        self.researcher = ResearcherAgreement(Identity.drawn(), self.terms)
        sides = {n: NodeAgreement(n, self.identities[n], self.researcher.offer, MemoryPeers(), allows_two=True) for n in members}
        nonces = {n: side.nonce for n, side in sides.items()}
        shares = {n: side.key_share(nonces) for n, side in sides.items()}
        self.sessions: dict[str, Session] = {n: side.session(shares) for n, side in sides.items()}
        self.sid = self.researcher.sid(nonces, shares)
        self.nodes = {n: LomNode(self.sessions[n], self.identities[n], MemoryLedger()) for n in members}

    def server(self, size: int, round_: int) -> LomServer:
        """The researcher's side of a round."""
        attempt = Attempt(
            terms=self.terms,
            sid=self.sid,
            round=round_,
            attempt=0,
            sizes={Purpose.WEIGHTS: size},
            reveal_private=self.researcher.reveal_private,
            identities={n: identity.public for n, identity in self.identities.items()},
        )
        return LomServer(attempt)


def measure(count: int, size: int) -> dict[str, Any]:
    """Milliseconds and peak memory of one round, for so many parameters; the last node but one dies after its upload."""
    rng = np.random.default_rng(0)
    update = {"w": rng.standard_normal(size, np.float32)}
    parties = Parties(count)
    times: dict[str, list[float]] = {"protect_ms": [], "add_ms": [], "open_ms": []}
    for round_ in range(_REPEATS if size <= 2_000_000 else 2):
        for name, took in one_round(parties, update, round_).items():
            times[name].append(took)
    model = 4 * size
    protecting = peak(lambda: protect(parties, update, 100)) / model
    return {
        "params": size,
        **{name: round(min(took), 2) for name, took in times.items()},
        "protect_peak_models": round(protecting, 2),
        "protect_peak_with_update": round(1 + protecting, 2),
        "open_peak_models": round(opening_peak(parties, update, 101) / model, 2),
        "chacha20_ms": round(best(lambda: Cipher(ChaCha20(bytes(32), bytes(16)), mode=None).encryptor().update(bytes(8 * size))), 2),
        "memcpy_ms": round(memcpy_ms(8 * size), 2),
    }


def protect(parties: Parties, update: dict[str, Any], round_: int) -> Upload:
    """What the first node uploads."""
    node = next(iter(parties.nodes.values()))
    return node.protect(round_, 0, {Purpose.WEIGHTS: Part(update, _CLIP)}, 1000)


def one_round(parties: Parties, update: dict[str, Any], round_: int) -> dict[str, float]:
    """A round, step by step, each in ms: `protect` of one node, `add` of one upload (with its check), `open` with the mean."""
    server, part = parties.server(update["w"].size, round_), {Purpose.WEIGHTS: Part(update, _CLIP)}
    protects, adds = [], []
    for node in parties.nodes.values():
        start = time.perf_counter()
        upload = node.protect(round_, 0, part, 1000)
        protects.append(time.perf_counter() - start)
        start = time.perf_counter()
        server.take_upload(upload)
        adds.append(time.perf_counter() - start)
    reveal(parties, server)
    start = time.perf_counter()
    open_mean(parties, server, update)
    opened = time.perf_counter() - start
    for node in parties.nodes.values():
        node.close(round_)
    return {"protect_ms": 1e3 * min(protects), "add_ms": 1e3 * min(adds), "open_ms": 1e3 * opened}


def reveal(parties: Parties, server: LomServer) -> None:
    """Let all nodes but one reveal, where the threshold allows that."""
    alive = list(parties.nodes)
    if len(alive) > parties.terms.threshold:
        alive.pop(-2)
    for node in alive:
        server.take_reveal(parties.nodes[node].reveal(server.notice(node)))


def open_mean(parties: Parties, server: LomServer, update: dict[str, Any]) -> None:
    """Open the sum and make the mean."""
    terms = parties.terms
    mean_of(server.open()[Purpose.WEIGHTS], Layout.of(update), _CLIP, terms.bits, len(terms.members) * terms.max_weight)


def opening_peak(parties: Parties, update: dict[str, Any], round_: int) -> int:
    """Peak bytes on the researcher's side: while uploads are added, of which one is held at a time, and while the sum is opened."""
    made = {node: parties.nodes[node].protect(round_, 0, {Purpose.WEIGHTS: Part(update, _CLIP)}, 1000) for node in parties.nodes}
    held = next(iter(made.values())).vectors[Purpose.WEIGHTS].nbytes
    tracemalloc.start()
    try:
        server = parties.server(update["w"].size, round_)
        for upload in made.values():
            server.take_upload(upload)
        adding = tracemalloc.get_traced_memory()[1] + held
        tracemalloc.reset_peak()
        reveal(parties, server)
        open_mean(parties, server, update)
        return max(adding, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def joye_libert_cost(count: int) -> dict[str, Any]:
    """Microseconds per parameter of Joye and Libert's scheme with a modulus of 2048 bits, on a few blocks of one node."""
    terms = Parties(count).terms
    modulus = joye_libert.drawn_modulus()
    packing, key = joye_libert.Packing.of(terms, modulus), joye_libert.drawn_key(modulus)
    context = Context(Place(bytes(32), 0, 0), Purpose.WEIGHTS)
    vector = np.random.default_rng(0).integers(0, terms.steps, _BLOCKS * packing.per_block, np.uint64)
    start = time.perf_counter()
    blocks = joye_libert.hidden(vector, packing, modulus, key, context)
    protected = time.perf_counter()
    hidden = joye_libert.HiddenSum(vector.size, packing, modulus)
    hidden.add(blocks)
    hidden.opened(-key, context)
    opened = time.perf_counter()
    return {
        "modulus_bits": modulus.bit_length(),
        "values_per_block": packing.per_block,
        "protect_us_per_param": round(1e6 * (protected - start) / vector.size, 1),
        "open_us_per_param": round(1e6 * (opened - protected) / vector.size, 1),
    }


def peak(act: Callable[[], Any]) -> int:
    """Bytes that an action takes at its highest, beside what was there before."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def best(act: Callable[[], Any]) -> float:
    """The shortest of some runs, in ms."""
    took = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        act()
        took.append(time.perf_counter() - start)
    return 1e3 * min(took)


def memcpy_ms(size: int) -> float:
    """Copying so many bytes, in ms."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    return best(lambda: np.copyto(target, source))


if __name__ == "__main__":
    main()
