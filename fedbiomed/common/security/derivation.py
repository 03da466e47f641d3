"""Keys from keys: HKDF with SHA-256 (RFC 5869), 32 bytes each."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from fedbiomed.common.security.framing import Part, joined

KEY_BYTES = 32


def agreed_key(secret: bytes, salt: bytes, *context: Part) -> bytes:
    """A key from a shared secret that is not uniform, the result of a key exchange for instance (extract and expand).

    Args:
        secret: the shared secret.
        salt: public and not repeated.
        context: what the key is for; any difference gives an unrelated key.
    """
    return HKDF(SHA256(), KEY_BYTES, salt, joined(*context)).derive(secret)


def derived_key(key: bytes, *context: Part) -> bytes:
    """A key from a uniform key (expand only).

    Args:
        key: 32 secret bytes.
        context: what the new key is for; any difference gives an unrelated key.
    """
    return HKDFExpand(SHA256(), KEY_BYTES, joined(*context)).derive(key)
