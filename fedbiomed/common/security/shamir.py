"""Shamir's sharing of 32-byte secrets: any `threshold` shares give the secret, fewer give nothing.

The field is that of the prime 2**256 + 297, so that every 32 bytes are an element of it. No maintained library offers sharing over a
prime of this size (PyCryptodome shares 16-byte secrets over GF(2^128)). Source: A. Shamir, How to share a secret, 1979.
"""

import secrets
from collections.abc import Mapping, Sequence

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedSecaggCrypterError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Shares 1 to `count` of a secret.

    Args:
        secret: 32 bytes.
        threshold: how many shares give it back, 1 to `count`.
        count: number of shares.

    Returns:
        `count` shares of 33 bytes; the first is that of index 1.

    Raises:
        FedbiomedSecaggCrypterError: the secret has another length, or the threshold cannot be.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise _error(f"32 bytes are shared with a threshold of 1 to the number of shares, not {len(secret)} bytes, {threshold} of {count}")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_value(coefficients, index).to_bytes(SHARE_BYTES, "big") for index in range(1, count + 1)]


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret of at least `threshold` shares, by their indices; of fewer, or of wrong ones, something else or an error.

    Raises:
        FedbiomedSecaggCrypterError: none, an index below 1, or what comes out is no secret of 32 bytes: the shares do not belong together.
    """
    if not shares or min(shares) < 1 or any(len(share) != SHARE_BYTES for share in shares.values()):
        raise _error(f"shares have indices from 1 and {SHARE_BYTES} bytes each; there are {len(shares)}")
    at_zero = _at_zero(list(shares))
    value = sum(int.from_bytes(shares[index], "big") * factor for index, factor in at_zero.items()) % PRIME
    if value >> (8 * SECRET_BYTES):
        raise _error("these shares are not of one secret")
    return value.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _at_zero(indices: Sequence[int]) -> dict[int, int]:
    """Lagrange's factors of the polynomial's value at 0."""
    factors = {}
    for j in indices:
        above = below = 1
        for m in indices:
            if m != j:
                above, below = above * m % PRIME, below * (m - j) % PRIME
        factors[j] = above * pow(below, -1, PRIME) % PRIME
    return factors


def _error(reason: str) -> FedbiomedSecaggCrypterError:
    return FedbiomedSecaggCrypterError(f"{ErrorNumbers.FB624.value}: {reason}")
