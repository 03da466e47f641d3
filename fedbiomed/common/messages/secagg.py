"""Secure aggregation: how nodes agree on a session, and how the sum of a round is opened. Bytes travel as base64.

SecaggOffer      -> SecaggNonce        the terms
SecaggNonces     -> SecaggKeyShare     what each node drew
SecaggKeys       -> SecaggReady        the nodes' public keys
SecaggSurvivors  -> SecaggSignature    who is in the sum; where the researcher is not trusted, first without signatures
                 -> SecaggReveal
SecaggAgain      -> SecaggMasked       the kept update under fresh masks
SecaggClose      -> SecaggClosed       the end of a round, or of the session
"""

import base64
import binascii
from dataclasses import dataclass

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.message import Reply, Request


def text_of(content: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(content).decode("ascii")


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` wrote.

    Raises:
        FedbiomedMessageError: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FedbiomedMessageError(f"FB601: {text!r:.40} is no base64") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggTerms:
    """The terms of a session as they travel; see `secagg.terms.Terms`.

    Args:
        session: base64 of the session's bytes.
        job: the job whose rounds they are.
    """

    session: str
    job: str
    members: list[str]
    threshold: int
    max_weight: int
    bits: int
    scheme: str
    distrusts_researcher: bool

    def __post_init__(self) -> None:
        is_right = all(isinstance(text, str) for text in (self.session, self.job, self.scheme)) and isinstance(self.members, list)
        are_counts = all(type(number) is int for number in (self.threshold, self.max_weight, self.bits))
        if not (is_right and are_counts and isinstance(self.distrusts_researcher, bool) and all(isinstance(m, str) for m in self.members)):
            raise ValueError("the terms of secure aggregation are malformed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggOffer(Request):
    """A researcher proposes a session.

    Args:
        identity: the researcher's public key.
        reveal_key: towards which nodes encrypt what opens a sum.
        signature: over terms and that key.
    """

    terms: SecaggTerms
    identity: str
    reveal_key: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggNonce(Reply):
    """A node is ready to agree, and drew this."""

    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggNonces(Request):
    """What all members drew, by node.

    Args:
        session: as in the terms.
    """

    session: str
    nonces: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggKeyShare(Reply):
    """A node's public key of the session, signed; see `secagg.agreement.KeyShare`."""

    identity: str
    public: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggKeys(Request):
    """The public keys of all members.

    Args:
        session: as in the terms.
        shares: by node, `identity`, `public` and `signature`.
    """

    session: str
    shares: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggReady(Reply):
    """A node has the keys; `sid` is what it calls the session."""

    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggSurvivors(Request):
    """Tell one node who is in the sum of an attempt.

    Args:
        sid: of the session.
        round, attempt: counted from 0.
        nodes: in the sum, sorted.
        digest: of that set.
        shares: sealed shares for this node, by owner; none where they lie in `shares_file`.
        shares_file: where they are too many for a message.
        signatures: of the members over the digest; None where they are not there yet.
    """

    sid: str
    round: int
    attempt: int
    nodes: tuple[str, ...]
    digest: str
    shares: dict[str, str]
    shares_file: FileRef | None
    signatures: dict[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggSignature(Reply):
    """A node accepts a survivor set."""

    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggReveal(Reply):
    """What opens the sum, encrypted to the researcher; see `secagg.lom_messages.Reveal`.

    Args:
        sealed: empty where it lies in `sealed_file`.
    """

    digest: str
    signature: str
    sealed: str
    sealed_file: FileRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggAgain(Request):
    """Ask for the kept update of a round under fresh masks.

    Args:
        attempt: the new one.
    """

    sid: str
    round: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggMasked(Reply):
    """The file with the vectors of that attempt."""

    result: FileRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggClose(Request):
    """End a round, or the session where `round` is None: its secrets are deleted."""

    sid: str
    round: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggClosed(Reply):
    """They are deleted."""
