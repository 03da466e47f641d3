"""Messages that only one party can read: AES-256-GCM under a shared key, or towards the public key of a receiver."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError
from fedbiomed.common.security.derivation import agreed_key
from fedbiomed.common.security.framing import Part, joined

NONCE_BYTES = 12
PUBLIC_BYTES = 32
_LABEL = "fbm-sealed-v1"


def seal(key: bytes, content: bytes, *context: Part) -> bytes:
    """Encrypt under a shared key: nonce, then ciphertext with tag; opens with the same key and context only."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, joined(*context))


def unseal(key: bytes, sealed: bytes, *context: Part) -> bytes:
    """The content of what `seal` gave.

    Raises:
        FedbiomedSecaggCrypterError: it was changed, or is of another key or context.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], joined(*context))
    except (InvalidTag, ValueError) as error:
        raise FedbiomedSecaggCrypterError(
            f"{ErrorNumbers.FB624.value}: a sealed message does not open: it was changed, or is of another key, sender or round"
        ) from error


def seal_to(receiver: bytes, content: bytes, *context: Part) -> bytes:
    """Encrypt towards an X25519 public key, under a key pair drawn for this one message.

    Args:
        receiver: raw public key of 32 bytes.
        content: what only the owner of that key shall read.
        context: must be the same when it is opened.

    Raises:
        FedbiomedSecaggCrypterError: the public key is none, or of low order.
    """
    drawn = X25519PrivateKey.generate()
    public = drawn.public_key().public_bytes_raw()
    return public + seal(_shared(drawn, receiver, public, receiver), content, *context)


def unseal_from(private: X25519PrivateKey, sealed: bytes, *context: Part) -> bytes:
    """The content of what `seal_to` gave.

    Raises:
        FedbiomedSecaggCrypterError: it was changed, or is of another key or context.
    """
    drawn, receiver = sealed[:PUBLIC_BYTES], private.public_key().public_bytes_raw()
    return unseal(_shared(private, drawn, drawn, receiver), sealed[PUBLIC_BYTES:], *context)


def exchanged(private: X25519PrivateKey, public: bytes) -> bytes:
    """The shared secret of an X25519 exchange.

    Raises:
        FedbiomedSecaggCrypterError: the other's key is none, or of low order: the secret would be all zeros, known to everybody.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise FedbiomedSecaggCrypterError(
            f"{ErrorNumbers.FB624.value}: an X25519 public key is of low order, or not of {PUBLIC_BYTES} bytes; its owner must send another"
        ) from error


def _shared(private: X25519PrivateKey, public: bytes, drawn: bytes, receiver: bytes) -> bytes:
    return agreed_key(exchanged(private, public), joined(drawn, receiver), _LABEL)
