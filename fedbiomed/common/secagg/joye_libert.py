"""The arithmetic of Joye and Libert's scheme: nodes hide integers; only the sum over all nodes opens, for the holder of the server key.

Public modulus N = p * q whose factors nobody keeps; node keys sk_u below N^2 / 4; server key sk_0 = -sum sk_u. Block i of an attempt:
y_u = (1 + x_u N) * H^sk_u mod N^2 with H = H(sid || r || a || p || bound || i); with V = H^sk_0 * prod y_u the sum is (V - 1) / N. One
modular power of 4096 bits for some tens of values makes it thousands of times slower than LOM-R; what it has beyond that is that no
sum of fewer than all nodes can be opened, whoever helps: no node holds shares of what hides another's update.

Source: M. Joye and B. Libert, A scalable scheme for privacy-preserving aggregation of time-series data, 2013.
"""

import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import rsa

from fedbiomed.common.secagg.errors import round_error, setup_error
from fedbiomed.common.secagg.lom_masks import Place
from fedbiomed.common.secagg.terms import Purpose, Terms
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.keystream import WORD, Words

LEAST_BITS, MOST_BITS = 2048, 8192
_SPARE_BITS = 80
_HASH_SPARE_BITS = 128
_SMALL_FACTORS = 1 << 16
_PER_PROCESSOR = 4  # blocks between two looks at whether to go on
T = TypeVar("T")
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Context:
    """What hides one vector; it serves once, or what it hides could be read.

    Args:
        place: which attempt of which round.
        purpose: of the vector.
        bound: digest of what all nodes must have been told alike; the vectors of nodes that were told different things do not open.
    """

    place: Place
    purpose: Purpose
    bound: bytes = b""


@dataclass(frozen=True, slots=True)
class Packing:
    """How values lie in a block.

    Args:
        width: bits of one value, wide enough for the sum over all nodes.
        per_block: values of one block.
    """

    width: int
    per_block: int

    @classmethod
    def of(cls, terms: Terms, modulus: int) -> "Packing":
        """The packing of a session: width bits + bits(W_max) + ceil(log2 n), floor((|N| - 1) / width) values."""
        width = terms.bits + terms.max_weight.bit_length() + math.ceil(math.log2(len(terms.members)))
        return cls(width, (modulus.bit_length() - 1) // width)

    def blocks(self, size: int) -> int:
        """Number of blocks for so many values."""
        return -(-size // self.per_block)


def library() -> Any:
    """The module gmpy2, whose powers are much faster than Python's own.

    Raises:
        FedbiomedSecaggError: it is not installed.
    """
    try:
        import gmpy2  # late: an extra
    except ImportError as error:
        raise setup_error("the scheme joye_libert needs gmpy2: pip install 'fedbiomed[joye-libert]', or choose the scheme lom") from error
    return gmpy2


def drawn_modulus(bits: int = LEAST_BITS) -> int:
    """A modulus for one experiment; its factors are forgotten here.

    Raises:
        FedbiomedSecaggError: fewer than 2048 bits.
    """
    if bits < LEAST_BITS:
        raise setup_error(f"a modulus has {LEAST_BITS} bits or more, not {bits}")
    return rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key().public_numbers().n


def checked_modulus(modulus: int) -> int:
    """A modulus that another party drew.

    Raises:
        FedbiomedSecaggError: fewer than 2048 or more than 8192 bits, even, a prime, a power, or with a small factor.
    """
    gmpy2 = library()
    if not LEAST_BITS <= modulus.bit_length() <= MOST_BITS:
        raise setup_error(f"a modulus has {LEAST_BITS} to {MOST_BITS} bits, not {modulus.bit_length()}")
    if gmpy2.gcd(modulus, gmpy2.primorial(_SMALL_FACTORS)) != 1 or gmpy2.is_prime(modulus) or gmpy2.is_power(modulus):
        raise setup_error("a modulus must be the product of two large primes; this one is not")
    return modulus


def drawn_key(modulus: int) -> int:
    """A node's secret key, uniform below N^2 / 4."""
    return secrets.randbelow(modulus * modulus // 4)


def share_bits(modulus: int, count: int) -> int:
    """k of additive shares modulo 2^k, wide enough that the sum of all keys does not wrap: 2|N| + 80 + ceil(log2 n), in whole bytes."""
    return -(-(2 * modulus.bit_length() + _SPARE_BITS + math.ceil(math.log2(count))) // 8) * 8


def additive_shares(key: int, count: int, bits: int) -> list[int]:
    """Integers that sum to the key modulo 2^bits; fewer than all of them tell nothing."""
    drawn = [secrets.randbits(bits) for _ in range(count - 1)]
    return [*drawn, (key - sum(drawn)) % (1 << bits)]


def hash_to_group(modulus: int, context: Context, block: int) -> int:
    """H(sid || r || a || p || bound || i), uniform in Z*_{N^2}.

    SHAKE-256 to 2|N| + 128 bits, modulo N^2; drawn again where it shares a factor with N.

    Raises:
        FedbiomedSecaggError: no hash has an inverse, so the modulus is none.
    """
    gmpy2, square, place = library(), modulus * modulus, context.place
    size = -(-(2 * modulus.bit_length() + _HASH_SPARE_BITS) // 8)
    for again in range(256):
        where = (place.sid, place.round, place.attempt, context.purpose.value, context.bound)
        content = joined("fbm-joye-libert-v2", *where, block, again)
        found = int.from_bytes(hashlib.shake_256(content).digest(size), "big") % square
        if gmpy2.gcd(found, modulus) == 1:
            return found
    raise setup_error("no hash has an inverse for this modulus, so it is not the product of two large primes")


def hidden(vector: Words, packing: Packing, modulus: int, key: int, context: Context, *, check: Check = lambda: None) -> Words:
    """A node's vector, hidden block by block, on all processors.

    Args:
        vector: values below 2**width / n.
        packing: of the session.
        modulus, key: N and sk_u.
        context: serves once.
        check: called now and then; what it raises ends the work.

    Returns:
        The blocks y_u one after the other, each as big-endian bytes that are `words_per_block` integers of 64 bits here.
    """
    gmpy2, square, size = library(), modulus * modulus, 8 * words_per_block(modulus)

    def block(index: int) -> bytes:
        start = index * packing.per_block
        plain = gmpy2.pack(vector[start : start + packing.per_block].tolist(), packing.width)
        mask = gmpy2.powmod_sec(hash_to_group(modulus, context, index), key, square)
        return int((1 + plain * modulus) * mask % square).to_bytes(size, "big")

    return np.frombuffer(b"".join(_worked(block, packing.blocks(vector.size), check)), WORD)


def words_per_block(modulus: int) -> int:
    """Integers of 64 bits that hold a hidden block."""
    return -(-2 * modulus.bit_length() // 64)


def seconds_per_block(modulus: int) -> float:
    """About how long hiding a block, or opening it, takes on this machine; tried out."""
    gmpy2, square, key = library(), modulus * modulus, drawn_key(modulus)
    began = time.perf_counter()
    gmpy2.powmod_sec(secrets.randbelow(square), key, square)
    return (time.perf_counter() - began) / _processors()


class HiddenSum:
    """The product of all nodes' blocks, which is the hidden sum.

    Args:
        size: number of values.
        packing: of the session.
        modulus: N.
    """

    def __init__(self, size: int, packing: Packing, modulus: int) -> None:
        self._size, self._packing, self._modulus, self._square = size, packing, modulus, library().mpz(modulus) ** 2
        self._products: list[Any] = [library().mpz(1)] * packing.blocks(size)

    def fits(self, vector: Words) -> bool:
        """Whether a node's blocks are of the right number and size."""
        return vector.shape == (len(self._products) * words_per_block(self._modulus),) and vector.dtype == WORD

    def add(self, vector: Words) -> None:
        """Multiply a node's blocks in.

        Args:
            vector: of a size that `fits`.
        """
        rows = np.ascontiguousarray(vector).view(np.uint8).reshape(len(self._products), -1)
        for index, row in enumerate(rows):
            self._products[index] = self._products[index] * int.from_bytes(row.tobytes(), "big") % self._square

    def opened(self, server_key: int, context: Context) -> Words:
        """The sum.

        Args:
            server_key: sk_0, negative.
            context: as hidden.

        Raises:
            FedbiomedSecureAggregationError: it does not open: a node is missing, or a key is wrong.
        """
        sums = np.empty(self._size, np.uint64)
        for index, value in enumerate(self._values(server_key, context)):
            if value >> 64:
                raise round_error("the opened sum holds values above 2^64: a node broke the rules, or a key is wrong")
            sums[index] = value
        return sums

    def _values(self, server_key: int, context: Context) -> Iterator[int]:
        gmpy2, left = library(), self._size

        def opened(index: int) -> Any:
            mask = gmpy2.powmod(hash_to_group(self._modulus, context, index), server_key, self._square)
            return gmpy2.f_divmod(self._products[index] * mask % self._square - 1, self._modulus)

        for packed, rest in _worked(opened, len(self._products)):
            if rest:
                raise round_error("the sum does not open: a node is missing, was told another order, or a key is wrong")
            count = min(self._packing.per_block, left)
            yield from _unpacked(gmpy2.unpack(packed, self._packing.width), count)
            left -= count


def _unpacked(values: Sequence[Any], count: int) -> Iterator[int]:
    """The values of a block, with the zeros at its end, which the library leaves out."""
    if len(values) > count and any(values[count:]):
        raise round_error("the opened sum is longer than the vector: a node broke the rules, or a key is wrong")
    yield from (int(value) for value in values[:count])
    yield from (0 for _ in range(count - len(values)))


def _worked(act: Callable[[int], T], count: int, check: Check = lambda: None) -> Iterator[T]:
    """What an action gives for 0 to count - 1, in this order, on all processors: modular powers let other threads run."""
    batch = _PER_PROCESSOR * _processors()
    with ThreadPoolExecutor(_processors(), "joye-libert", initializer=_let_others_run) as pool:
        for start in range(0, count, batch):
            check()
            yield from pool.map(act, range(start, min(start + batch, count)))


def _let_others_run() -> None:
    library().get_context().allow_release_gil = True


def _processors() -> int:
    return os.cpu_count() or 1
