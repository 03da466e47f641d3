"""Joye and Libert's scheme: the keys of a session, agreed on once the session is; see `secagg.joye_libert_keys`. Bytes travel as base64.

SecaggDraw            -> SecaggModulus    of the first member
SecaggTakeModulus     -> SecaggKeyParts   each node's key in shares, one for each other node
SecaggPartsOfOthers   -> SecaggKeySum     the sum of the shares that a node got
"""

from dataclasses import dataclass

from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.message import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggDraw(Request):
    """Ask the first member of a session for its modulus."""

    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggModulus(Reply):
    """The modulus, signed.

    Args:
        modulus: the highest byte first.
        signature: of the first member.
    """

    modulus: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggTakeModulus(Request):
    """Tell a member the modulus; see `SecaggModulus`."""

    sid: str
    modulus: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggKeyParts(Reply):
    """A node's key in sealed shares.

    Args:
        shares: by receiver; none where they lie in `shares_file`.
        shares_file: where they are too many for a message.
    """

    shares: dict[str, str]
    shares_file: FileRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggPartsOfOthers(Request):
    """Hand the shares of the others on to the node that can read them.

    Args:
        shares: by owner; none where they lie in `shares_file`.
        shares_file: where they are too many for a message.
    """

    sid: str
    shares: dict[str, str]
    shares_file: FileRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggKeySum(Reply):
    """The sum of the shares that a node got and the one that it kept, sealed to the researcher, signed."""

    sealed: str
    signature: str
