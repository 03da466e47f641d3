"""What all parties of a session must have in common, checked by each of them."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from fedbiomed.common.constants import ID_PATTERN
from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.common.security.framing import joined

SESSION_BYTES = 16
RING_BITS = 64
MAX_BITS = 32
DEFAULT_MAX_WEIGHT = 1 << 20
_LEAST_BITS = 8


class Scheme(StrEnum):
    """How updates are hidden."""

    LOM = "lom"
    JOYE_LIBERT = "joye_libert"


class Purpose(StrEnum):
    """What a vector holds; each has masks of its own."""

    WEIGHTS = "weights"
    AUX = "aux"
    METRICS = "metrics"


class Weighting(StrEnum):
    """By what a node counts in a sum."""

    SAMPLES = "samples"
    NODES = "nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a session.

    Args:
        session: 16 random bytes, drawn by the researcher.
        experiment_id: whose rounds they are.
        researcher_id: who opens the sums.
        members: ids of the nodes, two or more, sorted by their bytes.
        threshold: how many nodes must take part to the end. At least 2 and more than half of the members; where the researcher is not
            trusted more than two thirds; all of them for Joye-Libert.
        max_weight: the highest number of samples by which a node may count.
        bits: a value is rounded to one of 2**bits steps, 8 to 32.
        scheme: how updates are hidden.
        distrusts_researcher: nodes go on only when `threshold` nodes signed one survivor set.

    Raises:
        FedbiomedSecaggError: a term cannot be; one node alone; or a sum could run over the ring.
    """

    session: bytes
    experiment_id: str
    researcher_id: str
    members: tuple[str, ...]
    threshold: int
    max_weight: int = DEFAULT_MAX_WEIGHT
    bits: int = MAX_BITS
    scheme: Scheme = Scheme.LOM
    distrusts_researcher: bool = False

    def __post_init__(self) -> None:
        if len(self.session) != SESSION_BYTES:
            raise setup_error(f"a session is named by {SESSION_BYTES} bytes, not {len(self.session)}")
        self._check_members()
        if not _LEAST_BITS <= self.bits <= MAX_BITS:
            raise setup_error(f"values have {_LEAST_BITS} to {MAX_BITS} bits, not {self.bits}")
        if self.max_weight < 1:
            raise setup_error(f"the highest weight must be 1 or more, not {self.max_weight}")
        least = least_threshold(len(self.members), scheme=self.scheme, distrusts_researcher=self.distrusts_researcher)
        if not least <= self.threshold <= len(self.members):
            raise setup_error(
                f"the threshold of {len(self.members)} nodes lies between {least} and {len(self.members)}, not at {self.threshold}"
            )
        if self.highest_sum >> RING_BITS:
            most = ((1 << RING_BITS) - 1) // (len(self.members) * self.steps)
            raise setup_error(
                f"{len(self.members)} nodes with weights up to {self.max_weight} and values of {self.bits} bits could pass 2^{RING_BITS}; "
                f"take weights up to {most}, or fewer bits"
            )

    def _check_members(self) -> None:
        if len(self.members) < 2:
            raise setup_error(f"a sum of one node is that node's update: two nodes or more are needed, not {len(self.members)}")
        if len(set(self.members)) < len(self.members) or list(self.members) != sorted(self.members, key=str.encode):
            raise setup_error(f"members must be different and sorted by their bytes, not {list(self.members)!r:.120}")
        if not all(ID_PATTERN.fullmatch(party) for party in (*self.members, self.researcher_id)) or self.researcher_id in self.members:
            raise setup_error(f"members and researcher are named by different ids, not {[*self.members, self.researcher_id]!r:.120}")

    @property
    def steps(self) -> int:
        """The highest quantised value, R = 2**bits - 1."""
        return (1 << self.bits) - 1

    @property
    def highest_sum(self) -> int:
        """n * W_max * R; no sum of a round is higher."""
        return len(self.members) * self.max_weight * self.steps

    @property
    def digest(self) -> bytes:
        """SHA-256 of all terms."""
        numbers = (self.threshold, self.max_weight, self.bits, int(self.distrusts_researcher))
        text = (self.scheme.value, self.experiment_id, self.researcher_id, *self.members)
        return hashlib.sha256(joined("fbm-secagg-terms-v1", self.session, *numbers, *text)).digest()


def least_threshold(count: int, *, scheme: Scheme = Scheme.LOM, distrusts_researcher: bool = False) -> int:
    """The lowest threshold of so many nodes.

    With more than half, two groups of that size share a node. With more than two thirds they share an honest one as long as fewer than a
    third collude, so that no two survivor sets find enough signatures.
    """
    if scheme is Scheme.JOYE_LIBERT:
        return count
    return max(2, 2 * count // 3 + 1 if distrusts_researcher else count // 2 + 1)
