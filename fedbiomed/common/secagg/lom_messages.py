"""What travels in a round of LOM-R, as plain data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedbiomed.common.secagg.survivors import SurvivorSet
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.keystream import WORD, Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A node's masked vectors.

    Args:
        node_id: whose.
        sid, round, attempt: which attempt.
        vectors: y_u by purpose, [weight, values]; masked, so the weight as well.
        shares: sealed shares of the masks' secrets, by receiver.
        clipped: fraction of clipped values, by purpose.
        digest: SHA-256 of the vectors.
        bound: digest of what the node was told, where whoever opens the sum must know it; see `joye_libert.Context`.
        state_id: of what the node keeps of the round; None where it is not told.
    """

    node_id: str
    sid: bytes
    round: int
    attempt: int
    vectors: Mapping[Purpose, Words] = field(repr=False)
    shares: Mapping[str, bytes] = field(repr=False)
    clipped: Mapping[Purpose, float]
    digest: bytes
    bound: bytes = b""
    state_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The researcher tells one node who is in the sum.

    Args:
        survivors: the set.
        digest: its hash.
        shares: sealed shares for this node from the others in the set, by owner.
    """

    survivors: SurvivorSet
    digest: bytes
    shares: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal:
    """What opens the sum, encrypted to the researcher.

    Args:
        node_id: who reveals.
        digest: of the survivor set.
        signature: of the node over that digest.
        sealed: see `lom_masks.Revealed`.
    """

    node_id: str
    digest: bytes
    signature: bytes
    sealed: bytes = field(repr=False)


def vectors_digest(vectors: Mapping[Purpose, Words]) -> bytes:
    """SHA-256 of vectors with their purposes and sizes."""
    hashed = hashlib.sha256()
    for purpose in sorted(vectors):
        vector = vectors[purpose]
        hashed.update(joined(purpose.value, vector.size))
        hashed.update(np.ascontiguousarray(vector, WORD).data)
    return hashed.digest()
