"""The researcher's half of LOM-R: sums masked vectors as they come, closes the attempt, and opens the sum with what nodes reveal."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.lom_masks import Place, Revealed, adds, pair_stream, self_stream, unpacked
from fedbiomed.common.secagg.lom_messages import Notice, Reveal, Upload, vectors_digest
from fedbiomed.common.secagg.lom_node import REVEAL
from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose, Terms, Weighting
from fedbiomed.common.security import shamir
from fedbiomed.common.security.identity import is_signed
from fedbiomed.common.security.keystream import WORD, Stream, Words, apply_streams, blocks
from fedbiomed.common.security.sealing import unseal_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What an attempt of a round needs to know.

    Args:
        terms, sid: of the session.
        round, attempt: both count from 0.
        sizes: number of values by purpose, without the weight.
        weightings: by what nodes count in these sums.
        reveal_private: the session's key towards which nodes encrypt.
        identities: Ed25519 public keys of the members.
    """

    terms: Terms
    sid: bytes
    round: int
    attempt: int
    sizes: Mapping[Purpose, int]
    reveal_private: X25519PrivateKey
    identities: Mapping[str, bytes]
    weightings: frozenset[Weighting] = frozenset({Weighting.SAMPLES})


class LomServer:
    """One attempt of one round on the researcher's side; holds one vector of 64-bit integers per purpose, whatever the number of nodes."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._sums: dict[Purpose, Words] = {purpose: np.zeros(size + 1, np.uint64) for purpose, size in attempt.sizes.items()}
        self._shares: dict[str, Mapping[str, bytes]] = {}
        self._survivors: SurvivorSet | None = None
        self._signatures: dict[str, bytes] = {}
        self._revealed: dict[str, Revealed] = {}
        self._is_opened = False
        self.clipped: dict[str, Mapping[Purpose, float]] = {}

    def take_upload(self, upload: Upload) -> None:
        """Add a node's vectors to the sum.

        Raises:
            FedbiomedSecureAggregationError: it is of another attempt or node, came twice or late, or is damaged.
        """
        attempt = self._attempt
        if self._survivors is not None:
            raise round_error(f"the vectors of {upload.node_id} come after attempt {attempt.attempt} was closed")
        if (upload.sid, upload.round, upload.attempt) != (attempt.sid, attempt.round, attempt.attempt):
            raise round_error(
                f"the vectors of {upload.node_id} are of round {upload.round}, attempt {upload.attempt}, or of another session"
            )
        if upload.node_id not in attempt.terms.members or upload.node_id in self._shares:
            raise round_error(f"{upload.node_id} is no member of the session, or its vectors are there already")
        sizes = {purpose: vector.size - 1 for purpose, vector in upload.vectors.items()}
        is_plain = all(vector.ndim == 1 and vector.dtype == WORD for vector in upload.vectors.values())
        if not is_plain or sizes != dict(attempt.sizes) or upload.digest != vectors_digest(upload.vectors):
            raise round_error(
                f"the vectors of {upload.node_id} are damaged or of other sizes: {sizes!r:.80} instead of {dict(attempt.sizes)!r:.80}"
            )
        for purpose, vector in upload.vectors.items():
            for target, block in zip(blocks(self._sums[purpose]), blocks(vector), strict=True):
                np.add(target, block, out=target)
        self._shares[upload.node_id] = upload.shares
        self.clipped[upload.node_id] = upload.clipped

    def close(self) -> SurvivorSet:
        """End the collection: who is in the sum. The same set, however often it is asked.

        Raises:
            FedbiomedSecureAggregationError: fewer than the threshold; the attempt has failed and nothing is to be revealed.
        """
        if self._survivors is None:
            attempt = self._attempt
            nodes = tuple(sorted(self._shares, key=str.encode))
            survivors = SurvivorSet(sid=attempt.sid, round=attempt.round, attempt=attempt.attempt, nodes=nodes)
            survivors.check(attempt.terms, attempt.weightings)
            self._survivors = survivors
        return self._survivors

    def notice(self, node_id: str) -> Notice:
        """What one of the survivors is told."""
        survivors = self.close()
        shares = {owner: self._shares[owner][node_id] for owner in survivors.nodes if owner != node_id and node_id in self._shares[owner]}
        return Notice(survivors=survivors, digest=survivors.digest, shares=shares)

    def take_signature(self, node_id: str, signature: bytes) -> None:
        """A survivor's signature over the set.

        Raises:
            FedbiomedSecureAggregationError: it is not valid, or not of a survivor.
        """
        survivors = self.close()
        if node_id not in survivors.nodes or not is_signed(self._attempt.identities[node_id], signature, survivors.digest):
            raise round_error(f"the signature of {node_id} over the survivor set is not valid")
        self._signatures[node_id] = signature

    @property
    def signatures(self) -> dict[str, bytes]:
        """All signatures so far, to be told to the survivors."""
        return dict(self._signatures)

    def take_reveal(self, reveal: Reveal) -> None:
        """What a survivor reveals.

        Raises:
            FedbiomedSecureAggregationError: it is of another set, not signed, or malformed.
            FedbiomedSecaggCrypterError: it does not open.
        """
        survivors = self.close()
        if reveal.digest != survivors.digest:
            raise round_error(f"{reveal.node_id} reveals for another survivor set")
        self.take_signature(reveal.node_id, reveal.signature)
        content = unseal_from(self._attempt.reveal_private, reveal.sealed, REVEAL, reveal.digest, reveal.node_id)
        revealed = unpacked(content, reveal.node_id)
        gone = set(self._attempt.terms.members) - set(survivors.nodes)
        if set(revealed.pairs) != gone:
            raise round_error(f"{reveal.node_id} reveals the pair masks with {sorted(revealed.pairs)[:5]}, {sorted(gone)[:5]} are needed")
        self._revealed[reveal.node_id] = revealed

    @property
    def can_open(self) -> bool:
        """Whether enough nodes revealed; those that are missing are then replaced by the shares of the others."""
        return self._survivors is not None and len(self._revealed) >= self._attempt.terms.threshold

    def open(self) -> dict[Purpose, Words]:
        """The sums [W, S_1, ..., S_d] by purpose, exact; once. `quantise.mean_of` checks them and makes the mean.

        Raises:
            FedbiomedSecureAggregationError: too few nodes revealed, or the sums were opened already.
            FedbiomedSecaggCrypterError: shares do not belong together.
        """
        survivors, attempt = self.close(), self._attempt
        if not self.can_open:
            raise round_error(
                f"{len(self._revealed)} of {len(survivors.nodes)} revealed, {attempt.terms.threshold} are needed: the sum does not open"
            )
        if self._is_opened:
            raise round_error("the sum was opened already")
        secrets = {node: self._revealed.get(node) or self._rebuilt(node) for node in survivors.nodes}
        place = Place(attempt.sid, attempt.round, attempt.attempt)
        for purpose, vector in self._sums.items():
            streams: list[Stream] = []
            for node, secret in secrets.items():
                streams.append(self_stream(secret.self_seed, place, purpose, is_added=False))
                streams += [pair_stream(s, place, purpose, is_added=not adds(node, peer)) for peer, s in secret.pairs.items()]
            apply_streams(vector, streams)
        self._is_opened = True
        return self._sums

    def _rebuilt(self, dead: str) -> Revealed:
        """What a node that died after its upload would have revealed, of the others' shares."""
        members = self._attempt.terms.members
        given = {members.index(node) + 1: told.shares[dead] for node, told in self._revealed.items() if dead in told.shares}
        if len(given) < self._attempt.terms.threshold:
            raise round_error(f"{len(given)} shares of {dead} came, {self._attempt.terms.threshold} are needed: the sum does not open")
        gone = [node for node in members if node not in self.close().nodes]
        try:
            pairs = {peer: shamir.join({index: shares.pairs[peer] for index, shares in given.items()}) for peer in gone}
        except KeyError as error:
            raise round_error(f"a share of the pair masks of {dead} with {error} is missing: the sum does not open") from error
        return Revealed(shamir.join({index: shares.self_seed for index, shares in given.items()}), pairs, {})
