"""Messages of secure aggregation made into the library's objects, and back; what is too large for a message goes into a file."""

import json
from collections.abc import Mapping
from pathlib import Path

from fedbiomed.common.exceptions import FedbiomedMessageError
from fedbiomed.common.files import FileRef
from fedbiomed.common.messages.joye_libert import SecaggKeyParts, SecaggPartsOfOthers
from fedbiomed.common.messages.secagg import SecaggOffer, SecaggReveal, SecaggSurvivors, SecaggTerms, bytes_of, text_of
from fedbiomed.common.secagg.agreement import KeyShare, Offer
from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.common.secagg.lom_messages import Reveal
from fedbiomed.common.secagg.terms import Scheme, Terms
from fedbiomed.common.transport.transport import FileStore

CarriesShares = SecaggSurvivors | SecaggKeyParts | SecaggPartsOfOthers
_MAX_IN_MESSAGE = 40_000
_MAX_FILE = 64 << 20
_SHARE_KEYS = ("identity", "public", "signature")


def terms_told(terms: Terms) -> SecaggTerms:
    """Terms as they travel."""
    return SecaggTerms(
        session=text_of(terms.session),
        job=terms.experiment_id,
        members=list(terms.members),
        threshold=terms.threshold,
        max_weight=terms.max_weight,
        bits=terms.bits,
        scheme=terms.scheme.value,
        distrusts_researcher=terms.distrusts_researcher,
    )


def offer_of(message: SecaggOffer) -> Offer:
    """The offer that a message tells.

    Raises:
        FedbiomedSecaggError: a term cannot be.
        FedbiomedMessageError: it is malformed.
    """
    told = message.terms
    if told.scheme not in tuple(Scheme):
        raise setup_error(f"this node does not know the scheme {told.scheme!r:.40}; choose one of {', '.join(Scheme)}")
    terms = Terms(
        session=bytes_of(told.session),
        experiment_id=told.job,
        researcher_id=message.researcher_id,
        members=tuple(told.members),
        threshold=told.threshold,
        max_weight=told.max_weight,
        bits=told.bits,
        scheme=Scheme(told.scheme),
        distrusts_researcher=told.distrusts_researcher,
    )
    keys = {"identity": bytes_of(message.identity), "reveal_key": bytes_of(message.reveal_key), "signature": bytes_of(message.signature)}
    return Offer(terms=terms, **keys)


def share_of(node_id: str, told: Mapping[str, str]) -> KeyShare:
    """A node's key share as a message tells it.

    Raises:
        FedbiomedMessageError: it is malformed.
    """
    if set(told) != set(_SHARE_KEYS):
        raise FedbiomedMessageError(f"FB601: a key share holds {', '.join(_SHARE_KEYS)}, not {sorted(told)!r:.120}")
    return KeyShare(node_id=node_id, **{key: bytes_of(told[key]) for key in _SHARE_KEYS})


def shares_told(shares: Mapping[str, bytes], files: FileStore, folder: Path, node_id: str) -> tuple[dict[str, str], FileRef | None]:
    """Sealed shares for a message to one node, or in a file that only it may read."""
    told = {owner: text_of(share) for owner, share in shares.items()}
    content = json.dumps(told).encode()
    if len(content) <= _MAX_IN_MESSAGE:
        return told, None
    return {}, _stored(content, files, folder, node_id)


def shares_of(message: CarriesShares, files: FileStore, folder: Path) -> dict[str, bytes]:
    """What `shares_told` gave.

    Raises:
        FedbiomedMessageError: it is malformed.
        FedbiomedRepositoryError: the file cannot be fetched.
    """
    told: object = message.shares
    if message.shares_file is not None:
        try:
            told = json.loads(_fetched(message.shares_file, files, folder))
        except (ValueError, RecursionError) as error:
            raise FedbiomedMessageError(f"FB601: the file of shares is no JSON: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(share, str) for share in told.values()):
        raise FedbiomedMessageError("FB601: shares are base64 by node")
    return {owner: bytes_of(share) for owner, share in told.items()}


def in_message_or_file(content: bytes, files: FileStore, folder: Path, reader: str) -> tuple[str, FileRef | None]:
    """Bytes as base64, or in a file that only one party may read."""
    text = text_of(content)
    return (text, None) if len(text) <= _MAX_IN_MESSAGE else ("", _stored(content, files, folder, reader))


def reveal_of(message: SecaggReveal, files: FileStore, folder: Path) -> Reveal:
    """What a node reveals, as its message tells it.

    Raises:
        FedbiomedMessageError: it is malformed.
        FedbiomedRepositoryError: the file cannot be fetched.
    """
    sealed = bytes_of(message.sealed) if message.sealed_file is None else _fetched(message.sealed_file, files, folder)
    told = {"digest": bytes_of(message.digest), "signature": bytes_of(message.signature)}
    return Reveal(node_id=message.node_id, **told, sealed=sealed)


def _stored(content: bytes, files: FileStore, folder: Path, reader: str) -> FileRef:
    path = folder / f"for_{reader}"
    path.write_bytes(content)
    return files.put(path, readers=(reader,))


def _fetched(ref: FileRef, files: FileStore, folder: Path) -> bytes:
    if ref.size > _MAX_FILE:
        raise FedbiomedMessageError(f"FB601: a file of {ref.size} bytes, at most {_MAX_FILE} are read")
    path = folder / ref.key
    files.get(ref, path)
    return path.read_bytes()
