"""Normal numbers made of the operating system's cryptographic generator."""

import math
import os

import numpy as np

_SUMMED = 4
Normal = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def secure_normal(count: int) -> Normal:
    """So many independent draws of mean 0 and variance 1, by the transform of Box and Muller.

    Four draws are summed for each number, so that the gaps of floating-point numbers do not tell the value to which it is added (Holohan
    and Braghin 2021, arXiv:2107.10138, section 5.1).
    """
    pairs = count * _SUMMED // 2
    bits = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64).reshape(2, pairs)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # strictly between 0 and 1
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * math.pi * uniform[1]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    summed: Normal = normal.reshape(_SUMMED, count).sum(axis=0) / math.sqrt(_SUMMED)
    return summed
