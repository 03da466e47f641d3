"""Where the randomness of differential privacy comes from: the operating system, unless the training has a seed.

With a seed everything can be repeated, by the researcher too, who knows the seed: such noise can be subtracted again. It is for tests and
for teaching.
"""

import hashlib
import os

import torch

from fedbiomed.common.secure_normal import secure_normal


class Noise:
    """Gaussian noise, and the generator that draws batches.

    Without a seed the noise is made of bytes of the operating system's cryptographic generator, see `secure_normal`. Which samples are in a
    batch is drawn by torch, from a seed of the operating system.

    Args:
        seed: makes all of it repeatable; None: nobody can repeat it.
        stream: what tells the noise of one round and node from that of another under the same seed.
    """

    def __init__(self, seed: int | None, stream: str = "") -> None:
        self.sampling = torch.Generator().manual_seed(_number(f"sampling/{seed}/{stream}") if seed is not None else _drawn())
        self._seeded = None if seed is None else torch.Generator().manual_seed(_number(f"noise/{seed}/{stream}"))

    def normal(self, like: torch.Tensor, deviation: float) -> torch.Tensor:
        """Independent draws of mean 0, of the shape and type of a tensor and at its place."""
        if self._seeded is not None:
            drawn = torch.randn(like.shape, generator=self._seeded, dtype=torch.float64)
        else:
            drawn = torch.from_numpy(secure_normal(like.numel())).reshape(like.shape)
        return (drawn * deviation).to(device=like.device, dtype=like.dtype)


def _number(words: str) -> int:
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) >> 1


def _drawn() -> int:
    return int.from_bytes(os.urandom(8)) >> 1
