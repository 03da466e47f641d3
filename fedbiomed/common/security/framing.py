"""Several byte strings as one, so that no two lists of parts give the same bytes."""

Part = bytes | str | int


def joined(*parts: Part) -> bytes:
    """Concatenate parts, each behind its length.

    Args:
        parts: bytes; text, as UTF-8; integers of 0 or more, as 8 bytes, the highest first.

    Raises:
        OverflowError: an integer is negative or needs more than 64 bits.
    """
    pieces = [_bytes(part) for part in parts]
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def _bytes(part: Part) -> bytes:
    if isinstance(part, int):
        return part.to_bytes(8, "big")
    return part.encode() if isinstance(part, str) else part
