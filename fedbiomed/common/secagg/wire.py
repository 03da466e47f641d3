"""What orders tell of secure aggregation, and the file of a node's masked vectors."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.lom_messages import Upload
from fedbiomed.common.secagg.part_rules import PartRule, rule_of, rules_of
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.serializer import Serializer

_KEYS = ("sid", "attempt", "layout", "parts")
_SID_BYTES = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggOrder:
    """What an order tells.

    Args:
        sid: SID' of the session.
        attempt: counted from 0.
        layout: digest of the parameters that are summed, see `update.digest_of`; empty where none come back.
        parts: by what rules; none where none come back.
    """

    sid: bytes
    attempt: int
    layout: str
    parts: tuple[PartRule, ...]

    @property
    def clip(self) -> float | None:
        """Range of floating parameters; None where none come back."""
        rule = rule_of(self.parts, Purpose.WEIGHTS)
        return None if rule is None else rule.clip

    def as_dict(self) -> dict[str, Any]:
        """For the order, JSON."""
        parts = [rule.as_dict() for rule in self.parts]
        return {"sid": base64.b64encode(self.sid).decode("ascii"), "attempt": self.attempt, "layout": self.layout, "parts": parts}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "SecaggOrder":
        """What `as_dict` gave.

        Raises:
            FedbiomedSecureAggregationError: it is not of that form.
        """
        try:
            sid, attempt, layout, parts = (given[key] for key in _KEYS)
            content = base64.b64decode(sid, validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise round_error(f"an order tells {', '.join(_KEYS)} of secure aggregation, not {dict(given)!r:.120}") from error
        is_layout = isinstance(layout, str) and (not layout or _DIGEST.fullmatch(layout) is not None)
        if set(given) != set(_KEYS) or len(content) != _SID_BYTES or type(attempt) is not int or not is_layout:
            raise round_error(f"what an order tells of secure aggregation is malformed: {dict(given)!r:.200}")
        return cls(sid=content, attempt=attempt, layout=layout, parts=rules_of(parts))


def secagg_of(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What orders tell, checked; None, or nothing but None, for no secure aggregation.

    Raises:
        FedbiomedSecureAggregationError: it is not of the form of `SecaggOrder.as_dict`.
    """
    if given is None or all(value is None for value in given.values()):
        return None
    return SecaggOrder.of(given).as_dict()


def write_masked(upload: Upload, origin: Mapping[str, Any], path: Path) -> None:
    """Write a node's vectors, whole or not at all.

    Args:
        upload: as the node made it.
        origin: `researcher_id`, `job_id`, `node_id` and `state_id`, for the reader.
        path: of the new file.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        **origin,
        "encrypted": True,
        "sid": upload.sid,
        "round": upload.round,
        "attempt": upload.attempt,
        "vectors": {purpose.value: vector for purpose, vector in upload.vectors.items()},
        "shares": dict(upload.shares),
        "clipped": {purpose.value: fraction for purpose, fraction in upload.clipped.items()},
        "digest": upload.digest,
        "bound": upload.bound,
    }
    Serializer.dump(content, path)


def read_masked(path: Path, node_id: str, job_id: str) -> Upload:
    """What `write_masked` wrote; it may come from anywhere.

    Raises:
        FedbiomedSecureAggregationError: it is something else, or another node's or job's.
    """
    try:
        content = Serializer.load(path)
    except (FedbiomedError, OSError) as error:
        raise round_error(f"the masked update of {node_id} cannot be read: {error}") from error
    match content:
        case {
            "node_id": str(owner),
            "job_id": str(job),
            "encrypted": True,
            "sid": bytes(sid),
            "round": int(round_),
            "attempt": int(attempt),
            "state_id": str() | None as state_id,
            "vectors": dict(vectors),
            "shares": dict(shares),
            "clipped": dict(clipped),
            "digest": bytes(digest),
            "bound": bytes(bound),
        } if (owner, job) == (node_id, job_id) and _are_vectors(vectors) and _are_shares(shares) and _are_fractions(clipped):
            return Upload(
                node_id=node_id,
                sid=sid,
                round=round_,
                attempt=attempt,
                vectors={Purpose(purpose): vector for purpose, vector in vectors.items()},
                shares=shares,
                clipped={Purpose(purpose): float(fraction) for purpose, fraction in clipped.items()},
                digest=digest,
                bound=bound,
                state_id=state_id,
            )
    raise round_error(f"the masked update of {node_id} is none: it is malformed, or of another node or job")


def _are_vectors(given: Mapping[Any, Any]) -> bool:
    return all(purpose in tuple(Purpose) and isinstance(vector, np.ndarray) for purpose, vector in given.items())


def _are_shares(given: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(share, bytes) for name, share in given.items())


def _are_fractions(given: Mapping[Any, Any]) -> bool:
    return all(purpose in tuple(Purpose) and isinstance(part, int | float) and 0 <= part <= 1 for purpose, part in given.items())
