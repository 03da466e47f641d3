"""Who a component is: an Ed25519 key pair (RFC 8032), kept in a file that only its user may read."""

import contextlib
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedCertificateError
from fedbiomed.common.files import link_or_copy, sync_folder, write_whole

KEY_BYTES = 32
_GROUP = 4


class Identity:
    """A key pair with which a component signs.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self._secret = secret

    @classmethod
    def drawn(cls) -> "Identity":
        """A new one, kept nowhere."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """What people compare; see `fingerprint`."""
        return fingerprint(self.public)

    def sign(self, content: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._key.sign(content)

    def save(self, path: Path) -> None:
        """Write the secret to a file with mode 0600, whole or not at all, on the disk when this returns."""
        write_whole(path, self._secret.hex().encode() + b"\n", sync=True)  # a temporary file has mode 0600 from its first moment


def load_identity(path: Path) -> Identity:
    """The identity in a file.

    Raises:
        FedbiomedCertificateError: it cannot be read, is not of that form, or others may read it.
    """
    try:
        mode, text = path.stat().st_mode & 0o777, path.read_text(encoding="ascii").strip()
        secret = bytes.fromhex(text)
    except FileNotFoundError as error:
        raise _error(f"there is no identity {path}; make the component's folder first") from error
    except (OSError, ValueError) as error:
        raise _error(f"cannot read the identity {path}: {error.__class__.__name__}; put back the file of your backup") from error
    if os.name == "posix" and mode & 0o077:
        raise _error(f"others may read the identity {path} (mode {mode:04o}); make it yours alone: chmod 600 {path}")
    if len(secret) != KEY_BYTES:
        raise _error(f"the identity {path} has {len(secret)} bytes, {KEY_BYTES} are needed; put back the file of your backup")
    return Identity(secret)


def made_identity(path: Path) -> Identity:
    """The identity in a file, which is made where there is none; several processes that make it at once get the same one.

    Raises:
        FedbiomedCertificateError: it cannot be made, or see `load_identity`.
    """
    if not path.exists():
        try:
            _make(path)
        except OSError as error:
            raise _error(f"cannot write the identity {path}: {error.strerror or error}") from error
    return load_identity(path)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        Identity.drawn().save(draft)
        with contextlib.suppress(FileExistsError):  # another process was faster
            link_or_copy(draft, path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key as 16 groups of 4 hex digits."""
    digits = hashlib.sha256(public).hexdigest()
    return "-".join(digits[start : start + _GROUP] for start in range(0, len(digits), _GROUP))


def is_signed(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether the owner of a public key signed this content."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _error(reason: str) -> FedbiomedCertificateError:
    return FedbiomedCertificateError(f"{ErrorNumbers.FB619.value}: {reason}")
