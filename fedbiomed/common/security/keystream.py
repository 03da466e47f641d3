"""ChaCha20's keystream (RFC 8439) as little-endian integers of 64 bits, added to a vector in place.

A key serves for one chunk of one vector, so the nonce may be zero. The block counter has 32 bits: one key gives at most 256 GiB;
`CHUNK` values are 2 GiB.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

CHUNK = 1 << 28
BLOCK = 1 << 15  # values; 256 KiB, which stay in a processor's second cache while all streams are added
WORD = np.dtype("<u8")
Words = np.ndarray[Any, np.dtype[np.uint64]]
_ZEROS = bytes(BLOCK * WORD.itemsize)


@dataclass(frozen=True, slots=True)
class Stream:
    """A keystream to add or to subtract.

    Args:
        key_of: the 32-byte key of a chunk, by the chunk's number.
        is_added: added, else subtracted.
    """

    key_of: Callable[[int], bytes]
    is_added: bool


def apply_streams(vector: Words, streams: Sequence[Stream], chunk_size: int = CHUNK) -> None:
    """Add or subtract keystreams modulo 2**64, in place.

    Args:
        vector: one-dimensional and contiguous.
        streams: each as long as the vector.
        chunk_size: how many values one key covers.
    """
    buffer = np.empty(min(BLOCK, vector.size), WORD)
    for chunk, start in enumerate(range(0, vector.size, chunk_size)):
        encryptors = [(_cipher(stream.key_of(chunk)), np.add if stream.is_added else np.subtract) for stream in streams]
        for block in blocks(vector[start : start + chunk_size]):
            part = buffer[: block.size]
            for encryptor, add in encryptors:
                encryptor.update_into(memoryview(_ZEROS)[: part.nbytes], part.data.cast("B"))
                add(block, part, out=block)


def keystream(key: bytes, size: int) -> Words:
    """The first values of a key's stream."""
    vector = np.zeros(size, np.uint64)
    apply_streams(vector, [Stream(lambda _chunk: key, is_added=True)])
    return vector


def blocks(vector: Words) -> Iterator[Words]:
    """Views of parts that fit into a processor's cache."""
    for start in range(0, vector.size, BLOCK):
        yield vector[start : start + BLOCK]


def _cipher(key: bytes) -> Any:
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
